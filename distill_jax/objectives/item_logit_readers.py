"""Readers of losses on what a teaching recommender says of items, on logits and on lists.

Losses on logits see a position's likeliest items by the teacher as classes, and the rest of the
catalogue as one more; losses on lists see those items and sampled others.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from distill_jax.core.ranking_types import Negatives
from distill_jax.core.top_items import TopItems, Wanted
from distill_jax.losses.catalogue import chosen_logits
from distill_jax.losses.numeric import FLOOR, floats
from distill_jax.objectives.feeds import FROM_ONE, FROM_ZERO, LogitFeed, RankingFeed
from distill_jax.objectives.item_readers import ItemReader, Scores
from distill_jax.objectives.readers import Loss, Params
from distill_jax.objectives.terms import Option

LEAST_TAIL = 1e-6
"""The least share of the student's probability that is left for the tail class."""


def _student_at(scores: Scores, ids_BTK: Array, where_BT: Array) -> Array:
    """The student's logits of chosen items, float32 [N, K], N = B * T."""
    output = scores.output
    width = output.queries_BTD.shape[-1]
    return chosen_logits(
        output.queries_BTD.reshape(-1, width),
        output.items_ID,
        output.item_bias_I,
        ids_BTK.reshape(-1, ids_BTK.shape[-1]),
        where=where_BT.reshape(-1),
    )


def _rest_of(teacher: TopItems, top: int) -> Array:
    """The teacher's log-sum-exp [B, T] of all but its ``top`` likeliest items."""
    if top == teacher.logits_BTK.shape[-1]:
        return teacher.rest_BT
    between = jax.nn.logsumexp(teacher.logits_BTK[..., top:], axis=-1)
    return jnp.logaddexp(teacher.rest_BT, between)


@dataclasses.dataclass(frozen=True)
class TopLogits(ItemReader):
    """A loss on logits over the teacher's likeliest items and, as one class, the rest.

    The class of the rest has the log-sum-exp of its items as its logit; a temperature acts on the
    classes, the rest among them. With ``strata`` items are divided by popularity and the loss is
    the mean of those within each stratum, without the rest: how popular an item is, the teacher
    does not teach (Chen et al. 2023, "Unbiased Knowledge Distillation for Recommendation").
    """

    @classmethod
    def options_of(cls, feed: LogitFeed) -> dict[str, Option]:
        return {
            "top": Option(50, interval=FROM_ONE),
            "tail": Option(feed.items == "rest", choices=(False, True)),
            "strata": Option(1, interval=FROM_ONE),
        }

    @property
    def teacher_capture(self) -> Wanted:
        strata = self.option("strata")
        return Wanted(top=self.option("top"), strata=strata if strata > 1 else 0)

    @property
    def of_named(self) -> bool:
        return not self.option("tail") or self.option("strata") > 1

    def values(self, loss: Loss, params: Params, said: Scores, teacher: Any, draw: Any) -> Array:
        top = self.option("top")
        where_BT = self.where(said.batch, teacher)
        where = where_BT.reshape(-1)
        student_NK = _student_at(said, teacher.ids_BTK[..., :top], where_BT)
        (teacher_NK,) = floats(teacher.logits_BTK[..., :top].reshape(-1, top))
        if self.option("strata") > 1:
            strata_NK = teacher.strata_BTK[..., :top].reshape(-1, top)
            values = self._stratified(loss, student_NK, teacher_NK, strata_NK, where)
            return values.reshape(where_BT.shape)
        if self.option("tail"):
            tail_s = _student_tail(student_NK, said.log_partition_BT.reshape(-1))
            tail_t = _rest_of(teacher, top).reshape(-1)
            student_NK = jnp.concatenate([student_NK, tail_s[:, None]], axis=1)
            teacher_NK = jnp.concatenate([teacher_NK, tail_t[:, None]], axis=1)
        return loss(student_NK, teacher_NK, where=where).reshape(where_BT.shape)

    def _stratified(
        self, loss: Loss, student_NK: Array, teacher_NK: Array, strata_NK: Array, where: Array
    ) -> Array:
        """The mean over the strata that have two items at least, [N]."""
        total, count = jnp.zeros(where.shape), jnp.zeros(where.shape)
        for stratum in range(self.option("strata")):
            inside = strata_NK == stratum
            there = where & (jnp.sum(inside, axis=1) > 1)
            own_s, own_t = (jnp.where(inside, x, -FLOOR) for x in (student_NK, teacher_NK))
            values = loss(own_s, own_t, where=there)
            total, count = total + jnp.where(there, values, 0), count + there.astype(count.dtype)
        return total / jnp.maximum(count, 1)


