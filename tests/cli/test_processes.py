"""A table in a process of its own that is stopped, killed and started again."""

import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from distill_jax.tables.ledger import Ledger

SCRIPT = Path(__file__).resolve().parents[2] / "experiments/compare_losses.py"


@pytest.fixture
def start(toy_teacher, toy_reviews, one_device, tmp_path):
    """Starts the script on the toy world; its runs are long enough to be caught in one."""
    flags = (
        f"--data files:{toy_reviews} --teacher {toy_teacher} --students 1x8x2 --seeds 0 1 "
        "--objectives ce kl --label-fraction 0.5 --batch-size 16 --teacher-batch-size 16 "
        "--teacher-epochs 1 --teacher-learning-rate 1e-4 --max-shapes 1 --max-length 16 "
        "--track none --evaluations 20"
    ).split()
    environment = {
        **one_device,
        "DISTILL_JAX_HOME": str(tmp_path / "home"),
    }

    def go(folder, steps=200, more=None):
        command = [sys.executable, str(SCRIPT), *flags, "--steps", str(steps)]
        return subprocess.Popen(
            [*command, "--output-dir", str(tmp_path / folder)],
            env={**environment, **(more or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return go


def finish(process):
    out, err = process.communicate(timeout=600)
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


@pytest.mark.long
@pytest.mark.slow
def test_stopped_and_killed_tables_come_out_like_the_undisturbed_one(start, tmp_path):
    """Ctrl-C in one run, SIGKILL in the next. Slow: four processes that import and compile."""
    undisturbed = finish(start("undisturbed"))
    assert undisturbed.strip().splitlines()[-1].endswith("ledger.jsonl")

    folder = tmp_path / "disturbed"
    process = start("disturbed")
    wait_for(lambda: len(rows(folder)) >= 4, process)  # teacher, yardsticks and one student
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "the same command goes on from here" in err
    assert "Traceback" not in err
    stopped_at = len(rows(folder))
    assert stopped_at < 7

    process = start("disturbed")
    wait_for(lambda: len(rows(folder)) > stopped_at, process)
    process.kill()
    process.communicate(timeout=60)

    finish(start("disturbed"))
    assert len(rows(folder)) == 7
    assert scores(folder) == scores(tmp_path / "undisturbed")


@pytest.mark.slow
@pytest.mark.long
def test_two_processes_make_the_table_of_one(start, tmp_path):
    """Slow: three processes start JAX and compile. Over loopback, with one device each."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    finish(start("alone", steps=8))
    names = {"DISTILL_JAX_COORDINATOR": address, "DISTILL_JAX_NUM_PROCESSES": "2"}
    both = [start("both", 8, {**names, "DISTILL_JAX_PROCESS_ID": str(own)}) for own in range(2)]
    lead, other = [finish(process) for process in both]
    others = [line for line in other.splitlines() if line and not line.startswith("[Gloo]")]
    assert "table.md" in lead and not others
    alone, together = ({row.hash: row for row in rows(tmp_path / f)} for f in ("alone", "both"))
    assert len(alone) == 7  # the teacher, two yardsticks, two objectives with two seeds
    assert alone.keys() == together.keys()
    for hash_, row in alone.items():
        assert row.metrics["test/accuracy"] == together[hash_].metrics["test/accuracy"]
        assert row.metrics["test/nll"] == pytest.approx(together[hash_].metrics["test/nll"], 1e-3)
