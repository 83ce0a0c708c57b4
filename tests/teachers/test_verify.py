"""A teacher that says something else is found; rounding, padding and top-k are not mistaken."""

import numpy as np
import pytest

from distill_jax.core.types import Capture, ModelOutput
from distill_jax.teachers.cache import Provenance, build_cache, open_cache
from distill_jax.teachers.verify import compare_sample, sample_rows, tolerance

CAPTURE = Capture(hidden_states=(1,), attention_scores=(2,))


def teacher(batch, noise=0.0):
    """Random but fixed words for every token id; anything at all for padding."""
    table = np.random.default_rng(0).normal(size=(20, 6)).astype(np.float32)
    hidden_BTD = table[np.asarray(batch.input_ids_BT)]
    where_BT1 = np.asarray(batch.where_BT)[:, :, None]
    scores = np.einsum("bid,bjd->bij", hidden_BTD, hidden_BTD)[:, None]
    return ModelOutput(
        logits_BC=(hidden_BTD * where_BT1).sum(axis=1) + np.float32(noise),
        hidden_states={1: np.where(where_BT1, hidden_BTD, hidden_BTD.shape[1])},
        attention_scores={2: scores.astype(np.float32)},
    )


LIMITS = {
    dtype: tolerance(Provenance("t", "d", CAPTURE, dtype))
    for dtype in ("float32", "float16", "bfloat16")
}


def compared(toy_table, tmp_path, speaker, dtype="float32", top_k=None):
    provenance = Provenance("t", toy_table.digest, CAPTURE, dtype, top_k)
    build_cache(tmp_path / "cache", provenance, toy_table, teacher, shard_examples=10)
    cache = open_cache(tmp_path / "cache", provenance, toy_table)
    rows = sample_rows(len(toy_table), 9, seed=3)
    return compare_sample(cache, provenance, toy_table, speaker, rows, batch_size=4)


@pytest.mark.parametrize("dtype", LIMITS)
@pytest.mark.parametrize("top_k", [None, 2])
def test_the_same_teacher_agrees(toy_table, tmp_path, dtype, top_k):
    worst = compared(toy_table, tmp_path, teacher, dtype, top_k)
    assert worst.keys() == {"logits", "hidden_states/1", "attention_scores/2"}
    assert all(by < LIMITS[dtype] for by in worst.values())
    assert worst["hidden_states/1"] > 0 or dtype == "float32"
    assert worst["logits"] < 1e-6


@pytest.mark.parametrize("top_k", [None, 2])
def test_another_teacher_does_not(toy_table, tmp_path, top_k):
    worst = compared(toy_table, tmp_path, lambda batch: teacher(batch, 0.5), top_k=top_k)
    assert worst["logits"] > 0.02
    assert worst["hidden_states/1"] == 0


@pytest.mark.parametrize("kind", ["hidden_states", "attention_scores"])
@pytest.mark.parametrize("value", [9.0, np.nan])
def test_one_other_number_is_found(toy_table, tmp_path, kind, value):
    def other(batch):
        said = teacher(batch)
        ((layer, array),) = getattr(said, kind).items()
        array = array.copy()
        array[0, 0, 0] = value
        return said.replace(**{kind: {layer: array}})

    worst = compared(toy_table, tmp_path, other)
    (name,) = (name for name in worst if name.startswith(kind))
    assert not worst[name] <= LIMITS["float32"]
    assert sum(not by <= LIMITS["float32"] for by in worst.values()) == 1


def test_a_changed_mass_of_the_rest_is_found(toy_table, tmp_path):
    """The two largest are the same; the other classes have all become likelier."""

    def other(batch):
        logits_BC = teacher(batch).logits_BC.copy()
        lowest_BC = np.argsort(logits_BC, axis=1)[:, :-2]
        second_B1 = np.sort(logits_BC, axis=1)[:, -2:-1]
        np.put_along_axis(logits_BC, lowest_BC, second_B1, axis=1)
        return teacher(batch).replace(logits_BC=logits_BC)

    assert compared(toy_table, tmp_path, other, top_k=2)["logits"] > 0.01


def test_a_teacher_that_computes_coarsely_is_given_more_room():
    coarse = Provenance("t", "d", CAPTURE, "float32", precision="bf16")
    assert LIMITS["bfloat16"] < tolerance(coarse) < 0.1


def test_a_sample_is_drawn_without_replacement():
    rows = sample_rows(100, 10, seed=0)
    assert len(set(rows.tolist())) == 10
    assert not np.array_equal(rows, sample_rows(100, 10, seed=1))
    np.testing.assert_array_equal(rows, sample_rows(100, 10, seed=0))
    np.testing.assert_array_equal(sample_rows(3, 10, seed=0), [0, 1, 2])