def _student_tail(student_NK: Array, log_partition_N: Array) -> Array:
    """The log-sum-exp [N] of the student's logits outside the K, from that of all."""
    share = jnp.exp(jax.nn.logsumexp(student_NK, axis=1) - log_partition_N)
    return log_partition_N + jnp.log1p(-jnp.minimum(share, 1 - LEAST_TAIL))


@dataclasses.dataclass(frozen=True)
class RankedList(ItemReader):
    """A loss on a list: the teacher's likeliest items, and sampled ones that are not among them.

    Sorting lists is dear, so with a ``stride`` a step looks at every so-manieth position, another
    set at each step, and counts it so many times: the mean over steps is that of all positions.
    Where margins count, the target stands in front.
    """

    random: ClassVar[bool] = True

    @classmethod
    def options_of(cls, feed: RankingFeed) -> dict[str, Option]:
        return {
            "top": Option(20, interval=FROM_ONE),
            "sampled": Option(feed.sampled, interval=FROM_ZERO),
            "stride": Option(5 if feed.sampled else 1, interval=FROM_ONE),
        }

    @property
    def teacher_capture(self) -> Wanted:
        return Wanted(top=self.option("top"))

    @property
    def negatives(self) -> Negatives | None:
        count = self.option("sampled")
        return Negatives(count, "row") if count else None

    @property
    def of_named(self) -> bool:
        return True

    def values(self, loss: Loss, params: Params, said: Scores, teacher: Any, draw: Any) -> Array:
        stride = self.option("stride")
        if stride == 1:
            return self._values(loss, said, teacher)
        length = said.output.queries_BTD.shape[1]
        step = jnp.asarray(draw)[1]
        offset = (step % np.uint32(stride)).astype(jnp.int32)
        columns = offset + jnp.int32(stride) * jnp.arange(-(-length // stride), dtype=jnp.int32)
        heard = _at_columns(teacher, columns)
        output, batch = _at_columns(said.output, columns), _at_columns(said.batch, columns)
        part = dataclasses.replace(said, output=output, batch=batch)
        values = self._values(loss, part, heard) * np.float32(stride)
        empty = jnp.zeros(said.batch.targets_BT.shape, values.dtype)
        there = columns < length
        values = jnp.where(self.where(batch, heard) & there[None], values, 0)
        return empty.at[:, columns].set(values, mode="drop")

    def _values(self, loss: Loss, scores: Scores, teacher: Any) -> Array:
        where_BT = self.where(scores.batch, teacher)
        top = self.option("top")
        ids_BTK = teacher.ids_BTK[..., :top]
        shape = (*where_BT.shape, top)
        student = [_student_at(scores, ids_BTK, where_BT).reshape(shape)]
        said = [teacher.logits_BTK[..., :top]]
        there = [jnp.broadcast_to(where_BT[..., None], shape)]
        if self.feed.margins:
            student.insert(0, scores.target_BT[..., None])
            said.insert(0, teacher.target_BT[..., None])
            there.insert(0, where_BT[..., None])
        if self.option("sampled"):
            sampled_BTN, outside_BTN = self._sampled(scores, ids_BTK)
            # Each is as likely as the rest on average, which is never above the last of the top.
            rest = (scores.num_items or scores.output.items_ID.shape[0]) - top
            level = _rest_of(teacher, top) - np.float32(np.log(rest))
            student.append(sampled_BTN)
            said.append(jnp.broadcast_to(level[..., None], sampled_BTN.shape))
            there.append(where_BT[..., None] & outside_BTN)
        student_BTN, said_BTN = (
            jnp.concatenate(floats(*parts), axis=-1) for parts in (student, said)
        )
        where_BTN = jnp.concatenate(there, axis=-1)
        return loss(student_BTN, said_BTN, where=where_BTN)

    def _sampled(self, scores: Scores, ids_BTK: Array) -> tuple[Array, Array]:
        """The student's logits [B, T, N] of the sampled items, and which are outside the top."""
        ids_BTN = scores.batch.negatives_BTN
        assert ids_BTN is not None, "a feed draws what the objective needs"
        ids_BTN = ids_BTN[..., : self.option("sampled")]
        inside = jnp.any(ids_BTN[..., :, None] == ids_BTK[..., None, :], axis=-1)
        return scores.negatives_BTK[..., : self.option("sampled")], ~inside


def _at_columns(whole: Any, columns: Array) -> Any:
    """A struct with its arrays of every position, [B, T, ...], at some columns alone."""

    def cut(array: Any) -> Any:
        if array.shape[1] == 1:  # negatives that all positions of a row share
            return array
        return jnp.take(jnp.asarray(array), columns, axis=1, mode="clip")

    return whole.replace(
        **{
            name: cut(array)
            for name, array in vars(whole).items()
            if name.rpartition("_")[2].startswith("BT") and array is not None
        }
    )
