"""Readers of DE-RRD's losses: users and items of a batch count once, lists are drawn.

Kang et al. 2020, "DE-RRD: A Knowledge Distillation Framework for Recommender System", section 4;
with ``by=items`` Kang et al. 2021, "Item-side ranking regularized distillation for recommender
system". As in the released code users and items of a batch count once each, however often they
occur in it, and lists are drawn again and again.

Shapes: R rows that are looked at, K drawn places, L others, N negatives.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from distill_jax.core.errors import UserError
from distill_jax.core.ranking_types import HistoryBatch, Negatives
from distill_jax.core.top_items import Wanted
from distill_jax.losses.numeric import floats, zero_masked
from distill_jax.objectives.expert_feeds import ExpertFeed, ask_experts, select_experts
from distill_jax.objectives.feeds import FROM_ONE, FROM_ZERO, RankingFeed
from distill_jax.objectives.item_logit_readers import RankedList
from distill_jax.objectives.item_readers import Scores
from distill_jax.objectives.item_vector_readers import Experts, newest
from distill_jax.objectives.readers import Loss, Params
from distill_jax.objectives.terms import Option

ROWS = Option(1, interval=FROM_ONE)
"""Of a batch in random order one in so many rows is looked at, and counts so many times."""
APART = 0x1E3779B9
"""Seeds of the experts' noise for users, targets and negatives lie so far apart."""
PLACES, OTHERS = 1, 2
"""What is drawn in a step, beside the experts' noise."""


def once(ids_B: Array, where_B: Array, rows: int) -> Array:
    """float32 [R]: how much each of the first ``B / rows`` rows weighs so that every id of the
    batch counts once; over all rows the sum is the number of different ids."""
    some = slice(0, -(-ids_B.shape[0] // rows))
    same_RB = (ids_B[some][:, None] == ids_B[None, :]) & where_B[None, :]
    count_R = jnp.sum(same_RB, axis=1, dtype=jnp.float32)
    return jnp.where(where_B[some], np.float32(rows) / jnp.maximum(count_R, 1), 0)


def draw_places(draw: Array, salt: int, lists: int, length: int, count: int, decay: int) -> Array:
    """int32 [lists, count]: different places of lists of ``length``, ascending, place r (from 1)
    taken with chances proportional to ``exp(-r / decay)``, one after another."""
    chances = -jnp.arange(1, length + 1, dtype=jnp.float32) / np.float32(decay)
    noise = jax.random.gumbel(_key(draw, salt), (lists, length))
    _, places = jax.lax.top_k(chances[None] + noise, count)
    return jnp.sort(places, axis=1).astype(jnp.int32)


def _key(draw: Array, salt: int) -> Array:
    seed, step = jnp.asarray(draw, jnp.uint32)
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), step), salt)


def _spread(values_R: Array, like_B: Array) -> Array:
    """[B], 0 behind the rows that were looked at."""
    return jnp.pad(values_R, (0, like_B.shape[0] - values_R.shape[0]))


