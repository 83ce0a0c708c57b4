"""Objectives as text: ``"0.9*kl(T=4) + 0.1*ce"``.

    objective := term ("+" term)*
    term      := [number "*"] loss ["(" name "=" value ("," name "=" value)* ")"]
    number    := 0.5 | linear(1, 0) | cosine(1, 0, start=0.1, end=0.9)
               | piecewise({0: 1, 0.5: 0.2}) | step({0: 1, 0.5: 0})
    value     := number | 'word' | True | False | [number, ...]
               | {student layer: teacher layer, ...}

Read with Python's ``ast``; nothing is ever evaluated. Keys of ``piecewise`` and ``step`` are shares
of the training, 0 to 1.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Mapping
from typing import Any, NoReturn, Protocol

from distill_jax.core.errors import UserError, unknown
from distill_jax.objectives.schedules import KINDS, RAMPS, Schedule
from distill_jax.objectives.terms import NOT_NEGATIVE, LayerMap, Objective, Option, Term

MAX_CHARS = 4000


class Vocabulary(Protocol):
    """The losses that a text may name."""

    def names(self) -> tuple[str, ...]: ...

    def options(self, name: str) -> Mapping[str, Option]:
        """What a loss may be given."""


def parse(text: str, vocabulary: Vocabulary | None = None) -> Objective:
    """Reads an objective.

    Args:
      text: e.g. ``"0.9*kl(T=4) + 0.1*ce"``.
      vocabulary: the losses of other outputs than classes, see ``outputs.Outputs``.

    Returns:
      The objective; ``str`` of it is the canonical form, and ``parse(str(objective))`` equals it.

    Raises:
      UserError: with the column of the mistake and, for a name, the nearest one that exists.
    """
    if vocabulary is None:
        from distill_jax.objectives.outputs import CLASSES  # imports jax

        vocabulary = CLASSES
    return _Reader(text, vocabulary).objective()


class _Reader:
    """Walks the syntax tree of one text; knows columns for the errors."""

    def __init__(self, text: str, vocabulary: Vocabulary):
        self.vocabulary = vocabulary
        self.text = re.sub(r"\s", " ", text).rstrip()
        stripped = self.text.lstrip()
        self.shift = len(self.text) - len(stripped)
        if not stripped:
            raise UserError("the objective is empty. Write a loss, e.g. '0.9*kl(T=4) + 0.1*ce'.")
        if len(stripped) > MAX_CHARS or "#" in stripped:
            raise UserError(f"an objective has at most {MAX_CHARS} characters and no '#'.")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", SyntaxWarning)
                self.tree = ast.parse(stripped, mode="eval").body
        except SyntaxError as error:
            self.fail_at((error.offset or 1) - 1, f"cannot read it ({error.msg})")
        except (RecursionError, MemoryError, ValueError) as error:
            raise UserError(f"cannot read the objective ({error}).") from error
        self.bytes = stripped.encode()

    def place(self, column: int) -> str:
        return f"at column {column + self.shift + 1} of {self.text!r}"

    def fail_at(self, column: int, message: str) -> NoReturn:
        raise UserError(f"{self.place(column)}: {message}.")

    def column(self, node: ast.AST) -> int:
        """Column of a node in characters (``ast`` counts bytes)."""
        return len(self.bytes[: getattr(node, "col_offset", 0)].decode(errors="replace"))

    def fail(self, node: ast.AST, message: str) -> NoReturn:
        self.fail_at(self.column(node), message)

    def objective(self) -> Objective:
        nodes, node = [], self.tree
        while isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            nodes.append(node.right)
            node = node.left
        nodes.append(node)
        return Objective(tuple(self.term(node) for node in reversed(nodes)))

    def term(self, node: ast.expr) -> Term:
        weight: float | Schedule = 1.0
        if isinstance(node, ast.BinOp):
            if not isinstance(node.op, ast.Mult):
                self.fail(node.right, "terms are joined by '+', weights by '*', and nothing else")
            weight = self.weight(node.left)
            node = node.right
        call = node if isinstance(node, ast.Call) else None
        function = call.func if call else node
        if not isinstance(function, ast.Name):
            self.fail(node, "expected a loss like kl(T=4), its weight in front, as in 0.5*kl")
        if function.id in KINDS:
            self.fail(node, f"{function.id} is a schedule, not a loss: write {function.id}(...)*kl")
        if function.id not in self.vocabulary.names():
            where = self.place(self.column(function))
            raise unknown("loss", function.id, self.vocabulary.names(), where=where)
        allowed = self.vocabulary.options(function.id)
        options = self.options(call, function.id, allowed) if call else ()
        return Term(function.id, weight, options)

    def weight(self, node: ast.expr) -> float | Schedule:
        function = node.func if isinstance(node, ast.Call) else node
        if isinstance(function, ast.Name) and (
            function is node or function.id in self.vocabulary.names()
        ):
            self.fail(node, "a weight is a number or a schedule and stands in front, as in 0.5*kl")
        number = self.number(node)
        weight = number if isinstance(number, Schedule) else float(number)
        ends = weight.extremes if isinstance(weight, Schedule) else (weight,)
        if not all(end in NOT_NEGATIVE for end in ends):
            self.fail(node, "a weight must not be negative")
        return weight

    def options(
        self, call: ast.Call, loss: str, allowed: Mapping[str, Option]
    ) -> tuple[tuple[str, Any], ...]:
        if call.args:
            self.fail(call.args[0], f"arguments of {loss} are given by name, as in kl(T=4)")
        given: dict[str, Any] = {}
        seen: set[str] = set()
        for keyword in call.keywords:
            if keyword.arg is None:
                self.fail(keyword, "'**' has no meaning here")
            if keyword.arg not in allowed:
                where = self.place(self.column(keyword))
                raise unknown(f"argument of {loss}", keyword.arg, allowed, where=where)
            if keyword.arg in seen:
                self.fail(keyword, f"{keyword.arg} is given twice")
            seen.add(keyword.arg)
            option = allowed[keyword.arg]
            value = self.value(keyword.value)
            if not option.accepts(value):
                self.fail(
                    keyword.value, f"{keyword.arg} of {loss} must be one of: {option.allowed}"
                )
            if option.dynamic and not isinstance(value, Schedule):
                value = float(value)
            if value != option.default or type(value) is not type(option.default):
                given[keyword.arg] = value
        return tuple(sorted(given.items()))

    def value(self, node: ast.expr) -> Any:
        if isinstance(node, ast.Constant) and isinstance(node.value, (bool, str)):
            return node.value
        if isinstance(node, (ast.List, ast.Tuple)):
            return tuple(float(self.plain_number(item)) for item in node.elts)
        if isinstance(node, ast.Dict):
            return LayerMap(tuple(self.pairs(node, whole=True)))
        if isinstance(node, ast.Name):
            self.fail(node, f"a word needs quotes: '{node.id}'")
        return self.number(node)

    def pairs(self, node: ast.expr, *, whole: bool) -> list[tuple[Any, Any]]:
        """The entries of ``{a: b, ...}`` in the order given."""
        if not isinstance(node, ast.Dict) or not node.keys:
            self.fail(node, "expected {number: number, ...}")
        pairs: dict[Any, Any] = {}
        for key, value in zip(node.keys, node.values, strict=True):
            if key is None:
                self.fail(value, "'**' has no meaning here")
            entry = self.plain_number(key), self.plain_number(value)
            if whole and not all(isinstance(number, int) for number in entry):
                self.fail(key, "layers are whole numbers")
            if entry[0] in pairs:
                self.fail(key, f"{entry[0]} is given twice")
            pairs[entry[0]] = entry[1]
        return list(pairs.items())

    def number(self, node: ast.expr) -> Any:
        """A plain number or a schedule."""
        if isinstance(node, ast.Call):
            return self.schedule(node)
        return self.plain_number(node)

    def plain_number(self, node: ast.expr) -> int | float:
        sign = 1
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.UAdd)):
            sign = -1 if isinstance(node.op, ast.USub) else 1
            node = node.operand
        value = node.value if isinstance(node, ast.Constant) else None
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            self.fail(node, "expected a number")
        if not abs(value) <= 1e30:  # false for NaN, and whole numbers may be beyond any float
            self.fail(node, "a number is too large")
        return sign * value

    def schedule(self, node: ast.Call) -> Schedule:
        name = node.func.id if isinstance(node.func, ast.Name) else "?"
        if name not in KINDS:
            raise unknown("schedule", name, KINDS, where=self.place(self.column(node)))
        if name in RAMPS:
            return self.ramp(name, node)
        if len(node.args) != 1 or node.keywords:
            self.fail(node, f"expected {name}({{share of training: value, ...}})")
        pairs = self.pairs(node.args[0], whole=False)
        points = tuple((float(share), float(value)) for share, value in pairs)
        shares = [share for share, _ in points]
        if shares != sorted(shares) or not all(0 <= share <= 1 for share in shares):
            self.fail(node, f"the shares of {name} must rise from 0 to 1")
        return Schedule(name, points)

    def ramp(self, name: str, node: ast.Call) -> Schedule:
        if len(node.args) != 2:
            self.fail(node, f"expected {name}(first, last), as in {name}(1, 0)")
        ends = {"start": 0.0, "end": 1.0}
        for keyword in node.keywords:
            if keyword.arg not in ends:
                where = self.place(self.column(keyword))
                raise unknown(f"argument of {name}", str(keyword.arg), ends, where=where)
            ends[keyword.arg] = float(self.plain_number(keyword.value))
        if not 0 <= ends["start"] < ends["end"] <= 1:
            self.fail(node, f"{name} needs 0 <= start < end <= 1")
        first, last = (float(self.plain_number(arg)) for arg in node.args)
        if name == "geometric" and not min(first, last) > 0:
            self.fail(node, "geometric goes from one number above 0 to another")
        return Schedule(name, ((ends["start"], first), (ends["end"], last)))
