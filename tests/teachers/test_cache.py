"""A cache is built by anyone, in parts, goes on where it was, and is mended shard by shard."""

import dataclasses
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill_jax.core import files
from distill_jax.core.errors import UserError
from distill_jax.core.types import Capture, ModelOutput
from distill_jax.data.plan import PlannedBatch, make_batch
from distill_jax.data.tokenise import TokenTable
from distill_jax.teachers import cache as cache_module
from distill_jax.teachers import shards
from distill_jax.teachers.cache import (
    Provenance,
    build_cache,
    cache_folder,
    damaged_shards,
    open_cache,
    teacher_outputs,
    union_of,
)
from distill_jax.teachers.manifest import EXAMPLES, MANIFEST, read_manifest

CAPTURE = Capture(hidden_states=(1,), attention_probs=(2,))
SHARD = 8
SHARDS = 6


def teacher(batch):
    """Speaks of the tokens alone, each example for itself, as a teacher does."""
    ids_BT = np.asarray(batch.input_ids_BT, np.float32)
    total_B = np.where(batch.where_BT, ids_BT, 0).sum(axis=1)
    return ModelOutput(
        logits_BC=np.stack([total_B, -total_B, total_B / 7], axis=1),
        hidden_states={1: np.stack([ids_BT, ids_BT**2 / 10], axis=2)},
        attention_probs={2: ids_BT[:, None, :, None] + ids_BT[:, None, None, :] / 100},
    )


class Asked:
    """A teacher that remembers whom it was asked about, and may fall silent."""

    def __init__(self, silent_after=None):
        self.rows = []
        self.silent_after = silent_after

    def __call__(self, batch):
        if self.silent_after is not None and len(self.rows) >= self.silent_after:
            raise KeyboardInterrupt
        ids_B = np.asarray(batch.example_ids_B)
        self.rows += ids_B[ids_B >= 0].tolist()
        return teacher(batch)


def provenance_of(table, **changes):
    provenance = Provenance(teacher="t", data=table.digest, capture=CAPTURE, dtype="float32")
    return dataclasses.replace(provenance, **changes)


def build(folder, table, speaker=teacher, **options):
    options = {"batch_size": 4, "shard_examples": SHARD, **options}
    build_cache(folder, provenance_of(table), table, speaker, **options)


