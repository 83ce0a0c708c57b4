"""A teacher's word is the same, live or cached; a cache serves nothing but what it was made of."""

import dataclasses

import jax
import numpy as np
import pytest

from distill_jax.core.errors import UserError
from distill_jax.core.types import Capture, ModelOutput
from distill_jax.data.plan import PlannedBatch, make_batch
from distill_jax.teachers.cache import (
    Provenance,
    build_cache,
    cache_folder,
    open_cache,
    teacher_outputs,
)
from distill_jax.teachers.live import LiveTeacher

CAPTURE = Capture(hidden_states=(0, 2), attention_scores=(1,), attention_probs=(2,), values=(2,))


@pytest.fixture(scope="module")
def live(teacher):
    return LiveTeacher(*teacher, CAPTURE)


def provenance_of(table, **changes):
    return dataclasses.replace(
        Provenance(teacher="t", data=table.digest, capture=CAPTURE, dtype="float32"), **changes
    )


@pytest.fixture(scope="module")
def made(toy_table, live, tmp_path_factory):
    root = tmp_path_factory.mktemp("cache")
    provenance = provenance_of(toy_table)
    teacher_outputs(root, provenance, toy_table, live)
    return cache_folder(root, provenance), provenance


def masked(output: ModelOutput, batch) -> dict[str, np.ndarray]:
    """Every array of an output with padding set to 0."""
    where_BT = np.asarray(batch.where_BT)
    arrays = {"logits": np.asarray(output.logits_BC) * np.asarray(batch.where_B)[:, None]}
    for kind in ("hidden_states", "values"):
        for layer, array in getattr(output, kind).items():
            shape = where_BT.shape + (1,) * (array.ndim - 2)
            arrays[f"{kind}/{layer}"] = np.asarray(array) * where_BT.reshape(shape)
    square = where_BT[:, None, :, None] & where_BT[:, None, None, :]
    for kind in ("attention_scores", "attention_probs"):
        for layer, array in getattr(output, kind).items():
            arrays[f"{kind}/{layer}"] = np.where(square, np.asarray(array), 0)
    return arrays


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("float16", 2e-3)])
def test_cached_is_live(toy_table, live, tmp_path, dtype, tolerance):
    """Trap 19, too: rows are asked for in any order and at any length."""
    provenance = provenance_of(toy_table, dtype=dtype)
    cache = teacher_outputs(tmp_path, provenance, toy_table, live)
    rows = np.asarray([40, 3, 17, 0, 8], np.int32)
    batch = make_batch(toy_table, PlannedBatch(rows, 13), batch_size=8)
    cached, fresh = masked(cache(batch), batch), masked(live(batch), batch)
    assert cached.keys() == fresh.keys()
    for name in cached:
        np.testing.assert_allclose(cached[name], fresh[name], rtol=tolerance, atol=tolerance)


def test_a_part_of_the_examples_in_another_order_is_served_by_id(toy_table, live, made):
    folder, provenance = made
    part = toy_table.take(np.asarray([30, 2, 11]))
    cache = open_cache(folder, provenance, part)
    batch = make_batch(part, PlannedBatch(np.asarray([1, 0, 2], np.int32), 10), batch_size=3)
    np.testing.assert_allclose(cache(batch).logits_BC, live(batch).logits_BC, atol=1e-5)


def test_the_teacher_is_asked_once(toy_table, live, tmp_path):
    asked = []

    def teacher(batch):
        asked.append(batch)
        return live(batch)

    teacher_outputs(tmp_path, provenance_of(toy_table), toy_table, teacher)
    first = len(asked)
    teacher_outputs(tmp_path, provenance_of(toy_table), toy_table, teacher)
    assert 0 < first == len(asked)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"teacher": "another"}, "teacher"),
        ({"data": "another"}, "data"),
        ({"capture": Capture()}, "capture"),
        ({"dtype": "float16"}, "dtype"),
    ],
)
def test_anything_different_is_refused_by_name(toy_table, made, change, named):
    folder, provenance = made
    with pytest.raises(UserError, match=rf"something else: {named} differ"):
        open_cache(folder, dataclasses.replace(provenance, **change), toy_table)


def test_unknown_examples_and_other_tokens_are_refused(toy_table, made):
    folder, provenance = made
    strangers = dataclasses.replace(toy_table, ids=("stranger", *toy_table.ids[1:]))
    with pytest.raises(UserError, match="lacks 1 of 44 examples, 'stranger'"):
        open_cache(folder, provenance, strangers)
    swapped = dataclasses.replace(toy_table, ids=toy_table.ids[::-1])
    with pytest.raises(UserError, match="other tokens"):
        open_cache(folder, provenance, swapped)


@pytest.mark.parametrize("damage", ["flip", "cut", "remove", "manifest"])
def test_damage_is_found(toy_table, live, tmp_path, damage):
    provenance = provenance_of(toy_table)
    folder = cache_folder(tmp_path, provenance)
    build_cache(folder, provenance, toy_table, live)
    path = folder / ("manifest.json" if damage == "manifest" else "hidden_states_2.npy")
    data = bytearray(path.read_bytes())
    data[-9] ^= 1
    if damage == "remove":
        path.unlink()
    else:
        path.write_bytes(data[:-20] if damage in ("cut", "manifest") else data)
    with pytest.raises(UserError, match="delete that folder"):
        open_cache(folder, provenance, toy_table)


def test_an_interrupted_build_leaves_nothing(toy_table, live, tmp_path):
    def stop(done, total):
        raise KeyboardInterrupt

    folder = cache_folder(tmp_path, provenance_of(toy_table))
    with pytest.raises(KeyboardInterrupt):
        build_cache(folder, provenance_of(toy_table), toy_table, live, on_batch=stop)
    assert list(folder.parent.iterdir()) == []


def test_values_that_do_not_fit_are_refused(toy_table, live, tmp_path):
    def loud(batch):
        said = live(batch)
        return said.replace(hidden_states={k: v * 1e6 for k, v in said.hidden_states.items()})

    provenance = provenance_of(toy_table, dtype="float16")
    with pytest.raises(UserError, match="float32"):
        build_cache(tmp_path / "cache", provenance, toy_table, loud)


def test_trap_05_a_teacher_is_deterministic(teacher, toy_table, live):
    """Its dropout rate is 0.5, and no rng is given: evaluation mode, or Flax would refuse."""
    batch = make_batch(toy_table, PlannedBatch(np.arange(4, dtype=np.int32), 10), batch_size=4)
    first, second = live(batch), LiveTeacher(*teacher, CAPTURE)(batch)
    jax.tree.map(np.testing.assert_array_equal, first, second)
    noisy = teacher[0].apply(
        {"params": teacher[1]}, batch, train=True, rngs={"dropout": jax.random.key(0)}
    )
    assert not np.allclose(noisy.logits_BC, first.logits_BC)
