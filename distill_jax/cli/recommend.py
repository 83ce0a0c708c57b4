"""``distill-jax recommend``: what to show somebody who took these items."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from distill_jax.cli.run import parse_flags
from distill_jax.core.errors import UserError


@dataclass(frozen=True)
class Recommend:
    """Ask a finished recommender about somebody, who need not be in the data.

    Each line of the output is the place, the title, the item's id and the model's score.
    """

    model: Path
    """A run's folder (results/recommendation/runs/HASH) or a folder with a recommender."""
    history: str
    """Ids or titles, oldest first, divided by semicolons: "Toy Story; Alien"."""
    k: Annotated[int, tyro.conf.arg(aliases=["-k"])] = 10
    """How many items."""
    new_items: tuple[str, ...] = ()
    """Texts ("title | genres") of items that the catalogue lacks; for models that read texts."""


def main(arguments: Sequence[str]) -> None:
    """Load, ask, print."""
    args = parse_flags(Recommend, arguments, "distill-jax recommend")
    if args.k < 1:
        raise UserError(f"-k is {args.k}; expected at least 1.")

    from distill_jax.evaluation.open_recommender import open_recommender

    opened = open_recommender(args.model)
    for place, each in enumerate(
        opened.recommend(args.history, args.k, new_items=args.new_items), 1
    ):
        print(f"{place}\t{each.title}\t{each.name}\t{each.score:.3f}")
