"""What a loss of the user's is made of: its file, and what that imports of the user's own code."""

from __future__ import annotations

import ast
import inspect
import sys
import sysconfig
from collections.abc import Callable, Iterator
from functools import cache
from importlib.machinery import PathFinder
from importlib.util import resolve_name
from pathlib import Path
from types import FrameType
from typing import Any

from distill_jax.core.digests import digest_strings

NOT_IN_A_FILE = "not in a file"
"""In place of a digest: a loss that was typed into an interpreter or a notebook."""
PACKAGE = Path(__file__).resolve().parents[1]


def code_digest(function: Callable[..., Any], caller: FrameType | None) -> str:
    """Digest of all that a loss may depend on beside packages: the file in which it stands, the
    file that registers it, and what these import from outside the installed packages.

    Imports are read off the syntax tree, so those inside functions count as well; what is found
    by other means (``importlib.import_module``, ``exec``, files of data) does not.

    Args:
      function: the loss; decorators that keep ``__wrapped__`` are looked through.
      caller: the frame that registers it.

    Returns:
      "" for the library's own losses, ``NOT_IN_A_FILE`` where there is no file to read.
    """
    code = getattr(inspect.unwrap(function), "__code__", None)
    named = [each.co_filename for each in (code, caller and caller.f_code) if each is not None]
    own = [path for path in map(Path, dict.fromkeys(named)) if not _inside(path, PACKAGE)]
    if not all(path.is_file() for path in own):
        return NOT_IN_A_FILE
    if not own:
        return ""
    contents = [(path.name, _read(path)) for path in _with_imports(own)]
    return digest_strings(text for pair in sorted(contents) for text in pair)


def caller_outside(file: str) -> FrameType | None:
    """The nearest frame of another file than the one named."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename in (file, __file__):
        frame = frame.f_back
    return frame


def _with_imports(files: list[Path]) -> list[Path]:
    """The files and, from import to import, every one of the user's that they lead to."""
    found: dict[Path, None] = {}
    waiting = [path.resolve() for path in files]
    while waiting:
        path = waiting.pop()
        if path in found:
            continue
        found[path] = None
        if path.suffix == ".py":
            imported = map(_file_of, _imported_names(path))
            waiting += [other for other in imported if other is not None and _is_users(other)]
    return list(found)


def _imported_names(path: Path) -> Iterator[str]:
    """Every module that a file may import, with the packages above it."""
    names: list[str] = []
    try:
        tree = ast.parse(_read(path))
    except (SyntaxError, ValueError):  # nothing that Python could import from
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                try:
                    base = resolve_name("." * node.level + base, _package_of(path))
                except ImportError:  # above the topmost package
                    continue
            names += [base, *(f"{base}.{alias.name}" for alias in node.names)]
    for name in dict.fromkeys(names):
        parts = name.split(".")
        yield from (".".join(parts[:count]) for count in range(1, len(parts) + 1))


def _package_of(path: Path) -> str:
    """The package of a file that is imported relatively, as folders with ``__init__.py`` say."""
    parts, folder = [], path.parent
    while (folder / "__init__.py").is_file():
        parts.append(folder.name)
        folder = folder.parent
    return ".".join(reversed(parts))


def _file_of(name: str) -> Path | None:
    """The file of a module, loaded or not; nothing is imported. None where there is none."""
    file = getattr(sys.modules.get(name), "__file__", None)
    if file is None:
        path: Any = None
        for count in range(1, name.count(".") + 2):
            spec = PathFinder.find_spec(".".join(name.split(".")[:count]), path)
            if spec is None:
                return None
            file, path = spec.origin, spec.submodule_search_locations
    return Path(file).resolve() if file and Path(file).is_file() else None


def _is_users(path: Path) -> bool:
    installed = {"site-packages", "dist-packages"} & set(path.parts)
    return not installed and not any(_inside(path, root) for root in (PACKAGE, *_standard()))


@cache
def _standard() -> tuple[Path, ...]:
    """Where Python's own modules are."""
    return tuple({Path(sysconfig.get_path(key)).resolve() for key in ("stdlib", "platstdlib")})


def _inside(path: Path, folder: Path) -> bool:
    return path.resolve().is_relative_to(folder)


def _read(path: Path) -> str:
    """As text that stands for the bytes."""
    return path.read_bytes().decode("utf-8", errors="backslashreplace")
