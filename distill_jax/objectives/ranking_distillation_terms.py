"""Terms of a recommender's objective that listen to a teacher: the registered losses, fed anew.

Losses on logits see a position's likeliest items by the teacher as classes, and the rest of the
catalogue as one more; losses on lists see those items and sampled others; losses on
representations see queries (who asks) and item vectors (what is asked for).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from distill_jax.core.errors import UserError
from distill_jax.core.ranking_types import HistoryBatch, Negatives
from distill_jax.core.top_items import TopItems, Wanted
from distill_jax.core.types import ModelShape
from distill_jax.losses.numeric import FLOOR, floats
from distill_jax.objectives.chosen_logits import chosen_logits
from distill_jax.objectives.feeds import LogitFeed, RankingFeed
from distill_jax.objectives.ranking_terms import Kind, RankingTerm, Scores, register_kind
from distill_jax.objectives.registry import Spec, lookup, names
from distill_jax.objectives.terms import Interval, Option

LEAST_TAIL = 1e-6
"""The least share of the student's probability that is left for the tail class."""

TEACHING: set[str] = set()
"""Names of the losses that need a teacher."""

_FROM_ONE, _FROM_ZERO = Interval(1, closed="low"), Interval(0, closed="low")


@dataclasses.dataclass(frozen=True)
class TeacherTerm(RankingTerm):
    """A registered loss on what teacher and student say.

    Attributes:
      name: of the loss.
      own: its static arguments.
    """

    name: str = ""
    own: tuple[str, ...] = ()
    needs_teacher: ClassVar[bool] = True

    @property
    def wanted(self) -> Wanted:
        """What it reads of the teacher."""
        raise NotImplementedError

    @property
    def spec(self) -> Spec:
        """The loss, as the registry has it."""
        return lookup(self.name)

    def hyper(self, numbers: Mapping[str, Array]) -> dict[str, Any]:
        """The loss's own arguments."""
        dynamic = {key: numbers[key] for key, o in self.spec.own.items() if o.dynamic}
        return {key: self.option(key) for key in self.own} | dynamic

    def where(self, batch: HistoryBatch, teacher: TopItems) -> Array:
        return batch.target_where_BT & teacher.where_BT


def wanted_of(terms: Any) -> Wanted:
    """What the terms of an objective read of a teacher, all together."""
    wanted = Wanted()
    for term in terms:
        if isinstance(term, TeacherTerm):
            wanted = wanted | term.wanted
    return wanted


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
class TopLogits(TeacherTerm):
    """A loss on logits over the teacher's likeliest items and, as one class, the rest.

    The class of the rest has the log-sum-exp of its items as its logit; a temperature acts on the
    classes, the rest among them. With ``strata`` items are divided by popularity and the loss is
    the mean of those within each stratum, without the rest: how popular an item is, the teacher
    does not teach (Chen et al. 2023, "Unbiased Knowledge Distillation for Recommendation").
    """

    @property
    def wanted(self) -> Wanted:
        strata = self.option("strata")
        return Wanted(top=self.option("top"), strata=strata if strata > 1 else 0)

    def values(
        self, params: Mapping[str, Any], numbers: Mapping[str, Array], scores: Scores, teacher: Any
    ) -> Array:
        top = self.option("top")
        where_BT = self.where(scores.batch, teacher)
        where = where_BT.reshape(-1)
        student_NK = _student_at(scores, teacher.ids_BTK[..., :top], where_BT)
        (teacher_NK,) = floats(teacher.logits_BTK[..., :top].reshape(-1, top))
        hyper = self.hyper(numbers)
        if self.option("strata") > 1:
            strata_NK = teacher.strata_BTK[..., :top].reshape(-1, top)
            values = self._stratified(student_NK, teacher_NK, strata_NK, where, hyper)
            return values.reshape(where_BT.shape)
        if self.option("tail"):
            tail_s = _student_tail(student_NK, scores.log_partition_BT.reshape(-1))
            tail_t = _rest_of(teacher, top).reshape(-1)
            student_NK = jnp.concatenate([student_NK, tail_s[:, None]], axis=1)
            teacher_NK = jnp.concatenate([teacher_NK, tail_t[:, None]], axis=1)
        return self.spec.function(student_NK, teacher_NK, where=where, **hyper).reshape(
            where_BT.shape
        )

    def _stratified(
        self, student_NK: Array, teacher_NK: Array, strata_NK: Array, where: Array, hyper: Any
    ) -> Array:
        """The mean over the strata that have two items at least, [N]."""
        total, count = jnp.zeros(where.shape), jnp.zeros(where.shape)
        for stratum in range(self.option("strata")):
            inside = strata_NK == stratum
            there = where & (jnp.sum(inside, axis=1) > 1)
            own_s, own_t = (jnp.where(inside, x, -FLOOR) for x in (student_NK, teacher_NK))
            values = self.spec.function(own_s, own_t, where=there, **hyper)
            total, count = total + jnp.where(there, values, 0), count + there.astype(count.dtype)
        return total / jnp.maximum(count, 1)