@dataclasses.dataclass(frozen=True)
class Hints(Experts):
    """``expert_hints``; with ``once`` each user and item of a batch counts once.

    ``negatives`` puts the first sampled item of each row beside its target, at half weight each.
    """

    @classmethod
    def options_of(cls, feed: ExpertFeed) -> dict[str, Option]:
        yes_no = Option(False, choices=(False, True))
        return {**super().options_of(feed), "once": yes_no, "negatives": yes_no, "rows": ROWS}

    def check(self, num_items: int) -> None:
        super().check(num_items)
        if self.option("once") and self.on == "both":
            raise UserError("once=True is for on=queries or on=items, a term each.")
        if self.option("negatives") and not (self.option("once") and self.on == "items"):
            raise UserError("negatives=True is for on=items with once=True.")
        if self.option("rows") > 1 and not self.option("once"):
            raise UserError("rows above 1 are for once=True.")

    @property
    def negatives(self) -> Negatives | None:
        return Negatives(1, "row") if self.option("negatives") else None

    @property
    def teacher_capture(self) -> Wanted:
        return dataclasses.replace(super().teacher_capture, negatives=int(self.option("negatives")))

    def values(self, loss: Loss, params: Params, said: Scores, teacher: Any, draw: Any) -> Array:
        if not self.option("once"):
            return super().values(loss, params, said, teacher, draw)
        where_B, (kind,) = newest(said.batch, teacher), self._kinds
        entities = self._each_once(said, teacher, kind)
        total = jnp.zeros(where_B.shape, jnp.float32)
        for place, (ids_B, student_BD, heard_BD) in enumerate(entities, kind == "items"):
            weights_R = once(ids_B, where_B, self.option("rows")) / np.float32(len(entities))
            some = slice(0, weights_R.shape[0])
            where_R = where_B[some]
            student_RD, heard_RD = (
                zero_masked(jnp.asarray(side)[some], where_R) for side in (student_BD, heard_BD)
            )
            given = {
                "selection": select_experts(params[kind], heard_RD),
                "draw": jnp.asarray(draw) + np.asarray([APART * place, 0], np.uint32),
            }
            made_RGD = ask_experts(params[kind], student_RD)
            args, kwargs = self.feed.call(student_RD, heard_RD, made_RGD, where=where_R, **given)
            total = total + _spread(loss(*args, **kwargs) * weights_R, where_B)
        return total

    def _each_once(self, said: Scores, teacher: Any, kind: str) -> list[tuple[Array, Array, Array]]:
        """Numbers, the student's vectors and the teacher's: of users, or of targets and of the
        first sampled items."""
        ((student_BD, heard_BD),) = self.entities(said, teacher)
        batch = said.batch
        if kind == "queries":
            return [(batch.example_ids_B, student_BD, heard_BD)]
        found = [(batch.targets_BT[:, -1], student_BD, heard_BD)]
        if self.option("negatives"):
            ids_B = batch.negatives_BTN[:, -1, 0]
            found.append((ids_B, said.output.items_ID[ids_B], teacher.negatives_BND[:, 0]))
        return found


