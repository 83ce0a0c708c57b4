"""A table in a process of its own that is stopped, killed and started again."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from distill_jax.sweeps.ledger import Ledger

SCRIPT = Path(__file__).resolve().parents[2] / "experiments/compare_losses.py"


@pytest.fixture
def start(toy_teacher, toy_reviews, tmp_path):
    """Starts the script on the toy world; its runs are long enough to be caught in one."""
    flags = (
        f"--data files:{toy_reviews} --teacher {toy_teacher} --students 1x8x2 --seeds 0 1 "
        "--objectives ce kl --label-fraction 0.5 --batch-size 16 --teacher-batch-size 16 "
        "--teacher-epochs 1 --max-shapes 1 --max-length 16 --track none --evaluations 40"
    ).split()
    environment = {
        **os.environ,
        "DISTILL_JAX_HOME": str(tmp_path / "home"),
        "XLA_FLAGS": "",
        "JAX_PLATFORMS": "cpu",
    }

    def go(folder, steps=400):
        command = [sys.executable, str(SCRIPT), *flags, "--steps", str(steps)]
        return subprocess.Popen(
            [*command, "--output-dir", str(tmp_path / folder)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return go


def finish(process):
    out, err = process.communicate(timeout=180)
    assert process.returncode == 0, err
    return out


def wait_for(condition, process):
    deadline = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def rows(folder):
    return Ledger(folder / "ledger.jsonl").rows()


def scores(folder):
    keys = ("validation/accuracy", "test/accuracy", "test/nll", "test/ece")
    return {
        (row.row, row.seed): [row.metrics[key] for key in keys] + [row.selected_step]
        for row in rows(folder)
    }


@pytest.mark.slow
def test_stopped_and_killed_tables_come_out_like_the_undisturbed_one(start, tmp_path):
    """Ctrl-C in one run, SIGKILL in the next. Slow: five processes that import and compile."""
    undisturbed = finish(start("undisturbed"))
    assert undisturbed.strip().splitlines()[-1].endswith("ledger.jsonl")

    folder = tmp_path / "disturbed"
    process = start("disturbed")
    wait_for(lambda: len(rows(folder)) >= 2, process)  # the teacher and one student
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "the same command goes on from here" in err
    assert "Traceback" not in err
    stopped_at = len(rows(folder))
    assert stopped_at < 5

    process = start("disturbed")
    wait_for(lambda: len(rows(folder)) > stopped_at, process)
    process.kill()
    process.communicate(timeout=60)

    finish(start("disturbed"))
    assert len(rows(folder)) == 5
    assert scores(folder) == scores(tmp_path / "undisturbed")
