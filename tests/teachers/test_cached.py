"""A teacher's word is the same, live or cached."""

import dataclasses
import threading

import jax
import numpy as np
import pytest

from distill_jax.core.types import Capture, ModelOutput
from distill_jax.data.plan import PlannedBatch, make_batch
from distill_jax.models.bert import Bert, init_bert
from distill_jax.teachers.cache import build_cache, open_cache
from distill_jax.teachers.cached import BESIDE, RecordMemory
from distill_jax.teachers.live import LiveTeacher
from distill_jax.teachers.manifest import Damaged, Provenance

CAPTURE = Capture(hidden_states=(0, 2), attention_scores=(1,), attention_probs=(2,), values=(2,))


@pytest.fixture(scope="module")
def live(teacher):
    return LiveTeacher(*teacher, CAPTURE)


@pytest.fixture(scope="module")
def made(toy_table, live, tmp_path_factory):
    """Dtype -> an open cache of five shards."""

    def make(dtype):
        folder = tmp_path_factory.getbasetemp() / f"cached-{dtype}"
        provenance = Provenance("t", toy_table.digest, CAPTURE, dtype)
        build_cache(folder, provenance, toy_table, live, shard_examples=10)
        return open_cache(folder, provenance, toy_table, memory=RecordMemory(1 << 20))

    return make


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


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [("float32", 1e-5), ("float16", 2e-3), ("bfloat16", 1e-2)]
)
def test_cached_is_live(toy_table, live, made, dtype, tolerance):
    """Trap 19, too: rows are asked for in any order and at any length, over several shards."""
    cache = made(dtype)
    rows = np.asarray([40, 3, 17, 0, 8], np.int32)
    batch = make_batch(toy_table, PlannedBatch(rows, 13), batch_size=8)
    cached, fresh = masked(cache(batch), batch), masked(live(batch), batch)
    assert cached.keys() == fresh.keys()
    for name in cached:
        assert cached[name].dtype == np.float32
        assert np.abs(fresh[name]).max() > 0.01
        np.testing.assert_allclose(cached[name], fresh[name], rtol=tolerance, atol=tolerance)


def test_padding_says_nothing(toy_table, made):
    cache = made("float32")
    batch = make_batch(toy_table, PlannedBatch(np.asarray([5], np.int32), 13), batch_size=4)
    for name, array in masked(cache(batch), batch).items():
        kind, _, layer = name.partition("/")
        said = cache(batch)
        raw = said.logits_BC if kind == "logits" else getattr(said, kind)[int(layer)]
        np.testing.assert_array_equal(raw, array)
    nobody = make_batch(toy_table, PlannedBatch(np.asarray([], np.int32), 13), batch_size=4)
    assert not np.any(cache(nobody).logits_BC)
    assert cache(nobody).hidden_states[2].shape == (4, 13, 12)


@pytest.mark.parametrize("limit", [0, 3000, 1 << 20])
def test_memory_changes_nothing_but_speed(toy_table, made, limit):
    cache = made("float16")
    small = dataclasses.replace(cache, memory=RecordMemory(limit))
    for start in (0, 20, 0, 30, 0):
        rows = np.arange(start, start + 14, dtype=np.int32)
        batch = make_batch(toy_table, PlannedBatch(rows, 12), batch_size=14)
        said, expected = masked(small(batch), batch), masked(cache(batch), batch)
        for name in said:
            np.testing.assert_array_equal(said[name], expected[name])
        assert small.memory.used <= limit


def test_memory_forgets_what_was_not_asked_for():
    memory = RecordMemory(10)
    for number in range(3):
        memory.put(("shard", number), {"a": np.asarray(number)}, 4)
        memory.get(("shard", 0))
    assert memory.get(("shard", 1)) is None
    assert memory.get(("shard", 0)) is not None
    assert memory.get(("shard", 2)) is not None
    memory.put(("shard", 2), {}, 6)
    assert memory.used == 10
    memory.put(("shard", 3), {}, 11)
    assert memory.get(("shard", 3)) is None
    assert memory.used == 10


def test_a_record_that_was_read_is_not_read_again(toy_table, made, monkeypatch):
    cache = made("float32")
    batch = make_batch(toy_table, PlannedBatch(np.arange(6, dtype=np.int32), 12), batch_size=6)
    first = cache(batch)
    monkeypatch.setattr(cache.reader, "_open", lambda number: pytest.fail("read again"))
    np.testing.assert_array_equal(cache(batch).logits_BC, first.logits_BC)


