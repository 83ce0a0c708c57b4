"""Kinds of checkpoints that are read: how ``config.json`` and weights are named in each.

A kind is registered by the file of its model. Which kinds there are, everybody asks here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping
from typing import Any

from distill_jax.core.errors import UserError, nearest

Modules = dict[str, tuple[str, ...]]
"""Names of modules in a checkpoint, without prefix -> paths in our parameters."""


@dataclasses.dataclass(frozen=True)
class Architecture:
    """A kind of checkpoints.

    Attributes:
      model_type: in ``config.json``.
      config_type: the class of its configs here.
      prefixes: of names of weights, the one that is written first; () where names have none.
      config: (``config.json``, its path) -> config.
      raw: config -> ``config.json`` but for what names the classes.
      modules: config -> names and paths of all that has weights.
      init: (config, rng) -> fresh parameters, whose shapes are those of the weights.
      classifier: name of the module whose outputs are the logits.
      pooler: name of the dense layer before it.
      owns_pooler: whether that layer is part of the classifier's head, with which it is drawn
        anew; BERT's has been pretrained.
      unused: a pattern of names of weights that no classifier needs.
      class_name: of the classifier in ``transformers``.
      poolings: that it has.
    """

    model_type: str
    config_type: type
    prefixes: tuple[str, ...]
    config: Callable[[Mapping[str, Any], str], Any]
    raw: Callable[[Any], dict[str, Any]]
    modules: Callable[[Any], Modules]
    init: Callable[[Any, Any], dict[str, Any]]
    classifier: str
    pooler: str
    owns_pooler: bool
    unused: str
    class_name: str
    poolings: tuple[str, ...] = ("pooler",)

    def owns(self, config: Any) -> bool:
        """Whether a config is of this kind."""
        if type(config) is not self.config_type:
            return False
        return getattr(config, "architecture", self.model_type) == self.model_type

    def prefix_of(self, name: str) -> str:
        """What a weight's name begins with in a classifier."""
        own = name.startswith((f"{self.classifier}.", *self._own_pooler))
        return "" if own else self.prefixes[0]

    @property
    def _own_pooler(self) -> tuple[str, ...]:
        return (f"{self.pooler}.",) if self.owns_pooler else ()


_KNOWN: dict[str, Architecture] = {}


def register(architecture: Architecture) -> Architecture:
    """Make a kind known."""
    _KNOWN[architecture.model_type] = architecture
    return architecture


def model_types() -> tuple[str, ...]:
    """Of the kinds there are."""
    return tuple(_KNOWN)


def architecture_of(config: Any) -> Architecture:
    """The kind of a config.

    Raises:
      TypeError: for one of another family.
    """
    for each in _KNOWN.values():
        if each.owns(config):
            return each
    raise TypeError(f"no checkpoint of a {type(config).__name__}")


def architecture_in(
    raw: Mapping[str, Any], *, where: str, allowed: Collection[str] | None = None
) -> Architecture:
    """The kind that a ``config.json`` names.

    Args:
      where: its path, for errors.
      allowed: model types that will do; None for all.

    Raises:
      UserError: it names none, or another.
    """
    found = raw.get("model_type")
    known = [name for name in _KNOWN if allowed is None or name in allowed]
    if found in known:
        return _KNOWN[str(found)]
    shown = ", ".join(map(repr, known))
    if found in _KNOWN:
        raise UserError(f"{where} has {found!r}, which only classifiers may be; here: {shown}.")
    guess = nearest(found, known) if isinstance(found, str) else None
    hint = f" Did you mean {guess!r}?" if guess else ""
    told = repr(found) if found is not None else "no model_type"
    raise UserError(f"{where} has {told}; supported model types: {shown}.{hint}")
