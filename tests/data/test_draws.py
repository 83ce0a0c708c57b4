"""Draws by name: reproducible, independent of their neighbours, uniform."""

import numpy as np
import pytest
from scipy import stats

from distill_jax.data.draws import draw_below, draw_bits, draw_unit

N = 20_000


def test_a_draw_depends_on_its_names_alone():
    many = draw_bits(7, np.arange(100)[:, None], np.arange(3)[None])
    assert many.shape == (100, 3)
    for row, column in [(0, 0), (57, 2), (99, 1)]:
        assert many[row, column] == draw_bits(7, row, column)


def test_the_stream_is_fixed():
    """Another stream would silently be another experiment."""
    assert draw_bits(0) == np.uint64(0xE220A8397B1DCDAF)  # the first word of splitmix64(0)
    assert draw_bits(1, 2) != draw_bits(2, 1)
    assert draw_bits(-1) != draw_bits(1)


@pytest.mark.parametrize("count", [1, 2, 7, 1000])
def test_draws_below_are_uniform(count):
    drawn = draw_below(count, 3, np.arange(N))
    assert drawn.min() >= 0 and drawn.max() < count
    if count > 1:
        assert stats.chisquare(np.bincount(drawn, minlength=count)).pvalue > 1e-3


def test_units_are_uniform_and_unlike_those_of_the_next_step():
    now, then = (draw_unit(0, step, np.arange(N)) for step in (5, 6))
    assert now.min() >= 0 and now.max() < 1
    assert stats.kstest(now, "uniform").pvalue > 1e-3
    assert abs(np.corrcoef(now, then)[0, 1]) < 0.03
