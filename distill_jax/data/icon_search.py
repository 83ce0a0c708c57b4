"""A catalogue of icons and the search terms that its makers gave them, as shipped in Font Awesome.

Real search terms of a real catalogue, curated by hand, though no queries of shoppers: a query is
a term ("caffeine"), a product is an icon as text ("Mug Hot | Food + Beverage"), and an icon is
relevant (gain 1) to the terms that it lists. Brand icons are left out: their terms are names. What
an icon does not list counts as irrelevant, which is sometimes unjust to a model. Splits are a
fixed hash of the term: 70% train, 10% validation, 20% test.
"""

import json
from pathlib import Path

from distill_jax.core.digests import unit_interval
from distill_jax.data import assets
from distill_jax.data.query_product import Judgement, SearchData, build_search_data
from distill_jax.data.table import fold

BRANDS = "brands"


def load(home: Path | None = None) -> SearchData:
    """The data, from the asset ``icon-search``."""
    return read(assets.fetch("icon-search", home))


def read(folder: Path) -> SearchData:
    """The data of a folder with ``icons.json`` and ``categories.yml``."""
    icons = json.loads((folder / "icons.json").read_text(encoding="utf-8"))
    categories = read_categories((folder / "categories.yml").read_text(encoding="utf-8"))
    judgements = []
    for name, icon in icons.items():
        if BRANDS in icon["styles"]:
            continue
        own = [label for label, members in categories.items() if name in members]
        text = f"{icon['label']} | {', '.join(own)}" if own else icon["label"]
        judgements += [
            Judgement(term, name, text, 1.0, split_of(term))
            for term in dict.fromkeys(map(fold, icon["search"]["terms"]))
            if term
        ]
    return build_search_data("icon_search", judgements)


def split_of(term: str) -> str:
    """The split of a search term."""
    draw = unit_interval(f"icon_search/{fold(term)}")
    return "test" if draw < 0.2 else "validation" if draw < 0.3 else "train"


def read_categories(text: str) -> dict[str, frozenset[str]]:
    """Label of a category -> its icons; of the few forms of YAML that the file uses."""
    members: list[str] = []
    categories: dict[str, frozenset[str]] = {}
    for line in text.splitlines():
        if line.startswith("    - "):
            members.append(line.removeprefix("    - ").strip("'\""))
        elif line.startswith("  label: "):
            categories[line.removeprefix("  label: ").strip("'\"")] = frozenset(members)
            members = []
    return categories
