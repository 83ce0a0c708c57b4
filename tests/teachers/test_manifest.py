"""What a cache says it was made of: read back whole, or not at all."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill_jax.core.errors import UserError
from distill_jax.core.types import Capture
from distill_jax.teachers.manifest import (
    EXAMPLES,
    MANIFEST,
    Damaged,
    Manifest,
    Provenance,
    check_provenance,
    index_of,
    read_index,
    read_manifest,
    record_order,
    write_index,
    write_manifest,
)

PROVENANCE = Provenance("t", "d", Capture(hidden_states=(0, 2)), "bfloat16", top_k=5)


@pytest.fixture
def written(toy_table, tmp_path):
    index = index_of(toy_table, 8)
    origin = {"teacher": "minilm-l6", "data": {"name": "película"}}
    manifest = Manifest(PROVENANCE, len(toy_table), 8, index.digest, origin)
    write_index(tmp_path, index)
    write_manifest(tmp_path, manifest)
    return tmp_path, manifest, index


def test_it_is_read_back(written):
    folder, manifest, index = written
    assert read_manifest(folder) == manifest
    assert manifest.shards == 6
    again = read_index(folder, manifest)
    assert again.ids == index.ids
    np.testing.assert_array_equal(again.lengths_N, index.lengths_N)
    check_provenance(folder, manifest, PROVENANCE)


@pytest.mark.parametrize(
    "change",
    [
        {"teacher": "another"},
        {"data": "another"},
        {"capture": Capture()},
        {"dtype": "float16"},
        {"top_k": None},
        {"precision": "bf16"},
    ],
)
def test_another_provenance_is_refused_by_name_and_has_another_digest(written, change):
    folder, manifest, _ = written
    other = dataclasses.replace(PROVENANCE, **change)
    assert other.digest != PROVENANCE.digest
    with pytest.raises(UserError, match=rf"something else: {next(iter(change))} differ"):
        check_provenance(folder, manifest, other)


@pytest.mark.parametrize("change", [{"dtype": "int8"}, {"top_k": 0}])
def test_what_cannot_be_kept_is_refused(change):
    with pytest.raises(UserError):
        dataclasses.replace(PROVENANCE, **change)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=30), st.integers(1, 7))
def test_shards_hold_runs_of_the_table_shortest_first(lengths, size):
    class Table:
        lengths_N = np.asarray(lengths)

        def __len__(self):
            return len(lengths)

    order = record_order(Table(), size)
    for start in range(0, len(lengths), size):
        rows = order[start : start + size]
        assert sorted(rows) == list(range(start, min(start + size, len(lengths))))
        assert list(rows) == sorted(rows, key=lambda row: (lengths[row], row))


@pytest.mark.parametrize("name", [MANIFEST, EXAMPLES])
def test_any_change_of_a_byte_is_found(written, name):
    folder, *_ = written
    whole = (folder / name).read_bytes()
    for place in range(0, len(whole), 7):
        if whole[place : place + 1].isspace():
            continue
        data = bytearray(whole)
        data[place] ^= 1
        (folder / name).write_bytes(data)
        with pytest.raises(UserError):
            read_index(folder, read_manifest(folder))
    for content in (b"", b"[]", b"null", b"7", b'{"format": 2}', b"[" * 100_000):
        (folder / name).write_bytes(content)
        with pytest.raises(Damaged, match="is damaged or unfinished"):
            read_index(folder, read_manifest(folder))
    (folder / name).unlink()
    with pytest.raises(Damaged, match="No such file"):
        read_index(folder, read_manifest(folder))


def test_older_and_newer_formats_are_refused(written):
    folder, _, _ = written
    text = (folder / MANIFEST).read_text()
    (folder / MANIFEST).write_text(text.replace('"format": 2', '"format": 3'))
    with pytest.raises(UserError, match="has format 3, not 2"):
        read_manifest(folder)
    (folder / MANIFEST).rename(folder / "manifest.json")
    with pytest.raises(UserError, match="older format"):
        read_manifest(folder)
