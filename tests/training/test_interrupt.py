"""The first signal asks, the second does not."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from distill_jax.training import interrupt
from distill_jax.training.interrupt import Interrupted, StopRequest


@pytest.fixture
def hears_sigint():
    """Python's own handler; a process started in the background by a shell ignores SIGINT."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_first_signal_raises_the_flag_and_the_second_the_exception(hears_sigint):
    before = signal.getsignal(signal.SIGINT)
    with StopRequest() as stop:
        stop.check()
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.requested
        with pytest.raises(Interrupted):
            stop.check()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_sigterm_asks_too_and_handlers_come_back():
    before = signal.getsignal(signal.SIGTERM)
    with StopRequest() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
    assert stop.requested
    assert signal.getsignal(signal.SIGTERM) is before


DEAF = """
import hashlib, sys
from distill_jax.training import interrupt
interrupt.GRACE_SECONDS = 0.2
with interrupt.StopRequest(lambda line: print(line, flush=True)):
    print("in", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", 10**9)  # minutes in which Python runs no handler
"""


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_signals_are_answered_where_python_is_not_running(sent):
    """As in a long compilation: the first is acknowledged at once, the second ends the process."""
    with subprocess.Popen(
        [sys.executable, "-c", DEAF],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(interrupt.__file__).parents[2])},
    ) as process:
        assert process.stdout.readline() == "in\n"
        time.sleep(0.5)
        process.send_signal(sent)
        assert process.stdout.readline().strip() == interrupt.WORD
        time.sleep(0.3)
        assert process.poll() is None
        process.send_signal(sent)
        assert process.wait(timeout=30) == 130
        assert "stopped at once" in process.stderr.read()
