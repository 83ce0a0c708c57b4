"""A shard is whole or not there, and damage shows."""

import os
import socket
import subprocess
import sys

import pytest

from distill_jax.core.errors import UserError
from distill_jax.teachers import shards
from distill_jax.teachers.shards import (
    ShardReader,
    drop_left_overs,
    find_shards,
    is_whole,
    write_shard,
)

PAYLOADS = [bytes([n]) * (1000 * n + 1) for n in range(7)]


@pytest.fixture
def shard(tmp_path):
    return write_shard(tmp_path, 0, 2, PAYLOADS)


def test_what_was_written_is_read_in_any_order(shard, tmp_path):
    second = write_shard(tmp_path, 1, 2, PAYLOADS[:3])
    assert find_shards(tmp_path, 2) == {0: [shard], 1: [second]}
    reader = ShardReader([shard, second], 7)
    assert reader.read([8, 5, 0, 9]) == {
        8: PAYLOADS[1],
        5: PAYLOADS[5],
        0: PAYLOADS[0],
        9: PAYLOADS[2],
    }
    assert reader.read([]) == {}
    assert len({reader.key(entry) for entry in range(10)}) == 10
    with pytest.raises(ValueError, match="shard-00001"):
        reader.read([10])


def test_many_shards_need_few_open_files(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "OPEN_FILES", 3)
    paths = [write_shard(tmp_path, number, 9, [bytes([number])]) for number in range(9)]
    before = len(os.listdir("/proc/self/fd"))
    reader = ShardReader(paths, 1)
    for _ in range(2):
        assert reader.read(range(9)) == {number: bytes([number]) for number in range(9)}
    assert len(os.listdir("/proc/self/fd")) <= before + 3


def test_the_same_records_give_the_same_file(shard, tmp_path):
    content = shard.read_bytes()
    assert write_shard(tmp_path, 0, 2, PAYLOADS) == shard
    assert shard.read_bytes() == content
    assert write_shard(tmp_path, 0, 2, PAYLOADS[::-1]) != shard


@pytest.mark.parametrize("place", [0, 100, 5000, -1])
def test_a_flipped_byte_shows(shard, place):
    assert is_whole(shard)
    data = bytearray(shard.read_bytes())
    data[place] ^= 1
    shard.write_bytes(data)
    assert not is_whole(shard)


def test_a_short_or_missing_file_shows(shard):
    data = shard.read_bytes()
    shard.write_bytes(data[:-1])
    assert not is_whole(shard)
    shard.write_bytes(data)
    assert is_whole(shard)
    shard.unlink()
    assert not is_whole(shard)


def test_the_digest_is_computed_once_a_process(shard, monkeypatch):
    assert is_whole(shard)
    monkeypatch.setattr(shards, "sha256_file", lambda path: pytest.fail("hashed again"))
    assert is_whole(shard)


def test_strangers_are_no_shards(shard, tmp_path):
    for name in ("shard-00000-of-00003-0123456789abcdef.array_record", "shard-x", "notes.txt"):
        (tmp_path / name).write_bytes(b"?")
    (tmp_path / "shard-00007-of-00002-0123456789abcdef.array_record").write_bytes(b"?")
    assert find_shards(tmp_path, 2) == {0: [shard]}
    assert find_shards(tmp_path / "nowhere", 2) == {}


@pytest.mark.parametrize("error", [KeyboardInterrupt, UserError("too loud")])
def test_a_failing_source_leaves_nothing(tmp_path, error):
    def payloads():
        yield PAYLOADS[3]
        raise error

    with pytest.raises(type(error) if isinstance(error, Exception) else error):
        write_shard(tmp_path, 0, 2, payloads())
    assert list(tmp_path.iterdir()) == []


FULL = """
import resource, sys, pathlib
from distill_jax.core.errors import UserError
from distill_jax.teachers.shards import write_shard
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
try:
    write_shard(pathlib.Path(sys.argv[1]), 0, 1, [b"x" * 50_000] * 20)
except UserError as error:
    print(error)
"""


def test_a_disk_that_takes_no_more_is_said_in_one_line(tmp_path):
    """A limit on the size of files stands for the full disk; both fail in ``write``."""
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert "cannot write the teacher cache" in done.stdout
    assert "File too large" in done.stdout
    assert done.stdout.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_errors_of_the_disk_are_said_in_one_line(tmp_path, monkeypatch, failing):
    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shards.os, failing, fail)
    with pytest.raises(UserError, match="No space left on device"):
        write_shard(tmp_path, 0, 1, PAYLOADS)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_said_in_one_line(tmp_path):
    """A file in the place of the folder: permissions do not bind root."""
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(UserError, match="cannot write the teacher cache"):
        write_shard(tmp_path / "cache", 0, 1, PAYLOADS)


def test_left_overs_of_dead_processes_are_dropped(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    host = socket.gethostname()
    gone = tmp_path / f".shard-{host}-{dead.pid}-00ff.tmp"
    kept = [
        tmp_path / f".shard-{host}-{os.getpid()}-00ff.tmp",
        tmp_path / f".shard-another-host-{dead.pid}-00ff.tmp",
        tmp_path / "shard-notes.tmp",
    ]
    for path in (gone, *kept):
        path.write_bytes(b"half")
    drop_left_overs(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted(kept)
