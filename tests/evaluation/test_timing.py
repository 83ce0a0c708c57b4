"""How times are summed up."""

import subprocess
import sys

import numpy as np
import pytest

from distill_jax.evaluation.timing import latency_of, throughput_of, timed_pass


def test_a_pass_asks_about_every_batch_in_turn():
    asked, after = [], []
    taken = timed_pass(asked.append, ["a", "b"], lambda: after.append(len(asked)))
    assert asked == ["a", "b"] and after == [1, 2]
    assert taken.shape == (2,) and (taken > 0).all()


def test_a_batch_stands_with_the_median_of_its_repeats():
    passes = [np.array([1e6, 5e6]), np.array([2e6, 900e6]), np.array([3e6, 7e6])]
    latency = latency_of(passes)
    assert latency.p50_ms == pytest.approx(4.5) and latency.runs == 6
    assert throughput_of(passes, rows=9) == pytest.approx(9 / 9e-3)


def test_it_needs_no_jax():
    """What answers by another program is timed in a process without it."""
    code = "import distill_jax.evaluation.timing, sys; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
