"""Several speakers as one: each row is said by the one who knows it, by its own number."""

import jax.numpy as jnp
import numpy as np
import pytest

from distill_jax.core.types import ModelOutput
from distill_jax.data.images import ImageTable
from distill_jax.teachers.parts import by_part


def speaker(name, count):
    """Says (name, the row's number); refuses rows that it does not know."""

    def say(batch):
        rows = np.asarray(batch.example_ids_B)
        assert rows.dtype == np.int32 and rows.max() < count
        logits = np.stack([np.full(len(rows), name), rows], axis=1).astype(np.float32)
        hidden = {1: np.repeat(logits[:, None], 2, axis=1)}
        return ModelOutput(logits_BC=logits, hidden_states=hidden)

    return say


@pytest.mark.parametrize("rows", [[0, 1, 2], [3, 4, 5, 6], [6, 0, 4, 2], [5]])
def test_each_row_is_said_by_the_one_whose_it_is(rows):
    table = ImageTable(
        tuple(f"e{n}" for n in range(7)), np.zeros(7, np.int32), np.zeros((7, 2, 2, 1), np.float32)
    )
    batch = table.batch(np.array(rows), 1, 5)
    heard = by_part([speaker(1, 3), speaker(2, 2), speaker(3, 2)], [3, 2, 2])(batch)
    firsts = [(1, 0)] * 3 + [(2, 3)] * 2 + [(3, 5)] * 2
    expected = [(firsts[row][0], row - firsts[row][1]) for row in rows]
    np.testing.assert_array_equal(heard.logits_BC[: len(rows)], expected)
    np.testing.assert_array_equal(heard.hidden_states[1][: len(rows), 1], expected)
    assert (heard.logits_BC[len(rows) :, 1] == -1).all()  # nobody's
    assert jnp.asarray(heard.logits_BC).dtype == jnp.float32


def test_who_has_no_row_in_a_batch_is_not_asked():
    table = ImageTable(("a", "b"), np.zeros(2, np.int32), np.zeros((2, 2, 2, 1), np.float32))
    silent = lambda _: pytest.fail("asked")  # noqa: E731
    heard = by_part([silent, speaker(2, 1)], [1, 1])(table.batch(np.array([1]), 1, 3))
    assert heard.logits_BC[0].tolist() == [2, 0]
    nobody = table.batch(np.array([], int), 1, 3)
    assert by_part([speaker(1, 1), silent], [1, 1])(nobody).logits_BC.shape == (3, 2)
