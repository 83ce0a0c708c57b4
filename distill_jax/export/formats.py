"""The registry of formats: each is one file that ends with ``register``.

To add one, write a module with two functions and register them; name it in ``all_formats.py``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from distill_jax.core.errors import UserError, unknown
from distill_jax.export.all_formats import MODULES

if TYPE_CHECKING:
    from distill_jax.export.manifest import Manifest
    from distill_jax.export.source import Source

Logits = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""(input_ids_BT, token_type_ids_BT, attention_mask_BT, all int64) -> logits_BC float32; any
number of rows from 1, any length up to the model's; may be called from several threads."""


@dataclasses.dataclass(frozen=True)
class Format:
    """A way in which a classifier is written for use elsewhere.

    Attributes:
      name: as in ``--format``.
      says: what it is, in a few words.
      write: put the model's files into a folder; the tokeniser, the card and ``export.json`` are
        written by ``write.export_model``. Raises ``UserError`` for a model it cannot hold.
      open: (folder, manifest, threads) -> logits.
      usage: Markdown for the card: how the folder is loaded elsewhere.
      tolerance: by which a logit may differ from the source's; None where the format rounds, and
        what counts is the score.
      compiles: whether each new shape of a batch costs a compilation.
    """

    name: str
    says: str
    write: Callable[[Source, Path], None]
    open: Callable[[Path, Manifest, int | None], Logits]
    usage: Callable[[Source], str]
    tolerance: float | None = 1e-4
    compiles: bool = False


_FORMATS: dict[str, Format] = {}


def register(format: Format) -> Format:
    """Make a format known.

    Raises:
      UserError: when another has its name.
    """
    if format.name in _FORMATS:
        raise UserError(f"an export format {format.name!r} is there already")
    _FORMATS[format.name] = format
    return format


def names() -> tuple[str, ...]:
    """Of all formats, the package's own first."""
    return tuple(dict.fromkeys([*MODULES, *_FORMATS]))


def format_named(name: str, *, where: str = "") -> Format:
    """The format of a name.

    Raises:
      UserError: there is none.
    """
    if name not in names():
        raise unknown("export format", name, names(), where=where)
    if name not in _FORMATS:
        import_module(f"distill_jax.export.{MODULES[name]}")
    return _FORMATS[name]
