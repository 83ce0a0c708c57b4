"""Every kind by its name."""

import importlib
from functools import cache

from distill_jax.core.errors import unknown
from distill_jax.tasks.kinds.kind import Kind, registered

MODULES = ("classes", "number", "tags", "intent_slots", "spans")
"""Files of this folder, each of which registers kinds when it is imported."""


@cache
def _load() -> None:
    for module in MODULES:
        importlib.import_module(f"distill_jax.tasks.kinds.{module}")


def kind_named(name: str) -> Kind:
    """A kind by its name.

    Raises:
      UserError: with the nearest name, where there is none.
    """
    _load()
    if name not in registered():
        raise unknown("task", name, registered())
    return registered()[name]


def names() -> tuple[str, ...]:
    """Of all kinds, ``classes`` first."""
    _load()
    return tuple(registered())
