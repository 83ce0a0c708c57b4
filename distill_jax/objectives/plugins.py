"""The user's own losses: a Python file that registers them, run only when the user names it."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

from distill_jax.core.errors import UserError
from distill_jax.core.files import user_path

_LOADED: set[Path] = set()


def load_plugin(path: str | Path) -> tuple[str, ...]:
    """Runs a file of the user's, whose ``@register`` functions become losses.

    The file is code and is trusted as such; nothing looks for plugins by itself. Loading a file
    twice does nothing the second time.

    Args:
      path: a ``.py`` file.

    Returns:
      The names of the losses that it added.

    Raises:
      UserError: if the file is missing, fails, or registers nothing.
    """
    from distill_jax.objectives.registry import forget, names

    file = user_path(path).resolve()
    if file.suffix != ".py" or not file.is_file():
        raise UserError(f"plugin {path}: not a Python file.")
    if file in _LOADED:
        return ()
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
    _LOADED.add(file)
    return added
