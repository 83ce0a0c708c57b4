"""The losses for people: what each is, where it comes from, in which tasks it can be used."""

from __future__ import annotations

from collections.abc import Mapping

from distill_jax.objectives.items import Items
from distill_jax.objectives.registry import OUTPUTS, TEACHER_OPTIONS, Spec, lookup, names
from distill_jax.objectives.terms import Option, format_value

FAMILIES = {
    "logits": "Distributions over classes",
    "labels": "With hard labels",
    "logit_matching": "Logits as numbers, class by class",
    "features": "Hidden states",
    "attention": "Attention scores",
    "inner_relations": "Queries, keys and values",
    "relations": "Between examples",
    "topology": "Topology of representations, expert hints",
    "ranking": "Ranking",
    "catalogue": "The item that was taken, in a catalogue",
}


def by_family() -> dict[str, list[Spec]]:
    """The losses under the titles of their families; the user's own come last."""
    families: dict[str, list[Spec]] = {title: [] for title in FAMILIES.values()}
    for spec in map(lookup, names()):
        module = getattr(spec.function, "__module__", "").rpartition(".")[2]
        title = "From plugins" if spec.code else FAMILIES[module]
        families.setdefault(title, []).append(spec)
    return families


def markdown() -> str:
    """The library's losses (without plugins') as Markdown tables, one a family."""
    blocks = []
    for title in FAMILIES.values():
        rows = [
            f"### {title}",
            "",
            "| loss | what it is | read off | source |",
            "|---|---|---|---|",
        ]
        for spec in by_family()[title]:
            own = ", ".join(f"`{name}`" for name in spec.own)
            name = f"`{spec.name}`" + (f" ({own})" if own else "")
            row = name, spec.summary, ", ".join(spec.feed.outputs), spec.source
            cells = (cell.replace("|", "\\|") for cell in row)
            rows.append(f"| {' | '.join(cells)} |")
        blocks.append("\n".join(rows))
    return "\n\n".join(blocks)


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