def content(folder):
    """Name -> bytes of every file, half-written ones too."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def shard(folder, number):
    (path,) = folder.glob(f"shard-{number:05d}-*")
    return path


@pytest.fixture
def made(toy_table, tmp_path):
    build(tmp_path / "made", toy_table)
    return tmp_path / "made"


def says_the_same(folder, table):
    cache = open_cache(folder, provenance_of(table), table)
    rows = np.arange(len(table), dtype=np.int32)
    batch = make_batch(table, PlannedBatch(rows, 12), batch_size=len(table))
    said, live = cache(batch), teacher(batch)
    np.testing.assert_allclose(said.logits_BC, live.logits_BC)
    where = np.asarray(batch.where_BT)
    np.testing.assert_allclose(said.hidden_states[1][where], live.hidden_states[1][where])
    return True


def test_a_part_of_the_examples_in_another_order_is_served_by_id(toy_table, made):
    part = toy_table.take(np.asarray([30, 2, 11]))
    cache = open_cache(made, provenance_of(toy_table), part)
    batch = make_batch(part, PlannedBatch(np.asarray([1, 0, 2], np.int32), 10), batch_size=3)
    np.testing.assert_allclose(cache(batch).logits_BC, teacher(batch).logits_BC)


def test_the_teacher_is_asked_once(toy_table, tmp_path):
    asked = Asked()
    for _ in range(2):
        teacher_outputs(tmp_path, provenance_of(toy_table), toy_table, asked, shard_examples=SHARD)
    assert sorted(asked.rows) == list(range(len(toy_table)))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"teacher": "another"}, "teacher"),
        ({"data": "another"}, "data"),
        ({"capture": Capture()}, "capture"),
        ({"dtype": "float16"}, "dtype"),
        ({"top_k": 2}, "top_k"),
    ],
)
def test_anything_different_is_refused_by_name(toy_table, made, change, named):
    other = dataclasses.replace(provenance_of(toy_table), **change)
    before = content(made)
    with pytest.raises(UserError, match=rf"something else: {named} differ"):
        open_cache(made, other, toy_table)
    with pytest.raises(UserError, match=rf"something else: {named} differ"):
        build_cache(made, other, toy_table, teacher)
    assert content(made) == before
    assert cache_folder(made, other) != cache_folder(made, provenance_of(toy_table))


def test_unknown_examples_and_other_tokens_are_refused(toy_table, made):
    provenance = provenance_of(toy_table)
    strangers = dataclasses.replace(toy_table, ids=("stranger", *toy_table.ids[1:]))
    with pytest.raises(UserError, match="lacks 1 of 44 examples, 'stranger'"):
        open_cache(made, provenance, strangers)
    swapped = dataclasses.replace(toy_table, ids=toy_table.ids[::-1])
    with pytest.raises(UserError, match="other tokens"):
        open_cache(made, provenance, swapped)
    with pytest.raises(UserError, match="other examples"):
        build_cache(made, provenance, swapped, teacher)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=25), st.integers(1, 30), st.integers(1, 9))
def test_every_example_is_in_one_record(tmp_path_factory, lengths, size, batch_size):
    rng = np.random.default_rng(len(lengths))
    tokens = rng.integers(1, 50, sum(lengths)).astype(np.int32)
    table = TokenTable(
        tuple(f"id {n}" for n in range(len(lengths))),
        np.zeros(len(lengths), np.int32),
        tokens,
        np.zeros(len(tokens), np.int8),
        np.append(0, np.cumsum(lengths)).astype(np.int64),
    )
    folder, asked = tmp_path_factory.mktemp("one") / "cache", Asked()
    build(folder, table, asked, shard_examples=size, batch_size=batch_size)
    assert sorted(asked.rows) == list(range(len(table)))
    assert len(list(folder.glob("shard-*"))) == -(-len(lengths) // size)
    assert says_the_same(folder, table)


DAMAGES = {
    "flip": lambda path: path.write_bytes(flipped(path.read_bytes())),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-100]),
    "empty": lambda path: path.write_bytes(b""),
    "remove": lambda path: path.unlink(),
}


def flipped(data):
    data = bytearray(data)
    data[len(data) // 3] ^= 4
    return bytes(data)


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", [0, SHARDS - 1, MANIFEST, EXAMPLES])
def test_damage_is_found_and_only_what_is_damaged_is_made_again(toy_table, made, damage, name):
    whole = content(made)
    path = made / name if isinstance(name, str) else shard(made, name)
    others = {other: other.stat().st_ino for other in made.glob("shard-*") if other != path}
    DAMAGES[damage](path)
    with pytest.raises(UserError, match="is damaged or unfinished") as told:
        open_cache(made, provenance_of(toy_table), toy_table)
    assert "\n" not in str(told.value)
    asked, said = Asked(), []
    build(made, toy_table, asked, on_rebuild=said.append)
    expected = range(name * SHARD, min((name + 1) * SHARD, 44)) if isinstance(name, int) else ()
    assert sorted(asked.rows) == list(expected)
    assert said == [] if damage == "remove" and name != EXAMPLES else path.name in said[0]
    assert content(made) == whole
    assert {other: other.stat().st_ino for other in others} == others
    assert says_the_same(made, toy_table)


def test_a_shard_with_other_bytes_takes_the_place_of_a_damaged_one(toy_table, made):
    """Another kind of device rounds otherwise."""
    path = shard(made, 2)
    path.write_bytes(flipped(path.read_bytes()))

    def rounding_otherwise(batch):
        said = teacher(batch)
        return said.replace(logits_BC=said.logits_BC * np.float32(1 + 1e-6))

    build(made, toy_table, rounding_otherwise)
    assert not path.exists()
    assert len(list(made.glob("shard-00002-*"))) == 1
    open_cache(made, provenance_of(toy_table), toy_table)


def test_damaged_and_missing_shards_are_told_apart(toy_table, made):
    manifest = read_manifest(made)
    assert damaged_shards(made, manifest) == ([], [])
    shard(made, 4).unlink()
    DAMAGES["cut"](shard(made, 1))
    assert damaged_shards(made, manifest) == ([1], [4])


@pytest.mark.parametrize("heard", [0, 1, 9, 17, 40])
def test_an_interrupted_build_goes_on_at_the_first_missing_shard(toy_table, made, tmp_path, heard):
    folder = tmp_path / "stopped"
    with pytest.raises(KeyboardInterrupt):
        build(folder, toy_table, Asked(silent_after=heard))
    finished = len(list(folder.glob("shard-*")))
    assert finished == min(-(-heard // 4) * 4, 44) // SHARD
    assert not list(folder.glob(".*"))
    asked, steps = Asked(), []
    build(folder, toy_table, asked, on_batch=lambda *step: steps.append(step))
    assert sorted(asked.rows) == list(range(finished * SHARD, 44))
    assert content(folder) == content(made)
    assert steps == [(done, 11) for done in range(finished * 2 + 1, 12)]


def test_on_batch_may_stop_a_build(toy_table, tmp_path):
    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(tmp_path / "cache", toy_table, on_batch=stop)
    assert sorted(content(tmp_path / "cache")) == [MANIFEST, EXAMPLES]


KILLED = """
import pathlib, sys, time
sys.path[:0] = {paths!r}
import numpy as np
from distill_jax.data.tokenise import TokenTable
from distill_jax.teachers.cache import build_cache, Provenance
from {module} import provenance_of, teacher, SHARD
arrays = np.load(sys.argv[2], allow_pickle=False)
table = TokenTable(**{{k: tuple(arrays[k].tolist()) if k == "ids" else arrays[k] for k in arrays}})
def slow(batch):
    print("asked", flush=True)
    time.sleep(0.02)
    return teacher(batch)
