"""Learning-rate factors of parameters by their paths: which are frozen, which learn slower."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterator
from typing import Any

import jax

from distill_jax.core.errors import UserError

Rates = tuple[tuple[str, float], ...]
STUDENT, LOSSES = "student", "losses"
"""The parts of what an optimiser moves, see ``TrainState.trained``."""
_LAYER = re.compile(r"(?:^|/)layer_(\d+)/")
_EMBEDDINGS = re.compile(r"(?:^|/)embeddings/")
SHOWN = 3


def check_factors(rates: Rates, layer_decay: float) -> None:
    """Raises ``UserError`` for what no parameters are needed to see."""
    for pattern, factor in rates:
        check_pattern(pattern)
        if not 0 <= factor < math.inf:
            raise UserError(f"the rate of {pattern!r} must not be negative, not {factor}")
    if not 0 < layer_decay <= 1:
        raise UserError(f"the layer decay must be in (0, 1], not {layer_decay}")


def check_pattern(pattern: str) -> None:
    """Raises ``UserError`` for what is no regular expression."""
    try:
        re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise UserError(f"{pattern!r} is no regular expression: {error}") from error


def factors(rates: Rates, layer_decay: float, params: Any) -> Any:
    """The factor of each parameter: a tree of floats like ``params``.

    Args:
      params: of a student, or all that an optimiser moves; the losses' own are left at 1.
    """
    paths = [_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    layers = max((depth for path in paths if (depth := _depth(path)) is not None), default=0)

    def factor(path: Any, _: Any) -> float:
        name = _name(path)
        if name is None:
            return 1.0
        own = math.prod(each for pattern, each in rates if re.search(pattern, name))
        depth = _depth(name)
        above = layers + 1 - depth if depth is not None else 0
        return own * layer_decay**above

    return jax.tree_util.tree_map_with_path(factor, params)


def check_matches(rates: Rates, layer_decay: float, params: Any) -> None:
    """Raises ``UserError`` where a factor is of no parameter of a student, or all are frozen.

    Args:
      params: of a student: arrays, or their shapes.
    """
    if not rates and layer_decay == 1:
        return
    paths = [str(_name(path)) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    for pattern, _ in rates:
        if not any(re.search(pattern, path) for path in paths):
            raise UserError(
                f"{pattern!r} is found in the path of no parameter of the student; the nearest "
                f"are {', '.join(nearest_paths(pattern, paths))}"
            )
    if layer_decay != 1 and not any(_LAYER.search(path) for path in paths):
        raise UserError("a layer decay is for students with layers; this one has none")
    if not any(jax.tree.leaves(factors(rates, layer_decay, params))):
        raise UserError("all parameters of the student are frozen: nothing is left to train")


def nearest_paths(pattern: str, paths: list[str]) -> list[str]:
    """The paths, or beginnings or ends of such, that are most like a text."""
    parts = dict.fromkeys(part for path in paths for part in _parts(path))
    return difflib.get_close_matches(pattern, list(parts), n=SHOWN, cutoff=0.0)


def _parts(path: str) -> Iterator[str]:
    names = path.split("/")
    for count in range(1, len(names) + 1):
        yield "/".join(names[:count])
        yield "/".join(names[-count:])


def _depth(name: str | None) -> int | None:
    """0 for embeddings, n for layer n; None for the head and what belongs to it."""
    if name is None:
        return None
    if layer := _LAYER.search(name):
        return int(layer[1])
    return 0 if _EMBEDDINGS.search(name) else None


def _name(path: Any) -> str | None:
    """Names joined by slashes; None for what belongs to a loss."""
    names = jax.tree_util.keystr(path, simple=True, separator="/").split("/")
    if names[0] == LOSSES:
        return None
    return "/".join(names[1:] if names[0] == STUDENT else names)
