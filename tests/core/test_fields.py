from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pytest

from distill_jax.core.errors import UserError
from distill_jax.core.fields import check_fields


@dataclass(frozen=True)
class Inner:
    x: int = 0


@dataclass(frozen=True)
class Outer:
    switch: bool = False
    count: int = 1
    rate: float = 0.5
    name: str = "a"
    maybe: str | None = None
    kind: Literal["x", "y"] = "x"
    names: tuple[str, ...] = ()
    pairs: tuple[tuple[str, int], ...] = ()
    layers: str | Sequence[int] = "spread"
    table: Mapping[str, float] = field(default_factory=dict)
    inner: Inner = field(default_factory=Inner)
    anything: Any = None

    def __post_init__(self):
        check_fields(self)


@pytest.mark.parametrize(
    "values",
    [
        {"switch": True, "count": np.int64(3), "rate": 1, "maybe": "b"},
        {"rate": np.float32(2), "kind": "y", "names": ("a", "b"), "pairs": (("a", 1),)},
        {"layers": [1, 2], "table": {"a": 1}, "inner": Inner(3), "anything": object()},
    ],
)
def test_what_fits(values):
    assert vars(Outer(**values)) == vars(Outer()) | values


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"switch": 1}, "Outer: switch must be True or False, not 1"),
        ({"count": True}, "count must be a whole number, not True"),
        ({"count": 1.0}, "count must be a whole number, not 1.0"),
        ({"rate": "1"}, "rate must be a number, not '1'"),
        ({"rate": False}, "rate must be a number"),
        ({"maybe": 3}, "maybe must be text or nothing, not 3"),
        ({"kind": 1}, "kind must be 'x' or 'y', not 1"),
        ({"kind": "z"}, "unknown kind 'z' in Outer. Allowed: x, y"),
        ({"names": ["a"]}, "names must be a tuple, each text"),
        ({"names": "ab"}, "names must be a tuple"),
        ({"pairs": (("a", "b"),)}, "pairs must be a tuple, each a tuple of text, a whole number"),
        ({"layers": 3}, "layers must be text or a sequence, each a whole number, not 3"),
        ({"layers": [1, "b"]}, "layers must be"),
        ({"table": {"a": "b"}}, "table must be a mapping"),
        ({"inner": {"x": 1}}, "inner must be a Inner"),
        ({"name": ["x" * 200]}, r"name must be text, not \['x+\.\.\.$"),
    ],
)
def test_what_does_not(values, words):
    with pytest.raises(UserError, match=words):
        Outer(**values)
