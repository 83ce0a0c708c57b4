"""Named members out of zip and tar.gz archives, and nothing else.

Nothing in an archive decides where a file lands: the caller names every member and its target.
Links, devices, encrypted or repeated members and members beyond their size cap are refused, and
what is unpacked on the way to them is capped as well.
"""

import gzip
import stat
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any, cast

from distill_jax.core.errors import UserError

MAX_UNPACKED = 1 << 30
NESTED = "!"
_CHUNK = 1 << 20

Wanted = Mapping[str, tuple[Path, int]]
"""Member path -> (file to write, most bytes it may have)."""


def extract(archive: Path, wanted: Wanted, *, max_total: int = MAX_UNPACKED) -> None:
    """Write the wanted members of ``archive`` to their files.

    Args:
      archive: a zip (``.zip``, ``.whl``) or a gzipped tar.
      wanted: what to take. ``"outer.tar.gz!inner.txt"`` names a member of an archive inside.
      max_total: most bytes that may be unpacked from one archive, looked-over ones included.

    Raises:
      UserError: for a damaged archive, a missing member or anything the caps forbid.
    """
    outer = {path: into for path, into in wanted.items() if NESTED not in path}
    nested: dict[str, dict[str, tuple[Path, int]]] = {}
    for path, into in wanted.items():
        if NESTED in path:
            holder, inner = path.split(NESTED, 1)
            nested.setdefault(holder, {})[inner] = into
    with tempfile.TemporaryDirectory(dir=archive.parent) as scratch:
        holders = {holder: Path(scratch) / f"{i}" for i, holder in enumerate(nested)}
        outer |= {holder: (file, max_total) for holder, file in holders.items()}
        _extract_flat(archive, outer, max_total)
        for holder, file in holders.items():
            extract(file, nested[holder], max_total=max_total)


def _extract_flat(archive: Path, wanted: Wanted, max_total: int) -> None:
    """Members of one archive, checked while it is read from front to back."""
    seen: set[str] = set()
    total = 0
    try:
        members = _zip_members if zipfile.is_zipfile(archive) else _tar_members
        for path, refusal, source in members(archive, wanted, max_total):
            if path in seen:
                raise UserError(f"{archive.name}: {path} is in the archive twice.")
            seen.add(path)
            if refusal or source is None:
                raise UserError(f"{archive.name}: {path} is {refusal or 'not a file'}.")
            target, cap = wanted[path]
            total += _copy(source, target, min(cap, max_total - total), f"{archive.name}: {path}")
    except UserError:
        raise
    except Exception as error:  # damage makes the readers and their decompressors raise many kinds
        told = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{archive.name} cannot be unpacked: {told}.") from error
    missing = sorted(set(wanted) - seen)
    if missing:
        raise UserError(f"{archive.name}: no member {missing[0]}.")


_Members = Iterator[tuple[str, str | None, IO[bytes] | None]]
"""(path, why it is refused or None, its bytes)."""


def _zip_members(archive: Path, wanted: Wanted, max_total: int) -> _Members:
    del max_total  # only wanted members are unpacked, each under its own cap
    with zipfile.ZipFile(archive) as bundle:
        for info in bundle.infolist():
            if info.filename not in wanted:
                continue
            if stat.S_ISLNK(info.external_attr >> 16):
                yield info.filename, "a link", None
            elif info.flag_bits & 1:
                yield info.filename, "encrypted", None
            elif info.is_dir():
                yield info.filename, "a folder", None
            else:
                with bundle.open(info) as source:
                    yield info.filename, None, source


def _tar_members(archive: Path, wanted: Wanted, max_total: int) -> _Members:
    with (
        gzip.open(archive) as unzipped,
        # A stream: read front to back once, so the cap counts every unpacked byte.
        tarfile.open(fileobj=cast(IO[bytes], _Capped(unzipped, max_total)), mode="r|") as bundle,
    ):
        for info in bundle:
            if info.name in wanted:
                refusal = None if info.isreg() else "a link, a folder or a device"
                yield info.name, refusal, bundle.extractfile(info) if info.isreg() else None


class _Capped:
    """A readable stream that ends in an error after ``limit`` bytes."""

    def __init__(self, source: Any, limit: int):
        self._source, self._left = source, limit

    def read(self, size: int) -> bytes:
        data = self._source.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise ValueError("it unpacks to more than is allowed")
        return data


def _copy(source: IO[bytes], target: Path, cap: int, what: str) -> int:
    """Copy ``source`` to a new file; its declared size is not trusted."""
    written = 0
    with open(target, "xb") as file:
        while chunk := source.read(_CHUNK):
            written += len(chunk)
            if written > cap:
                raise UserError(f"{what} has more than the {cap} bytes it may have.")
            file.write(chunk)
    return written