def test_threads_read_what_one_reads(toy_table, made):
    cache = dataclasses.replace(made("float32"), memory=RecordMemory(2000))
    rows = [np.arange(start, start + 6, dtype=np.int32) for start in range(0, 36, 3)]
    batches = [make_batch(toy_table, PlannedBatch(some, 12), batch_size=6) for some in rows]
    expected = [cache(batch).hidden_states[2] for batch in batches]
    wrong = []

    def read(turn):
        for number in range(len(batches)):
            at = (number * 5 + turn) % len(batches)
            if not np.array_equal(cache(batches[at]).hidden_states[2], expected[at]):
                wrong.append(at)

    threads = [threading.Thread(target=read, args=(turn,)) for turn in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_shards_that_were_swapped_are_found_in_the_reading(toy_table, made):
    """Their digests are right, the examples are not."""
    cache = made("float32")
    swapped = type(cache.reader)([*cache.reader.paths[1::-1], *cache.reader.paths[2:]], 10)
    wrong = dataclasses.replace(cache, reader=swapped, memory=RecordMemory(0))
    batch = make_batch(toy_table, PlannedBatch(np.arange(6, dtype=np.int32), 12), batch_size=6)
    with pytest.raises(Damaged, match="stands where 'example-"):
        wrong(batch)


def test_a_shard_that_goes_while_it_is_in_use_is_said_in_one_line(toy_table, made):
    cache = dataclasses.replace(made("bfloat16"), memory=RecordMemory(0))
    moved = [path.with_name("gone") for path in cache.reader.paths]
    cache = dataclasses.replace(cache, reader=type(cache.reader)(moved, 10))
    batch = make_batch(toy_table, PlannedBatch(np.arange(6, dtype=np.int32), 12), batch_size=6)
    with pytest.raises(Damaged, match="gone"):
        cache(batch)


@pytest.fixture
def logits_only(toy_table, teacher, tmp_path):
    """(an open cache of logits, the teacher)."""
    speaker = LiveTeacher(*teacher, Capture())
    provenance = Provenance("t", toy_table.digest, Capture())
    build_cache(tmp_path / "logits", provenance, toy_table, speaker, shard_examples=10)
    cache = open_cache(tmp_path / "logits", provenance, toy_table, memory=RecordMemory(1 << 20))
    return cache, speaker


def test_logits_are_read_once_and_held_in_one_array(toy_table, logits_only, monkeypatch):
    cache, speaker = logits_only
    batches = [
        make_batch(toy_table, PlannedBatch(np.asarray(rows, np.int32), 13), batch_size=8)
        for rows in ([40, 3, 17], [3, 5], [], [17, 40, 5, 3])
    ]
    read = []
    reader = type(cache.reader).read
    monkeypatch.setattr(
        type(cache.reader),
        "read",
        lambda self, entries: read.extend(entries := [*entries]) or reader(self, entries),
    )
    for batch in batches:
        said, expected = cache(batch), masked(speaker(batch), batch)
        assert said.logits_BC.shape == (8, 2) and said.logits_BC.dtype == np.float32
        np.testing.assert_allclose(said.logits_BC, expected["logits"], rtol=1e-5, atol=1e-6)
    entries = cache.entry_N[[40, 3, 17, 5]].tolist()
    assert sorted(read) == sorted([0, *entries])  # the first record says how many classes
    assert cache.memory.used <= 8 + 2 * BESIDE
    assert cache._logits_EC.nbytes == 8 * len(toy_table)


def test_logits_that_have_no_room_are_records_like_others(toy_table, logits_only):
    cache, _ = logits_only
    small = dataclasses.replace(cache, memory=RecordMemory(100))
    batch = make_batch(toy_table, PlannedBatch(np.asarray([4, 2], np.int32), 13), batch_size=2)
    assert small._logits_EC is None
    np.testing.assert_array_equal(small(batch).logits_BC, cache(batch).logits_BC)


def test_the_ids_of_the_table_are_not_held_twice(toy_table, logits_only):
    held = {example_id: id(example_id) for example_id in toy_table.ids}
    assert {each: id(each) for each in logits_only[0].index.ids} == held


@pytest.mark.parametrize("capture", [Capture(), Capture(hidden_states=(1,))])
def test_logits_of_every_token_are_kept_without_padding(
    toy_table, teacher_config, capture, tmp_path
):
    config = dataclasses.replace(teacher_config, pooling="tokens")
    live = LiveTeacher(Bert(config), init_bert(config, jax.random.key(2)), capture)
    provenance = Provenance("t", toy_table.digest, capture, "float16")
    build_cache(tmp_path / "cache", provenance, toy_table, live, shard_examples=10)
    cache = open_cache(tmp_path / "cache", provenance, toy_table)
    rows = np.asarray([40, 3, 17], np.int32)
    batch = make_batch(toy_table, PlannedBatch(rows, 13), batch_size=4)
    cached, fresh = (np.asarray(said(batch).logits_BC) for said in (cache, live))
    where_BT1 = np.asarray(batch.where_BT)[:, :, None]
    assert cached.shape == fresh.shape == (4, 13, 2) and cached.dtype == np.float32
    np.testing.assert_allclose(cached, np.where(where_BT1, fresh, 0), rtol=1e-4, atol=1e-5)
