"""Files that are either whole or not there."""

import contextlib
import errno
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from distill_jax.core.errors import UserError, first_line

if TYPE_CHECKING:
    import numpy as np


def home() -> Path:
    """Where assets, prepared data and teacher caches live: ``$DISTILL_JAX_HOME`` or the cache."""
    named = os.environ.get("DISTILL_JAX_HOME")
    if named:
        return Path(named).expanduser().resolve()
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "distill_jax"


def user_path(text: str | Path) -> Path:
    """A path as a user writes it, ``~`` expanded.

    Raises:
      UserError: for what no path can be: an unknown ``~user``, a zero byte, a name too long.
    """
    try:
        path = Path(text).expanduser()
        path.exists()
        return path
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(f"{str(text)[:80]!r} is no path: {error}") from error


@contextlib.contextmanager
def atomic_folder(target: Path) -> Iterator[Path]:
    """A scratch folder that becomes ``target`` when the block ends without an error.

    If another process made ``target`` meanwhile, theirs stays and ours is dropped: folders
    named by content are the same either way.
    """
    with readable_os_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        os.chmod(scratch, 0o777 & ~_umask())
        try:
            yield scratch
            try:
                os.rename(scratch, target)
            except OSError:
                if not target.is_dir():
                    raise
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


def write_atomic(path: Path, data: str | bytes) -> None:
    """Write a whole file: readers see the old content or the new, never a part."""
    with atomic_file(path) as file:
        file.write(data.encode() if isinstance(data, str) else data)


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """A scratch file that becomes ``path`` when the block ends without an error."""
    with readable_os_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, scratch = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.chmod(scratch, 0o666 & ~_umask())
            os.replace(scratch, path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(scratch)
            raise


def read_arrays(path: Path) -> "dict[str, np.ndarray]":
    """The arrays of an ``.npz`` by name; nothing in it can run, Python's own objects are refused.

    Raises:
      OSError: there is no such file, or it cannot be read.
      ValueError: it is damaged, in whatever way zip, its decompressors and numpy find.
    """
    import numpy as np

    try:
        found = np.load(path, allow_pickle=False)
        if isinstance(found, np.ndarray):
            raise ValueError("one array without a name, an .npy")
        with found as file:
            return {name: file[name] for name in file.files}
    except (OSError, ValueError):
        raise
    except Exception as error:  # damage makes the readers and their decompressors raise many kinds
        raise ValueError(first_line(error)) from error


def save_tensors(
    path: Path, tensors: "Mapping[str, np.ndarray]", metadata: Mapping[str, str] | None = None
) -> None:
    """Write a safetensors file, in an ``atomic_folder``.

    Raises:
      OSError: when it cannot be written; the library has an error of its own for that.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    try:
        save_file(dict(tensors), path, metadata=dict(metadata) if metadata else None)
        os.chmod(path, 0o666 & ~_umask())  # the library lets nobody else read it
    except SafetensorError as error:
        number = re.search(r"\(os error (\d+)\)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1]))) from error


@contextlib.contextmanager
def readable_os_errors(path: Path) -> Iterator[None]:
    """Full disks and read-only folders are the user's to mend: say so in one line."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"cannot write {path}: {_reason(error)}. Free some space, mend the permissions, or "
            "point DISTILL_JAX_HOME or --output-dir elsewhere."
        ) from error


def _reason(error: OSError) -> str:
    """What went wrong; numpy's short writes come without a number."""
    if error.strerror is None and re.search(r"\d+ requested and \d+ written", str(error)):
        return os.strerror(errno.ENOSPC)
    return error.strerror or str(error)


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
