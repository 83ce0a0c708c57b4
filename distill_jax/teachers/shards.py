"""Shards of a teacher cache: ArrayRecord files that are either whole or not there.

A shard's name holds its number and the digest of its bytes, so one rename makes file and digest
appear together, whoever writes it and however often: there is nothing else to keep in step.
"""

import contextlib
import functools
import os
import re
import secrets
import socket
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter

from distill_jax.core.digests import DIGEST_CHARS, sha256_file
from distill_jax.core.errors import UserError

OPEN_FILES = 64
_WRITE = "group_size:1,uncompressed"
_READ = "readahead_buffer_size:0,max_parallelism:0"
"""Meant for random access, by the library's documentation."""
_NAME = re.compile(r"shard-(\d+)-of-(\d+)-([0-9a-f]+)\.array_record")
_SCRATCH = re.compile(r"\.shard-(.+)-(\d+)-[0-9a-f]+\.tmp")

_found_whole: set[tuple[str, int, int, int]] = set()
"""Path, size, time and inode of the files whose digest this process has checked."""


def write_shard(folder: Path, number: int, total: int, payloads: Iterable[bytes]) -> Path:
    """Write shard ``number`` of ``total``, one record a payload, and return its path.

    Raises:
      UserError: when the disk is full or the folder cannot be written. No part stays.
    """
    own = f".shard-{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}.tmp"
    scratch = folder / own
    writer = None
    try:
        with _disk_errors(folder):
            writer = ArrayRecordWriter(str(scratch), _WRITE)
        for payload in payloads:
            with _disk_errors(folder):
                writer.write(payload)
        with _disk_errors(folder):
            writer.close()
            _sync(scratch)
            digest = sha256_file(scratch)[:DIGEST_CHARS]
            path = folder / f"shard-{number:05d}-of-{total:05d}-{digest}.array_record"
            os.replace(scratch, path)
            _sync(folder)
    except BaseException:
        with contextlib.suppress(OSError, RuntimeError):
            if writer is not None:
                writer.close()
        with contextlib.suppress(OSError):
            scratch.unlink()
        raise
    return path


def find_shards(folder: Path, total: int) -> dict[int, list[Path]]:
    """Number -> the files that claim to be this shard, in the order of their names."""
    found: dict[int, list[Path]] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if (named := _NAME.fullmatch(path.name)) and int(named[2]) == total:
            found.setdefault(int(named[1]), []).append(path)
    return {number: paths for number, paths in found.items() if number < total}


def is_whole(path: Path) -> bool:
    """Whether a shard's bytes have the digest that its name says.

    The digest (SHA-256, over a GB a second on a common CPU) is computed once a process, and
    again when size, time or inode of the file change.
    """
    named = _NAME.fullmatch(path.name)
    try:
        stat = path.stat()
        key = (str(path.resolve()), stat.st_size, stat.st_mtime_ns, stat.st_ino)
        if key not in _found_whole:
            if named is None or sha256_file(path)[:DIGEST_CHARS] != named[3]:
                return False
            _found_whole.add(key)
    except OSError:
        return False
    return True


def drop_left_overs(folder: Path) -> None:
    """Remove what killed processes of this machine left half written."""
    for path in folder.glob(".shard-*.tmp"):
        named = _SCRATCH.fullmatch(path.name)
        if named and named[1] == socket.gethostname() and not _is_alive(int(named[2])):
            with contextlib.suppress(OSError):
                path.unlink()


class ShardReader:
    """Random access to the records of whole shards, all of ``shard_examples`` but the last.

    Safe to be used by several threads.
    """

    def __init__(self, paths: Sequence[Path], shard_examples: int) -> None:
        self.paths = tuple(paths)
        self.shard_examples = shard_examples
        self._names = [str(path) for path in paths]
        self._lock = threading.Lock()
        self._open = functools.lru_cache(OPEN_FILES)(
            lambda number: ArrayRecordReader(str(self.paths[number]), _READ)
        )

    def key(self, entry: int) -> tuple[str, int]:
        """What names a record in this process; it changes with the content of its shard."""
        return self._names[entry // self.shard_examples], entry

    def read(self, entries: Iterable[int]) -> dict[int, bytes]:
        """Entry -> its record; entries count over all shards.

        Raises:
          ValueError: when a shard cannot be read.
        """
        by_shard: dict[int, list[int]] = {}
        for entry in sorted(entries):
            by_shard.setdefault(entry // self.shard_examples, []).append(entry)
        payloads: dict[int, bytes] = {}
        with self._lock:
            for number, wanted in by_shard.items():
                positions = [entry % self.shard_examples for entry in wanted]
                try:
                    records = self._open(number).read(positions)
                except (RuntimeError, IndexError, ValueError) as error:
                    raise ValueError(f"{self.paths[number].name}: {error}") from error
                payloads.update(zip(wanted, records, strict=True))
        return payloads


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except OSError as error:  # somebody else's process is alive all the same
        return not isinstance(error, ProcessLookupError)
    return True


def _sync(path: Path) -> None:
    """Wait until a file, or a folder's list of files, is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    """Full disks and read-only folders are the user's to mend; Riegeli reports them as
    ``RuntimeError``."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or str(error).split(";")[0]
        raise UserError(
            f"cannot write the teacher cache {folder}: {reason}. Shards that are finished stay; "
            "free some space, mend the permissions, or point DISTILL_JAX_HOME elsewhere, and run "
            "again."
        ) from error
