"""A placebo says of each example what its teacher says of another one."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill_jax.core.types import Capture
from distill_jax.data.plan import PlannedBatch, make_batch
from distill_jax.teachers.cache import build_cache, open_cache
from distill_jax.teachers.cached import RecordMemory
from distill_jax.teachers.live import LiveTeacher
from distill_jax.teachers.manifest import Provenance
from distill_jax.teachers.placebo import Placebo, shuffled

CAPTURE = Capture(hidden_states=(1,))


@given(st.integers(1, 500), st.integers(0, 2**32 - 1))
def test_all_words_are_given_and_which_to_whom_is_a_function_of_the_seed(count, seed):
    order_N = shuffled(count, seed)
    assert sorted(order_N.tolist()) == list(range(count))
    assert (shuffled(count, seed) == order_N).all()


def test_another_seed_is_another_order():
    assert (shuffled(60, 0) != shuffled(60, 1)).any()
    assert (shuffled(60, 0) != np.arange(60)).any()


@pytest.fixture(scope="module", params=["live", "cached"])
def speaker(request, teacher, toy_table, tmp_path_factory):
    live = LiveTeacher(*teacher, CAPTURE)
    if request.param == "live":
        return live
    folder = tmp_path_factory.getbasetemp() / "placebo"
    provenance = Provenance("t", toy_table.digest, CAPTURE, "float32")
    build_cache(folder, provenance, toy_table, live)
    return open_cache(folder, provenance, toy_table, memory=RecordMemory(1 << 20))


def test_logits_are_anothers_and_all_else_the_examples_own(speaker, toy_table):
    order_N = shuffled(len(toy_table), 3)
    placebo = Placebo(speaker, toy_table, order_N)
    longest = int(toy_table.lengths_N.max())

    def logits_of(row):
        alone = make_batch(toy_table, PlannedBatch(np.asarray([row]), longest), batch_size=1)
        return np.asarray(speaker(alone).logits_BC)[0]

    rows = np.asarray([7, 0, 31, 12])
    length = int(toy_table.lengths_N[rows].max())
    batch = make_batch(toy_table, PlannedBatch(rows, length), batch_size=6)
    said, own = placebo(batch), speaker(batch)
    for place, row in enumerate(rows):
        expected = logits_of(order_N[row])
        np.testing.assert_allclose(said.logits_BC[place], expected, rtol=1e-4, atol=1e-5)
        if order_N[row] != row:
            assert np.abs(np.asarray(own.logits_BC)[place] - expected).max() > 1e-3
    np.testing.assert_array_equal(np.asarray(said.logits_BC)[4:], 0)
    np.testing.assert_array_equal(said.hidden_states[1], own.hidden_states[1])
