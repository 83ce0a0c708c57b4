"""The losses for people: what each is, and in which tasks it can be used."""

from __future__ import annotations

from collections.abc import Mapping

from distill_jax.objectives.items import Items
from distill_jax.objectives.registry import OUTPUTS, TEACHER_OPTIONS, lookup, names
from distill_jax.objectives.terms import Option, format_value


def listing() -> str:
    """Every loss in a line: its name, where it can be read, its summary."""
    specs = [lookup(name) for name in names()]
    rows = [(spec.name, ", ".join(spec.feed.outputs), spec.summary) for spec in specs]
    first, second = (max(len(row[column]) for row in rows) for column in (0, 1))
    return "\n".join(f"  {name:<{first}}  {where:<{second}}  {what}" for name, where, what in rows)


def describe(name: str) -> str:
    """A loss for people: its docstring (formula, source, shapes), tasks, arguments in objectives.

    Raises:
      UserError: if there is no loss of that name.
    """
    spec = lookup(name)
    tasks = ", ".join(f"{OUTPUTS[each]} ({each})" for each in spec.feed.outputs)
    blocks = [f"{name}: {spec.doc}", f"Tasks: {tasks}."]
    blocks.append(f"Arguments in an objective:\n{_arguments(spec.options)}")
    if "items" in spec.feed.outputs:
        here = Items().options(name)
        more = {key: here[key] for key in here if here[key] != spec.options.get(key)}
        if more:
            blocks.append(
                f"In recommendation, instead of those that are not its own:\n{_arguments(more)}"
            )
    return "\n\n".join(blocks)


def _arguments(options: Mapping[str, Option]) -> str:
    rows = [
        f"  {key} (default {format_value(option.default)}): {option.allowed}"
        for key, option in options.items()
        if key not in TEACHER_OPTIONS
    ]
    if TEACHER_OPTIONS.items() <= options.items():
        rows.append(f"  with several teachers: {', '.join(TEACHER_OPTIONS)}")
    return "\n".join(rows) or "  none"
