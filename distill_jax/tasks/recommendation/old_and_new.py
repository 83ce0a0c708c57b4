"""What a model knows of the old and of the new test: ranks, scores, and what was forgotten."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from distill_jax.data.continual_splits import ContinualSplit
from distill_jax.data.interactions import RankingSplit
from distill_jax.evaluation.ranking import hit_rate, ndcg, user_means
from distill_jax.evaluation.recommend import among_first, rank_cases
from distill_jax.models.recommenders.build import Recommender
from distill_jax.tables.before_after import changes, gains
from distill_jax.tables.columns import Column
from distill_jax.tasks.recommendation.runs import scorer_of
from distill_jax.training.state import Params

OLD, NEW, FORGOTTEN = "test/old_ndcg@10", "test/new_ndcg@10", "test/forgotten"
COLUMNS = (
    Column(OLD, "old NDCG@10", 1, 4, higher_is_better=True),
    Column(FORGOTTEN, "forgotten (old, before - after)", 1, 4, higher_is_better=False),
    Column(NEW, "new NDCG@10", 1, 4, higher_is_better=True),
    Column("steps", "steps", 1, 0, kind="value"),
    Column("seconds/total", "run (s)", 1, 0, kind="mean"),
)
OLD_TEST, NEW_TEST = "old", "new"
SCORES = {"ndcg@10": ndcg, "hr@10": hit_rate}


@dataclass(frozen=True, eq=False)
class OldAndNew:
    """The two tests of a continual split.

    Attributes:
      items: so many there were at the first moment.
      on_batch: called after every batch; may raise to stop.
    """

    split: ContinualSplit
    items: int
    on_batch: Callable[[], None]

    def ranks(
        self, model: Recommender, params: Params, learned: RankingSplit, among: int
    ) -> dict[str, np.ndarray]:
        """int32 [E], places of the old and of the new test's targets.

        Old ones compete with the items of the first moment. Of the new ones those that a model
        does not know come last.

        Args:
          learned: what it has learned from.
          among: it knows the first so many items.
        """
        scorer = scorer_of(model).of(params)
        limits = {OLD_TEST: self.items, NEW_TEST: among}
        cases = {OLD_TEST: self.split.old, NEW_TEST: self.split.new}
        return {
            name: rank_cases(
                among_first(scorer, limits[name]),
                self.split.asked_data,
                cases[name],
                learned_U=learned.learned_U,
                on_batch=self.on_batch,
            ).ranks_E
            for name in cases
        }

    def user_scores(self, ranks: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """``old_ndcg@10`` and its like: [U] of the users asked. Targets of one user are no
        independent cases: each user counts once."""
        users = {OLD_TEST: self.split.old.users_E, NEW_TEST: self.split.new.users_E}
        return {
            f"{test}_{name}": user_means(score(ranks[test], 10), users[test])[1]
            for test in ranks
            for name, score in SCORES.items()
        }

    def compared(
        self, before: Mapping[str, np.ndarray], after: Mapping[str, np.ndarray]
    ) -> dict[str, float]:
        """What an update changed of a student, of whose ranks these are, beside its scores."""
        scores = self.user_scores(before), self.user_scores(after)
        metrics = {f"before/{name}": float(each.mean()) for name, each in scores[0].items()}
        for name in scores[0]:
            metrics |= gains(name, scores[0][name], scores[1][name])
        for test, cases in ((OLD_TEST, self.split.old), (NEW_TEST, self.split.new)):
            found = changes(test, *(hit_rate(ranks[test], 10) for ranks in (before, after)))
            if len(np.unique(cases.users_E)) < len(cases):  # McNemar's test is of independent ones
                del found[f"{test}/forgotten_p"]
            metrics |= found
        return metrics
