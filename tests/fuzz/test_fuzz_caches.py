"""A damaged teacher cache says what the teacher said, or is refused; a teacher mends it."""

import contextlib
import hashlib
import re

import numpy as np
import pytest
from damages import damaged, damaged_copy, folder_damage, told
from hypothesis import given, settings
from hypothesis import strategies as st

from distill_jax.core.types import Capture, ModelOutput
from distill_jax.data.plan import PlannedBatch, make_batch
from distill_jax.teachers.cache import (
    Provenance,
    build_cache,
    cache_folder,
    open_cache,
    teacher_outputs,
)
from distill_jax.teachers.cached import RecordMemory
from distill_jax.teachers.records import decode, dense_logits, encode, example_arrays, keep_top

CAPTURE = Capture(hidden_states=(1,), attention_probs=(2,))


def teacher(batch):
    """Speaks of the tokens alone, each example for itself, as a teacher does."""
    ids_BT = np.asarray(batch.input_ids_BT, np.float32)
    total_B = np.where(batch.where_BT, ids_BT, 0).sum(axis=1)
    return ModelOutput(
        logits_BC=np.stack([total_B, -total_B, total_B / 7], axis=1),
        hidden_states={1: np.stack([ids_BT, ids_BT / 8], axis=2)},
        attention_probs={2: ids_BT[:, None, :, None] + ids_BT[:, None, None, :] / 8},
    )


@pytest.fixture(scope="module")
def table(toy_table):
    return toy_table.take(np.arange(12))


@pytest.fixture(scope="module")
def made(table, tmp_path_factory):
    """(root, provenance, its folder) of a whole cache of three shards."""
    root = tmp_path_factory.mktemp("caches") / "whole"
    provenance = Provenance("teacher", table.digest, CAPTURE, "float32")
    folder = cache_folder(root, provenance)
    build_cache(folder, provenance, table, teacher, batch_size=4, shard_examples=4)
    return root, provenance, folder


def says(cache, table):
    """What a cache says of every example."""
    rows = np.arange(len(table), dtype=np.int32)
    batch = make_batch(table, PlannedBatch(rows, 12), batch_size=len(table))
    output, where = cache(batch), np.asarray(batch.where_BT)
    square = where[:, None, :, None] & where[:, None, None, :]
    return (
        np.asarray(output.logits_BC),
        np.where(where[:, :, None], output.hidden_states[1], 0),
        np.where(square, output.attention_probs[2], 0),
    )


@pytest.fixture(scope="module")
def words(made, table):
    _, provenance, folder = made
    return says(open_cache(folder, provenance, table), table)


@settings(max_examples=60)
@given(st.data())
def test_folders_of_caches(made, words, table, data):
    root, provenance, folder = made
    changes = data.draw(folder_damage(folder))
    copy = root.parent / "damaged"
    damaged_folder = damaged_copy(folder, changes, cache_folder(copy, provenance))
    opened, _ = told(lambda: says(open_cache(damaged_folder, provenance, table), table))
    if opened is not None:
        for found, expected in zip(opened, words, strict=True):
            np.testing.assert_array_equal(found, expected)

    notes = []
    mended, _ = told(
        lambda: teacher_outputs(
            copy, provenance, table, teacher, batch_size=4, on_rebuild=notes.append
        )
    )
    if mended is not None:
        for found, expected in zip(says(mended, table), words, strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-6)


@settings(max_examples=80)
@given(st.data())
def test_shards_with_the_digest_of_their_damage(made, table, data):
    """As another version, or a hostile hand, would leave them."""
    root, provenance, folder = made
    shard = data.draw(st.sampled_from(sorted(folder.glob("shard-*"))))
    copy = damaged_copy(folder, {shard.name: None}, root.parent / "renamed")
    content = data.draw(damaged(shard.read_bytes()))
    name = re.sub(r"[0-9a-f]{16}", hashlib.sha256(content).hexdigest()[:16], shard.name)
    (copy / name).write_bytes(content)
    cache, refused = told(lambda: open_cache(copy, provenance, table, memory=RecordMemory(limit=0)))
    assert cache is not None, refused
    told(lambda: says(cache, table))


RECORDS = [
    encode("ä-1", example_arrays(batch, 0, 3, dtype=dtype, top_k=top_k, example_id="ä-1"))
    for dtype, top_k in (("float32", None), ("bfloat16", 2))
    for batch in [
        {
            "logits": np.arange(5.0, dtype=np.float32)[None],
            "hidden_states/1": np.ones((1, 4, 2), np.float32),
            "attention_probs/2": np.ones((1, 2, 4, 4), np.float32),
        }
    ]
]


@settings(max_examples=300)
@given(st.sampled_from(RECORDS).flatmap(damaged))
def test_records(payload):
    """The digest finds damage before a record is read; a record itself fails with ValueError."""
    try:
        example_id, arrays = decode(payload)
        assert isinstance(example_id, str)
        dense_logits(arrays)
    except ValueError:
        pass


@settings(max_examples=100)
@given(
    st.fixed_dictionaries(
        {
            "top_logits": st.lists(st.floats(width=32), max_size=3),
            "top_ids": st.lists(st.integers(-9, 9), max_size=3),
            "rest_logsumexp": st.lists(st.floats(width=32), max_size=2),
            "classes": st.lists(st.integers(-5, 9), max_size=2),
        }
    )
)
def test_top_logits(lists):
    integer = ("top_ids", "classes")
    arrays = {k: np.asarray(v, np.int32 if k in integer else np.float32) for k, v in lists.items()}
    with contextlib.suppress(ValueError):
        dense_logits(arrays)
    assert dense_logits(keep_top(np.float32([1, 3, 2, 0]), 2))[1] == 3
