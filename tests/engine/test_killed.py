"""What SIGKILL leaves behind goes on to the same bits, for every kind of training."""

import io
import random
import subprocess
import sys

import killed
import pytest
from rich.console import Console

from distill_jax.engine.progress import Reporter


def outcome(rows, folder):
    """All that a run has to reproduce, by hash: metrics but times, and the models' bytes."""
    return {
        row.hash: (
            {k: v for k, v in row.metrics.items() if not k.startswith("latency/")},
            row.selected_step,
            row.history,
            (folder / "runs" / row.hash / "model/model.safetensors").read_bytes(),
        )
        for row in rows
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(kind, marks=() if kind == "single" else pytest.mark.long)
        for kind in killed.STRATEGIES
    ],
)
def test_sigkill(kind, toy_teacher, toy_reviews, tmp_path, monkeypatch):
    """Slow: each kind takes a process of its own to be killed."""
    step = random.Random(kind).randint(killed.TEACHER_STEPS + 3, killed.STEP_CALLS[kind])
    reporter = Reporter(Console(file=io.StringIO(), width=200))
    monkeypatch.setenv("DISTILL_JAX_HOME", str(tmp_path / "home"))
    _, expected = killed.run(kind, toy_teacher, toy_reviews, tmp_path / "whole", reporter)

    monkeypatch.setenv("DISTILL_JAX_HOME", str(tmp_path / "another_home"))
    given = (kind, step, toy_teacher, toy_reviews, tmp_path / "disturbed")
    died = subprocess.run(
        [sys.executable, killed.__file__, *map(str, given)],
        env=killed.environment(),
        capture_output=True,
        text=True,
    )
    assert died.returncode == -9, died.stderr[-2000:]
    assert list((tmp_path / "disturbed/runs").rglob("digests.json")), "nothing to go on from"

    _, rows = killed.run(
        kind, toy_teacher, toy_reviews, tmp_path / "disturbed", reporter, resume="must"
    )
    assert outcome(rows, tmp_path / "disturbed") == outcome(expected, tmp_path / "whole")
    assert not list((tmp_path / "disturbed/runs").rglob("digests.json"))
