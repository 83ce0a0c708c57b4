"""The user's own losses: a Python file that registers them, run only when the user names it."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path

from distill_jax.core.digests import digest, sha256_file
from distill_jax.core.errors import UserError
from distill_jax.core.files import user_path
from distill_jax.core.sources import NOT_IN_A_FILE
from distill_jax.objectives.grammar import parse
from distill_jax.objectives.terms import Objective

_LOADED: dict[Path, str] = {}
"""The files that were run, and the digest of what they held."""


def load_plugin(path: str | Path) -> tuple[str, ...]:
    """Runs a file of the user's, whose ``@register`` functions become losses.

    The file is code and is trusted as such; nothing looks for plugins by itself. It may import
    what stands beside it. Loading a file twice does nothing the second time.

    Args:
      path: a ``.py`` file.

    Returns:
      The names of the losses that it added.

    Raises:
      UserError: if the file is missing, fails, registers nothing, or was another when this
        process loaded it.
    """
    from distill_jax.objectives.registry import forget, names

    file = user_path(path).resolve()
    if file.suffix != ".py" or not file.is_file():
        raise UserError(f"plugin {path}: not a Python file.")
    content = sha256_file(file)
    if file in _LOADED:
        if _LOADED[file] != content:
            raise UserError(f"plugin {path}: it has changed since it was loaded; start again.")
        return ()
    if str(file.parent) not in sys.path:  # as of a script, but behind all others
        sys.path.append(str(file.parent))
    before = set(names())
    module_name = f"distill_jax_plugin_{file.stem}_{len(_LOADED)}"
    spec = importlib.util.spec_from_file_location(module_name, file)
    if spec is None or spec.loader is None:
        raise UserError(f"plugin {path}: cannot be read as a Python module.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module  # before it runs: its annotations are looked up there
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[module_name]
        forget(set(names()) - before)
        raise UserError(f"plugin {path}: {type(error).__name__}: {error}") from error
    added = tuple(name for name in names() if name not in before)
    if not added:
        raise UserError(
            f"plugin {path}: it registers no loss. Decorate a function with "
            "@register(feed=LogitFeed()) from distill_jax.objectives.plugin_api."
        )
    _LOADED[file] = content
    return added


def plugin_digest(*objectives: str, read: Callable[[str], Objective] = parse) -> str | None:
    """Digest of the user's code behind the losses of objectives; None where all are the library's.

    Args:
      read: parses an objective.

    Raises:
      UserError: when a loss was registered by code that no file holds, so that nothing could tell
        when it changes.
    """
    from distill_jax.objectives.registry import lookup

    codes = {}
    for term in (term for text in objectives for term in read(text).terms):
        if code := lookup(term.name).code:
            codes[term.name] = code
        if code == NOT_IN_A_FILE:
            raise UserError(
                f"the loss {term.name!r} stands in no file, so that nothing could tell its runs "
                "from those of another version; write it to a file and import that, or name it "
                "with --plugin"
            )
    return digest(codes) if codes else None