build_cache(pathlib.Path(sys.argv[1]), provenance_of(table), table, slow, batch_size=4,
            shard_examples=SHARD)
"""


@pytest.mark.parametrize("batches", [1, 4, 8])
def test_a_killed_build_goes_on(toy_table, made, tmp_path, batches):
    """SIGKILL in the middle of a shard, in a process of its own."""
    here = Path(__file__)
    fields = ("ids", "tokens_S", "token_types_S", "offsets_N1", "labels_N")
    np.savez(tmp_path / "table.npz", **{name: getattr(toy_table, name) for name in fields})
    program = KILLED.format(paths=[str(here.parent)], module=here.stem)
    folder = tmp_path / "killed"
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(folder), str(tmp_path / "table.npz")],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    for _ in range(batches):
        assert process.stdout.readline() == "asked\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    finished = len(list(folder.glob("shard-*")))
    assert (batches - 1) // 2 <= finished < SHARDS
    asked = Asked()
    build(folder, toy_table, asked)
    assert sorted(asked.rows) == list(range(finished * SHARD, 44))
    assert content(folder) == content(made)


@pytest.mark.parametrize("count", [1, 2, 4, 9])
def test_parts_make_the_whole(toy_table, made, tmp_path, count):
    """In any order, and the same bytes as one host."""
    folder = tmp_path / "parts"
    for index in reversed(range(count)):
        asked, steps = Asked(), []
        build(
            folder,
            toy_table,
            asked,
            part=(index, count),
            on_batch=lambda *at, steps=steps: steps.append(at),
        )
        shards_of = {row // SHARD for row in asked.rows}
        assert shards_of == set(range(index, SHARDS, count))
        assert [at[0] for at in steps] == list(range(1, len(steps) + 1))
    assert content(folder) == content(made)


@pytest.mark.parametrize("part", [(2, 2), (-1, 2), (0, 0)])
def test_a_part_that_is_none_is_refused(toy_table, tmp_path, part):
    with pytest.raises(UserError, match="a part is"):
        build(tmp_path / "cache", toy_table, part=part)


def test_hosts_at_once_make_one_cache(toy_table, made, tmp_path, monkeypatch):
    """Two with a part each and two that make everything, all at the same time."""
    monkeypatch.setattr(cache_module, "POLL_SECONDS", 0.01)
    provenance, failures = provenance_of(toy_table), []
    parts = [(0, 2), (1, 2), (0, 1), (0, 1)]
    start = threading.Barrier(len(parts))

    def host(part):
        try:
            start.wait()
            opened = teacher_outputs(
                tmp_path,
                provenance,
                toy_table,
                teacher,
                part=part,
                batch_size=4,
                shard_examples=SHARD,
            )
            assert len(opened.index.ids) == 44
        except BaseException as error:
            failures.append(error)

    hosts = [threading.Thread(target=host, args=(part,)) for part in parts]
    for thread in hosts:
        thread.start()
    for thread in hosts:
        thread.join()
    assert failures == []
    assert content(cache_folder(tmp_path, provenance)) == content(made)


def test_a_host_that_hears_nothing_makes_the_rest_itself(toy_table, tmp_path, monkeypatch):
    monkeypatch.setattr(cache_module, "POLL_SECONDS", 0.01)
    provenance, asked, waited = provenance_of(toy_table), Asked(), []
    started = time.monotonic()
    teacher_outputs(
        tmp_path,
        provenance,
        toy_table,
        asked,
        part=(1, 3),
        patience=0.1,
        on_wait=lambda: waited.append(1),
        shard_examples=SHARD,
    )
    assert time.monotonic() - started >= 0.1
    assert waited
    assert sorted(asked.rows) == list(range(44))
    assert {row // SHARD for row in asked.rows[:16]} == {1, 4}


def test_waiting_can_be_stopped(toy_table, tmp_path):
    def stop():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        teacher_outputs(
            tmp_path, provenance_of(toy_table), toy_table, teacher, part=(0, 2), on_wait=stop,
            shard_examples=SHARD,
        )  # fmt: skip


def test_a_full_disk_keeps_what_is_finished(toy_table, made, tmp_path, monkeypatch):
    """The third shard finds no room; the next build goes on with it."""
    folder, replace, moved = tmp_path / "full", os.replace, []

    def no_room(source, target):
        if str(target).endswith(".array_record"):
            moved.append(target)
            if len(moved) > 2:
                raise OSError(28, "No space left on device")
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(shards.os, "replace", no_room)
        with pytest.raises(UserError, match="No space left on device") as told:
            build(folder, toy_table)
    assert "\n" not in str(told.value)
    assert len(list(folder.glob("shard-*"))) == 2
    assert not list(folder.glob(".*"))
    asked = Asked()
    build(folder, toy_table, asked)
    assert min(asked.rows) == 2 * SHARD
    assert content(folder) == content(made)


def test_a_read_only_folder(toy_table, made, monkeypatch):
    """A whole cache is served from there; nothing can be mended there, and that is said.

    Permissions do not bind root, so the calls that would write are refused instead.
    """

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    for module, name in ((files.tempfile, "mkstemp"), (shards.os, "replace"), (os, "unlink")):
        monkeypatch.setattr(module, name, refuse)
    monkeypatch.setattr(shards, "ArrayRecordWriter", refuse)
    root = made.parent
    made.rename(root / "whole")
    build(root / "whole", toy_table)
    assert says_the_same(root / "whole", toy_table)
    with monkeypatch.context() as patch:
        patch.setattr(shards, "is_whole", lambda path: False)
        patch.setattr(cache_module, "is_whole", lambda path: False)
        with pytest.raises(UserError, match=r"cannot write the teacher cache .*Permission denied"):
            build(root / "whole", toy_table)
    with pytest.raises(UserError, match="Permission denied"):
        build(root / "new", toy_table)


def test_values_that_do_not_fit_are_refused(toy_table, tmp_path):
    def loud(batch):
        said = teacher(batch)
        return said.replace(hidden_states={k: v * 1e6 for k, v in said.hidden_states.items()})

    provenance = provenance_of(toy_table, dtype="float16")
    with pytest.raises(UserError, match=r"values that float16 cannot hold.*float32"):
        build_cache(tmp_path / "cache", provenance, toy_table, loud)


def test_top_k_logits(toy_table, tmp_path):
    """The two largest of three, and the third by its mass."""
    provenance = provenance_of(toy_table, top_k=2, capture=Capture())
    cache = teacher_outputs(tmp_path, provenance, toy_table, teacher)
    rows = np.arange(6, dtype=np.int32)
    batch = make_batch(toy_table, PlannedBatch(rows, 12), batch_size=6)
    np.testing.assert_allclose(cache(batch).logits_BC, teacher(batch).logits_BC, rtol=1e-5)


def test_the_origin_of_the_first_build_stays(toy_table, made, tmp_path):
    build(tmp_path / "told", toy_table, origin={"teacher": "minilm-l6"})
    build(tmp_path / "told", toy_table, origin={"teacher": "the same by another name"})
    assert read_manifest(tmp_path / "told").origin == {"teacher": "minilm-l6"}
    assert read_manifest(made).origin == {}


def test_the_union_hears_all():
    captures = [Capture(hidden_states=(2,)), Capture(hidden_states=(0, 2), values=(1,))]
    assert union_of(captures) == Capture(hidden_states=(0, 2), values=(1,))
    assert union_of([]) == Capture()


@pytest.mark.parametrize(("examples", "size"), [(44, 512), (32_768, 512), (800_000, 12_500)])
def test_all_shards_of_a_cache_can_be_open(tmp_path, examples, size):
    """Or a batch of random examples would open a file for each of them."""
    tokens = np.zeros(examples, np.int32)
    table = TokenTable(
        ids=tuple(map(str, range(examples))),
        tokens_S=tokens,
        token_types_S=tokens.astype(np.int8),
        offsets_N1=np.arange(examples + 1),
        labels_N=tokens,
    )
    manifest = cache_module._describe(
        tmp_path, Provenance("t", "d", Capture()), table, None, {}, lambda line: None
    )
    assert manifest.shard_examples == size and manifest.shards <= shards.OPEN_FILES
