"""The tables of docs/losses.md: every loss of the library, one table a family.

python tools/losses_page.py   # the text below "All losses"
"""

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


if __name__ == "__main__":
    print(markdown())
