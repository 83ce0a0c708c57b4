"""Flags of every table of recommenders: which interactions, and what is done to them first."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from distill_jax.cli.experiment import TableFlags

if TYPE_CHECKING:
    from distill_jax.data.interactions import RankingSplit
    from distill_jax.tasks.recommendation.cells import RecData


@dataclass(frozen=True)
class InteractionFlags(TableFlags):
    """Interactions by name, and their preparation."""

    data: str = "movielens-100k"
    """movielens-100k, files:FOLDER with interactions, tfds:movielens/NAME."""
    columns: str | None = None
    """Of files:FOLDER, where they are not called as usual: user=...,item=...,time=...,rating=..."""
    min_rating: float | None = None
    """Interactions rated lower are dropped; by default all count, those rated 0 and below too."""
    k_core: int = 1
    """Users and items with fewer interactions are dropped, again and again until none is left."""
    asked: int | None = None
    """Validation and test ask about so many users at most, drawn once; by default about all."""
    repeats: Literal["first", "last", "keep"] = "first"
    """Which of a user's interactions with one item counts. keep: all of them, and what somebody
    took may be asked for, and recommended, again."""

    def rec_data(self, split: str | None = None) -> "RecData":
        """The data of a cell.

        Args:
          split: see ``RecData``.
        """
        from distill_jax.tasks.recommendation.cells import RecData

        return RecData(
            self.data,
            split,
            self.columns,
            min_rating=self.min_rating,
            k_core=self.k_core,
            repeats=self.repeats,
            asked=self.asked,
        )

    def ranking_split(self) -> "RankingSplit":
        """The data, divided by their own split or leave-one-out."""
        from distill_jax.data.column_names import parse_columns
        from distill_jax.data.load_interactions import load_ranking_split

        data = self.rec_data()
        return load_ranking_split(
            data.name,
            preparation=data.preparation,
            columns=parse_columns(data.columns),
            asked=data.asked,
        )