def _student_tail(student_NK: Array, log_partition_N: Array) -> Array:
    """The log-sum-exp [N] of the student's logits outside the K, from that of all."""
    share = jnp.exp(jax.nn.logsumexp(student_NK, axis=1) - log_partition_N)
    return log_partition_N + jnp.log1p(-jnp.minimum(share, 1 - LEAST_TAIL))


@dataclasses.dataclass(frozen=True)
class RankedList(TeacherTerm):
    """A loss on a list: the teacher's likeliest items, and sampled ones that are not among them.

    Sorting lists is dear, so with a ``stride`` a step looks at every so-manieth position, another
    set at each step, and counts it so many times: the mean over steps is that of all positions.

    Attributes:
      target_first: whether the target stands in front (``margin_mse``).
    """

    random: ClassVar[bool] = True
    target_first: bool = False

    @property
    def wanted(self) -> Wanted:
        return Wanted(top=self.option("top"))

    @property
    def negatives(self) -> Negatives | None:
        count = self.option("sampled")
        return Negatives(count, "row") if count else None

    def values(
        self, params: Mapping[str, Any], numbers: Mapping[str, Array], scores: Scores, teacher: Any
    ) -> Array:
        stride = self.option("stride")
        if stride == 1:
            return self._values(numbers, scores, teacher)
        length = scores.output.queries_BTD.shape[1]
        step = jnp.asarray(numbers["draw"])[1]
        offset = (step % np.uint32(stride)).astype(jnp.int32)
        columns = offset + jnp.int32(stride) * jnp.arange(-(-length // stride), dtype=jnp.int32)
        said = _at_columns(teacher, columns)
        part = Scores(
            _at_columns(scores.output, columns),
            _at_columns(scores.batch, columns),
            scores.rows,
        )
        there = columns < length
        values = self._values(numbers, part, said) * np.float32(stride)
        empty = jnp.zeros(scores.batch.targets_BT.shape, values.dtype)
        values = jnp.where(self.where(part.batch, said) & there[None], values, 0)
        return empty.at[:, columns].set(values, mode="drop")

    def _values(self, numbers: Mapping[str, Array], scores: Scores, teacher: Any) -> Array:
        where_BT = self.where(scores.batch, teacher)
        top = self.option("top")
        ids_BTK = teacher.ids_BTK[..., :top]
        shape = (*where_BT.shape, top)
        student = [_student_at(scores, ids_BTK, where_BT).reshape(shape)]
        said = [teacher.logits_BTK[..., :top]]
        there = [jnp.broadcast_to(where_BT[..., None], shape)]
        if self.target_first:
            student.insert(0, scores.target_BT[..., None])
            said.insert(0, teacher.target_BT[..., None])
            there.insert(0, where_BT[..., None])
        if self.option("sampled"):
            sampled_BTN, outside_BTN = self._sampled(scores, ids_BTK)
            # Each is as likely as the rest on average, which is never above the last of the top.
            rest = scores.output.items_ID.shape[0] - top
            level = _rest_of(teacher, top) - np.float32(np.log(rest))
            student.append(sampled_BTN)
            said.append(jnp.broadcast_to(level[..., None], sampled_BTN.shape))
            there.append(where_BT[..., None] & outside_BTN)
        student_BTN, said_BTN = (
            jnp.concatenate(floats(*parts), axis=-1) for parts in (student, said)
        )
        where_BTN = jnp.concatenate(there, axis=-1)
        return self.spec.function(student_BTN, said_BTN, where=where_BTN, **self.hyper(numbers))

    def _sampled(self, scores: Scores, ids_BTK: Array) -> tuple[Array, Array]:
        """The student's logits [B, T, N] of the sampled items, and which are outside the top."""
        ids_BTN = scores.batch.negatives_BTN
        assert ids_BTN is not None, "a feed draws what the objective needs"
        inside = jnp.any(ids_BTN[..., :, None] == ids_BTK[..., None, :], axis=-1)
        return scores.negatives_BTK, ~inside


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


def _register(
    name: str, options: Mapping[str, Option], term: type[TeacherTerm], **changes: Any
) -> None:
    """Makes a registered loss known to objectives of recommenders."""
    register_kind(_kind(name, options, term, **changes))
    TEACHING.add(name)


def _kind(
    name: str, options: Mapping[str, Option], term: type[TeacherTerm], **changes: Any
) -> Kind:
    """A registered loss, fed by a term."""
    spec = lookup(name)
    own = tuple(sorted(key for key, option in spec.own.items() if not option.dynamic))

    def bind(
        statics: Mapping[str, Any], student: ModelShape, teacher: ModelShape | None
    ) -> TeacherTerm:
        if teacher is None:
            raise UserError("this loss needs a teacher, and there is none.")
        top = statics.get("top", 1)
        if top >= student.num_labels:
            raise UserError(f"top={top} is not below the {student.num_labels} items.")
        return term(tuple(sorted(statics.items())), name, own, **changes)

    return Kind(name, {**spec.own, **options}, bind, spec.doc)


def kind_of_user(name: str) -> Kind | None:
    """A user's loss as recommenders know it: one on logits that hears a teacher and needs no
    labels, or one on rankings; None for any other name."""
    spec = lookup(name) if name in names() else None
    if spec is None or not spec.code:
        return None
    if isinstance(spec.feed, RankingFeed):
        return _kind(name, _list_options(0), RankedList)
    if isinstance(spec.feed, LogitFeed) and spec.feed.needs_teacher and not spec.feed.labelled:
        return _kind(name, _logit_options(tail=True), TopLogits)
    return None


def names_of_users() -> tuple[str, ...]:
    """The user's losses that recommenders can read."""
    return tuple(name for name in names() if kind_of_user(name) is not None)


def needs_teacher(name: str) -> bool:
    """Whether a loss listens to a teacher."""
    return name in TEACHING or kind_of_user(name) is not None


def _top(default: int) -> dict[str, Option]:
    return {"top": Option(default, interval=_FROM_ONE)}


def _register_losses() -> None:
    distributions = ("soft_ce", "kl", "reverse_kl", "jeffreys", "js", "generalized_jsd")
    for name in (*distributions, "skew_kl", "skew_reverse_kl", "tvd", "kl_infinite_temperature"):
        _register(name, _logit_options(tail=True), TopLogits)
    for name in ("mse_logits", "cosine_logits"):  # the rest's logit is no item's
        _register(name, _logit_options(tail=False), TopLogits)
    for name in ("listnet", "listmle", "pairwise_logistic"):
        _register(name, _list_options(0), RankedList)
    for name in ("relaxed_ranking", "ranking_distillation"):
        _register(name, _list_options(100), RankedList)
    _register("margin_mse", _list_options(0), RankedList, target_first=True)


def _logit_options(*, tail: bool) -> dict[str, Option]:
    return {
        **_top(50),
        "tail": Option(tail, choices=(False, True)),
        "strata": Option(1, interval=_FROM_ONE),
    }


def _list_options(sampled: int) -> dict[str, Option]:
    return {
        **_top(20),
        "sampled": Option(sampled, interval=_FROM_ZERO),
        "stride": Option(5 if sampled else 1, interval=_FROM_ONE),
    }


_register_losses()
