"""A sweep cut into parts, for many machines: which cells are whose, and where each part writes.

A cell's part is a function of its hash alone, so machines need not talk to each other. All may
work in one folder: each part has a ledger, populations and a lock of its own, and runs lie under
their hashes. ``distill-jax ledger merge`` joins the ledgers. Importing this imports no JAX.
"""

import errno
import fcntl
import os
import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from distill_jax.core.errors import UserError

LOCK_SECONDS = 10.0
"""How long a part waits for another process in its place: one that was killed may be dying."""
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL)
_PART = re.compile(r"([1-9][0-9]{0,6})/([1-9][0-9]{0,6})")
_PART_LEDGER = re.compile(r"ledger-([1-9][0-9]*)-of-([1-9][0-9]*)\.jsonl")


@dataclass(frozen=True)
class Part:
    """The ``number``-th of ``count`` parts, counted from 1."""

    number: int = 1
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> "Part":
        """A part from ``I/N``.

        Raises:
          UserError: for anything else, and unless 1 <= I <= N.
        """
        match = _PART.fullmatch(text)
        if match is None or int(match[1]) > int(match[2]):
            raise UserError(f"--part is I/N with 1 <= I <= N, such as 2/4, not {text!r}")
        return cls(int(match[1]), int(match[2]))

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    @property
    def whole(self) -> bool:
        """Whether this is all there is."""
        return self.count == 1

    @property
    def suffix(self) -> str:
        """Of the names of what each part has for itself; empty for the whole."""
        return "" if self.whole else f"-{self.number}-of-{self.count}"

    @property
    def ledger(self) -> str:
        """Name of the ledger that this part writes."""
        return f"ledger{self.suffix}.jsonl"

    def holds(self, hash: str) -> bool:
        """Whether a run (a hexadecimal digest) falls to this part; to just one of N it does."""
        return int(hash, 16) % self.count == self.number - 1


def ledgers_in(folder: Path) -> list[Path]:
    """The ledger of a folder and those of its parts, in their order; only what is there."""
    parts = []
    for path in folder.glob("ledger-*-of-*.jsonl"):
        if match := _PART_LEDGER.fullmatch(path.name):
            parts.append((int(match[2]), int(match[1]), path))
    whole = folder / Part().ledger
    return [*([whole] if whole.is_file() else []), *(path for *_, path in sorted(parts))]


@contextmanager
def only_process(folder: Path, part: Part) -> Iterator[None]:
    """Holds a part's lock in a folder, so that no two processes write the same checkpoints.

    The lock ends with the process, however it ends. On file systems without locks nothing is
    held.

    Raises:
      UserError: when another process has the lock and keeps it.
    """
    path = folder / f".lock{part.suffix}"
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror or error}") from error
    try:
        if _lock(handle):
            os.truncate(handle, 0)
            os.pwrite(handle, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)
        else:
            holder = os.pread(handle, 200, 0).decode(errors="replace")
            what = "" if part.whole else f"at part {part} "
            raise UserError(
                f"another process is at work {what}in {folder} ({holder}): wait for its end, or "
                "stop it"
            )
        yield
    finally:
        os.close(handle)


def _lock(handle: int) -> bool:
    """Try for ``LOCK_SECONDS``; True also where the file system knows no locks."""
    deadline = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            return True
        time.sleep(0.1)
