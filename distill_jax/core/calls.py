"""Calls as text, ``prune(0.5, by='movement')``: one reader for whatever is named so.

    calls := call ("+" call)*
    call  := kind ["(" [value] ("," name "=" value)* ")"]
    value := number | 'word' | word | True | False

A kind is a frozen dataclass with a ``kind``, its name, and fields that are its options; a value
without a name is that of the first one that may stand without. Read with Python's ``ast``; nothing
is ever evaluated.
"""

from __future__ import annotations

import ast
import dataclasses
import typing
import warnings
from collections.abc import Mapping
from typing import Any

from distill_jax.core.errors import UserError, unknown

MAX_CHARS = 2000


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """What a text may name.

    Attributes:
      kinds: by name.
      what: a kind is called, for people.
      example: of a call.
    """

    kinds: Mapping[str, type[Any]]
    what: str
    example: str


def parse_call(text: str, words: Vocabulary, *, where: str) -> Any:
    """One call, as an instance of its kind.

    Args:
      where: the place of the text, for errors.

    Raises:
      UserError: with the place and, for a name, the nearest one that exists.
    """
    return _call(_tree(text, f"{where}: cannot read {text!r}"), text, words, where)


def parse_sum(text: str, words: Vocabulary) -> tuple[Any, ...]:
    """Calls joined by ``+``, in the order of the text; () for an empty one.

    Raises:
      UserError: as ``parse_call``, with the column.
    """
    if len(text) > MAX_CHARS:
        raise UserError(f"{words.what}s have at most {MAX_CHARS} characters")
    text = text.strip()
    if not text:
        return ()
    nodes, node = [], _tree(text, f"cannot read the {words.what}s {text!r}")
    while isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        nodes.append(node.right)
        node = node.left
    nodes.append(node)
    return tuple(
        _call(each, text, words, f"at column {each.col_offset + 1} of {text!r}")
        for each in reversed(nodes)
    )


def written(call: Any, *, names_first: bool = False) -> str:
    """A call as it is read: what is at default is left out.

    Args:
      names_first: whether its first option is written even where it is at default.
    """
    given = []
    for place, field in enumerate(_options_of(type(call))):
        value = getattr(call, field.name)
        if value == field.default and not (names_first and place == 0):
            continue
        shown = repr(value)
        alone = place == 0 and not field.kw_only and not isinstance(value, bool)
        given.append(shown if alone and _stands_alone(value) else f"{field.name}={shown}")
    return f"{call.kind}({', '.join(given)})" if given else call.kind


def _stands_alone(value: Any) -> bool:
    return isinstance(value, int | float)


def _options_of(kind: type[Any]) -> list[dataclasses.Field[Any]]:
    """Those that may stand without a name first."""
    return sorted(dataclasses.fields(kind), key=lambda field: bool(field.kw_only))


def _tree(text: str, message: str) -> ast.expr:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)  # of a regular expression's backslash
            return ast.parse(text.replace("\n", " "), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise UserError(message) from error


def _call(node: ast.expr, text: str, words: Vocabulary, where: str) -> Any:
    call = node if isinstance(node, ast.Call) else None
    name = call.func if call else node
    if not isinstance(name, ast.Name):
        raise UserError(f"{where}: expected a {words.what} like {words.example}, not {text!r}")
    if name.id not in words.kinds:
        raise unknown(words.what, name.id, words.kinds, where=where)
    kind = words.kinds[name.id]
    given = _given(call, kind, where) if call else {}
    try:
        return kind(**given)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None


def _given(call: ast.Call, kind: type[Any], where: str) -> dict[str, Any]:
    hints = typing.get_type_hints(kind)
    options = _options_of(kind)
    names = [field.name for field in options]
    given: dict[str, Any] = {}
    if len(call.args) > 1 or (call.args and (not names or options[0].kw_only)):
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
