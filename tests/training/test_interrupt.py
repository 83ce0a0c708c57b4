"""The first signal asks, the second does not."""

import os
import signal

import pytest

from distill_jax.training.interrupt import Interrupted, StopRequest


def test_first_signal_raises_the_flag_and_the_second_the_exception():
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
