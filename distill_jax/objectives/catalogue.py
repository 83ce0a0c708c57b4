"""The library's losses as a table for people: what each is and where it comes from."""

from __future__ import annotations

from distill_jax import losses
from distill_jax.objectives.registry import Spec, lookup, names

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
}


def by_family() -> dict[str, list[Spec]]:
    """The losses under the titles of their families; the user's own come last."""
    families: dict[str, list[Spec]] = {title: [] for title in FAMILIES.values()}
    for spec in map(lookup, names()):
        shipped = getattr(losses, spec.name, None) is spec.function
        module = getattr(spec.function, "__module__", "").rpartition(".")[2]
        title = FAMILIES[module] if shipped else "From plugins"
        families.setdefault(title, []).append(spec)
    return families


def markdown() -> str:
    """The library's losses (without plugins') as Markdown tables, one a family."""
    blocks = []
    for title in FAMILIES.values():
        rows = [f"### {title}", "", "| loss | what it is | source |", "|---|---|---|"]
        for spec in by_family()[title]:
            own = ", ".join(f"`{name}`" for name in spec.own)
            name = f"`{spec.name}`" + (f" ({own})" if own else "")
            cells = (cell.replace("|", "\\|") for cell in (name, spec.summary, spec.source))
            rows.append(f"| {' | '.join(cells)} |")
        blocks.append("\n".join(rows))
    return "\n\n".join(blocks)
