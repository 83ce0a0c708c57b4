"""Steps as text: ``"prune(0.5) -> distil -> int8"``.

    steps := step ("->" step)*
    step  := kind ["(" [value] ("," name "=" value)* ")"]
    value := number | 'word' | True | False

A value without a name is that of the kind's first option. Read with Python's ``ast``; nothing is
ever evaluated.
"""

from __future__ import annotations

import ast
import dataclasses
import typing
from typing import Any

from distill_jax.compression.kinds import kinds
from distill_jax.compression.steps import Step, check_order
from distill_jax.core.errors import UserError, unknown

MAX_CHARS = 2000
ARROW = "->"


def parse_steps(text: str) -> tuple[Step, ...]:
    """Reads steps; ``" -> ".join(map(str, steps))`` is their canonical text.

    Raises:
      UserError: with the column of the mistake and, for a name, the nearest one that exists.
    """
    if len(text) > MAX_CHARS:
        raise UserError(f"steps have at most {MAX_CHARS} characters")
    steps, column = [], 0
    for part in text.split(ARROW):
        own = part.lstrip()
        where = f"at column {column + len(part) - len(own) + 1} of {text!r}"
        if not own.strip():
            raise UserError(f"{where}: a step is missing; write them as prune(0.5) -> distil")
        steps.append(_step(own.rstrip(), where))
        column += len(part) + len(ARROW)
    check_order(steps)
    return tuple(steps)


def _step(text: str, where: str) -> Step:
    try:
        node = ast.parse(text.replace("\n", " "), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise UserError(f"{where}: cannot read {text!r}") from error
    call = node if isinstance(node, ast.Call) else None
    name = call.func if call else node
    if not isinstance(name, ast.Name):
        raise UserError(f"{where}: expected a step like prune(0.5), not {text!r}")
    known = kinds()
    if name.id not in known:
        raise unknown("step", name.id, known, where=where)
    kind = known[name.id]
    given = _options(call, kind, where) if call else {}
    try:
        return kind(**given)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None


def _options(call: ast.Call, kind: type[Step], where: str) -> dict[str, Any]:
    hints = typing.get_type_hints(kind)
    names = [field.name for field in dataclasses.fields(kind)]
    given: dict[str, Any] = {}
    if len(call.args) > 1 or (call.args and not names):
        raise UserError(f"{where}: {kind.kind} takes its options by name: {', '.join(names)}")
    pairs = [(names[0], value) for value in call.args]
    for keyword in call.keywords:
        if keyword.arg not in names:
            raise unknown(f"option of {kind.kind}", str(keyword.arg), names, where=where)
        pairs.append((keyword.arg, keyword.value))
    for name, node in pairs:
        if name in given:
            raise UserError(f"{where}: {name} of {kind.kind} is given twice")
        value = _value(node, where)
        whole = isinstance(value, int) and not isinstance(value, bool)
        given[name] = float(value) if whole and hints[name] is float else value
    return given


def _value(node: ast.expr, where: str) -> Any:
    if isinstance(node, ast.Name):  # words may do without quotes, as on a command line
        return {"true": True, "false": False}.get(node.id, node.id)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        if not isinstance(number := _value(node.operand, where), (bool, str)):
            return -number
    elif isinstance(node, ast.Constant) and isinstance(node.value, (bool, int, float, str)):
        return node.value
    raise UserError(f"{where}: expected a number, a word, true or false")
