"""Configurations whose fields are what their annotations say, or a clean error."""

import dataclasses
import functools
import numbers
import types
import typing
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from distill_jax.core.errors import UserError, unknown

_SCALARS: dict[Any, tuple[Any, str]] = {
    bool: (bool, "True or False"),
    int: (numbers.Integral, "a whole number"),
    float: (numbers.Real, "a number"),
    str: (str, "text"),
    type(None): (type(None), "nothing"),
}


def check_fields(config: Any) -> None:
    """Raises ``UserError`` for the first field of a dataclass whose value has the wrong type.

    Understands scalars, ``Literal``, unions, tuples, sequences, mappings and classes. A whole
    number may stand where a number is asked for; a bool may stand for neither.
    """
    kind = typing.cast(Hashable, type(config))
    owner = type(config).__name__
    for name, hint in _hints(kind).items():
        value = getattr(config, name)
        if not _fits(value, hint):
            if typing.get_origin(hint) is typing.Literal and isinstance(value, str):
                raise unknown(name, value, typing.get_args(hint), where=f"in {owner}")
            shown = repr(value)
            raise UserError(
                f"{owner}: {name} must be {_described(hint)}, not "
                f"{shown if len(shown) < 80 else shown[:77] + '...'}"
            )


@functools.cache
def _hints(kind: Any) -> dict[str, Any]:
    hints = typing.get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind) if field.init}


def _fits(value: Any, hint: Any) -> bool:
    if hint is Any or isinstance(hint, typing.TypeVar):
        return True
    if hint in _SCALARS:
        return isinstance(value, _SCALARS[hint][0]) and (
            hint is bool or not isinstance(value, bool)
        )
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return any(value == each and type(value) is type(each) for each in inner)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, each) for each in inner)
    if origin is tuple and inner[-1] is not Ellipsis:
        same = isinstance(value, tuple) and len(value) == len(inner)
        return same and all(map(_fits, value, inner))
    if origin is not None and issubclass(origin, Mapping):
        key, item = inner
        return isinstance(value, Mapping) and all(
            _fits(k, key) and _fits(v, item) for k, v in value.items()
        )
    if origin is not None and issubclass(origin, Sequence):
        whole = isinstance(value, origin) and not isinstance(value, str)
        return whole and all(_fits(item, inner[0]) for item in value)
    return isinstance(value, origin or hint)


def _described(hint: Any) -> str:
    if hint in _SCALARS:
        return _SCALARS[hint][1]
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return " or ".join(map(repr, inner))
    if origin in (typing.Union, types.UnionType):
        return " or ".join(map(_described, inner))
    if origin is tuple and inner[-1] is not Ellipsis:
        return f"a tuple of {', '.join(map(_described, inner))}"
    if origin is not None and issubclass(origin, Mapping):
        return "a mapping"
    if origin is not None:
        return f"a {origin.__name__.lower()}, each {_described(inner[0])}"
    return f"a {getattr(hint, '__name__', hint)}"
