"""``distill-jax search``: products for queries, from trained towers."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from distill_jax.cli.chosen_run import RANKS, chosen_run
from distill_jax.cli.run import parse_flags
from distill_jax.core.errors import UserError


@dataclass(frozen=True)
class Search:
    """Ask a finished two-tower student what fits a query.

    Each line of the output is the place, the product's name, the score and its text; with several
    queries each stands above its own lines.
    """

    queries: Annotated[tuple[str, ...], tyro.conf.Positional]
    """What is looked for: "arrow pointing left"."""
    model: Path
    """A run's folder (results/search_relevance/runs/HASH), a table's, for the best of its students
    on validation, or a folder with towers."""
    k: Annotated[int, tyro.conf.arg(aliases=["-k"])] = 10
    """How many products."""


def main(arguments: Sequence[str]) -> None:
    """Load, encode, print."""
    args = parse_flags(Search, arguments, "distill-jax search")
    if not args.queries:
        raise UserError('no query: give one, distill-jax search --model RUN "arrow left"')
    if args.k < 1:
        raise UserError(f"-k is {args.k}; expected at least 1.")

    from distill_jax.evaluation.open_search import open_search

    found = open_search(chosen_run(args.model, RANKS)).search(args.queries, args.k)
    for query, products in zip(args.queries, found, strict=True):
        if len(args.queries) > 1:
            print(f"# {query}")
        for place, each in enumerate(products, 1):
            print(f"{place}\t{each.name}\t{each.score:.3f}\t{each.text}")