@dataclasses.dataclass(frozen=True)
class DrawnList(RankedList):
    """``relaxed_ranking``; with ``drawn`` on lists that are drawn in each step.

    Of the ``top`` likeliest items that the row's user never took ``drawn`` are ordered, the first
    ones more often (``decay``), and ``sampled`` others stand below. ``by=items`` asks the other way
    round: of ``of`` sampled items a row, which users take them.
    """

    @classmethod
    def options_of(cls, feed: RankingFeed) -> dict[str, Option]:
        return {
            **super().options_of(feed),
            "drawn": Option(0, interval=FROM_ZERO),
            "decay": Option(10, interval=FROM_ONE),
            "by": Option("users", choices=("users", "items")),
            "of": Option(1, interval=FROM_ONE),
            "rows": ROWS,
        }

    def check(self, num_items: int) -> None:
        super().check(num_items)
        drawn = self.option("drawn")
        if drawn > self.option("top"):
            raise UserError(f"drawn={drawn} places of top={self.option('top')}.")
        if not drawn and (self.option("by") == "items" or self.option("rows") > 1):
            raise UserError("by=items and rows above 1 are for drawn lists (drawn=40).")
        if drawn and not self.option("sampled"):
            raise UserError("drawn lists need others below them (sampled=40).")

    @property
    def of_named(self) -> bool:
        return super().of_named and not self.option("drawn")  # those of lists nobody has counted

    @property
    def _of_items(self) -> int:
        """Of how many sampled items a row users are ordered."""
        return self.option("of") if self.option("by") == "items" else 0

    @property
    def teacher_capture(self) -> Wanted:
        if not self.option("drawn"):
            return super().teacher_capture
        if self._of_items:
            return Wanted(fans=self.option("top"), fans_of=self._of_items)
        return Wanted(unseen=self.option("top"))

    @property
    def negatives(self) -> Negatives | None:
        if self._of_items:
            return Negatives(self._of_items, "row")
        return super().negatives

    @property
    def notes(self) -> tuple[str, ...]:
        if not self.option("drawn"):
            return super().notes
        return (f"{self.option('drawn')} places of the likeliest {self.option('top')} drawn",)

    def where(self, batch: HistoryBatch, teacher: Any) -> Array:
        if not self.option("drawn"):
            return super().where(batch, teacher)
        return newest(batch, teacher)

    def values(self, loss: Loss, params: Params, said: Scores, teacher: Any, draw: Any) -> Array:
        if not self.option("drawn"):
            return super().values(loss, params, said, teacher, draw)
        where_B = self.where(said.batch, teacher)
        if self._of_items:
            return self._of_each_item(loss, said, teacher, draw, where_B)
        weights_R = once(said.batch.example_ids_B, where_B, self.option("rows"))
        some = slice(0, weights_R.shape[0])
        lists_RK = jnp.asarray(teacher.unseen_BK)[some]
        others_RL = said.batch.negatives_BTN[some, -1, : self.option("sampled")]
        ids_RM, outside_RM = self._drawn(lists_RK, others_RL, draw)
        queries_RD = said.output.queries_BTD[some, -1]
        scores_RM = jnp.einsum("rd,rmd->rm", queries_RD, said.output.items_ID[ids_RM])
        if said.output.item_bias_I is not None:
            scores_RM = scores_RM + said.output.item_bias_I[ids_RM]
        values_R = self._below(loss, scores_RM, outside_RM & where_B[some][:, None])
        return _spread(values_R * weights_R, where_B)

    def _of_each_item(
        self, loss: Loss, said: Scores, teacher: Any, draw: Any, where_B: Array
    ) -> Array:
        """The mean over a row's sampled items."""
        users_UD = said.output.users_UD
        if users_UD is None:
            raise UserError("by=items needs a student that knows users by number (bpr_mf-20).")
        rows, count = self.option("rows"), self._of_items
        some = slice(0, -(-where_B.shape[0] // rows))
        items_RN = said.batch.negatives_BTN[some, -1, :count]
        fans_RNK = jnp.asarray(teacher.fans_BNK)[some]
        lists_XK = fans_RNK.reshape(-1, fans_RNK.shape[-1])
        shape = (lists_XK.shape[0], self.option("sampled"))
        others_XL = jax.random.randint(_key(draw, OTHERS), shape, 0, users_UD.shape[0], jnp.int32)
        ids_XM, outside_XM = self._drawn(lists_XK, others_XL, draw)
        items_XD = said.output.items_ID[items_RN.reshape(-1)]
        scores_XM = jnp.einsum("xd,xmd->xm", items_XD, users_UD[ids_XM])
        where_X = jnp.repeat(where_B[some], count)
        values_X = self._below(loss, scores_XM, outside_XM & where_X[:, None])
        values_R = jnp.mean(values_X.reshape(-1, count), axis=1) * np.float32(rows)
        return _spread(values_R, where_B)

    def _drawn(self, lists_XK: Array, others_XL: Array, draw: Any) -> tuple[Array, Array]:
        """Drawn places of lists and the others behind them, and which of all these count."""
        drawn = self.option("drawn")
        count, length = lists_XK.shape
        places_XK = draw_places(draw, PLACES, count, length, drawn, self.option("decay"))
        first_XK = jnp.take_along_axis(lists_XK, places_XK, axis=1)
        inside_XL = jnp.any(others_XL[:, :, None] == lists_XK[:, None, :], axis=-1)
        ids_XM = jnp.concatenate([first_XK, others_XL], axis=1)
        return ids_XM, jnp.concatenate([jnp.ones_like(first_XK, bool), ~inside_XL], axis=1)

    def _below(self, loss: Loss, scores_XM: Array, where_XM: Array) -> Array:
        """The loss of scores whose first ``drawn`` are in the teacher's order, [X]."""
        drawn = self.option("drawn")
        places_M = np.maximum(drawn - np.arange(scores_XM.shape[1]), 0).astype(np.float32)
        (scores_XM,) = floats(scores_XM)
        teacher_XM = jnp.broadcast_to(places_M[None], scores_XM.shape)
        return loss(scores_XM, teacher_XM, where=where_XM)
