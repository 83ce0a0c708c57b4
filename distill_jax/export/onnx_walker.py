"""Walks through a traced program, and asks a table what each of its primitives is in ONNX."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.extend.core import Literal

from distill_jax.core.errors import UserError
from distill_jax.export.onnx_builder import Builder, Value
from distill_jax.models.named import PREFIX

Rule = Callable[["Walker", Any, list[Value]], "Value | list[Value]"]
"""(walker, equation, the values it reads) -> the value it makes, or a list of them."""

RULES: dict[str, Rule] = {}
"""By the names of primitives."""
NAMED: dict[str, Rule] = {}
"""By the names of compiled functions, see ``models/named.py``."""


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Enter a rule for primitives of these names."""

    def enter(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(names, function))
        return function

    return enter


def named(name: str) -> Callable[[Rule], Rule]:
    """Enter a rule for a function of ``models/named.py``."""

    def enter(function: Rule) -> Rule:
        NAMED[PREFIX + name] = function
        return function

    return enter


class Walker:
    """Turns traced programs into nodes of a graph.

    Args:
      builder: of the graph.
      kernels, tables: names of the constants that are multiplied, or whose rows are looked up, in
        integers.
    """

    def __init__(
        self, builder: Builder, kernels: Collection[str] = (), tables: Collection[str] = ()
    ) -> None:
        self.builder, self.kernels, self.tables = builder, kernels, tables

    def within(self, body: Builder) -> Walker:
        """The same for the body of a loop."""
        return Walker(body, self.kernels, self.tables)

    def walk(self, jaxpr: Any, consts: list[Any], inputs: list[Value]) -> list[Value]:
        """The outputs of a ``jax.extend.core.Jaxpr``.

        Raises:
          UserError: for a primitive that is not in the table.
        """
        found: dict[Any, Value] = dict(zip(jaxpr.invars, inputs, strict=True))
        found |= {
            var: self.constant(value) for var, value in zip(jaxpr.constvars, consts, strict=True)
        }

        def read(atom: Any) -> Value:
            return self.constant(atom.val) if isinstance(atom, Literal) else found[atom]

        for eqn in _needed(jaxpr):
            made = self._rule(eqn)(self, eqn, list(map(read, eqn.invars)))
            made = made if isinstance(made, list) else [made]
            found |= zip(eqn.outvars, made, strict=True)
        return list(map(read, jaxpr.outvars))

    def constant(self, value: Any) -> Value:
        """An array, or a Python number, as JAX types it."""
        array = np.asarray(jnp.asarray(value))
        return Value(self.builder.constant(array), array.shape)

    def _rule(self, eqn: Any) -> Rule:
        if (rule := NAMED.get(eqn.params.get("name", ""))) is not None:
            return rule
        if (kind := eqn.primitive.name) not in RULES:
            raise UserError(
                f"this model computes {kind!r}, for which export/onnx_primitives.py has no ONNX "
                "operator yet; stablehlo holds every model"
            )
        return RULES[kind]


def _needed(jaxpr: Any) -> list[Any]:
    """The equations that the outputs stand on."""
    wanted = {var for var in jaxpr.outvars if not isinstance(var, Literal)}
    kept = []
    for eqn in reversed(jaxpr.eqns):
        if wanted & set(eqn.outvars):
            kept.append(eqn)
            wanted |= {var for var in eqn.invars if not isinstance(var, Literal)}
    return kept[::-1]
