"""What a task's models say, as objectives know it: which losses can be read there, and how.

A task brings one ``Outputs``; numbers, schedules, reduction and structure are ``resolve``'s.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import jax.numpy as jnp
from jax import Array

from distill_jax.core.types import Batch, Capture, ModelOutput, ModelShape
from distill_jax.losses.numeric import floats, number
from distill_jax.losses.teachers import mean_logits, mean_probabilities
from distill_jax.losses.teachers import trust as trust_in
from distill_jax.objectives import registry
from distill_jax.objectives.feeds import Feed, Shape, logits_of
from distill_jax.objectives.readers import Options, Reader, Said
from distill_jax.objectives.registry import Spec
from distill_jax.objectives.terms import Option

Statics = tuple[tuple[str, Any], ...]


@dataclasses.dataclass(frozen=True)
class Outputs:
    """One kind of outputs. Subclasses say how losses are read off them; hashable.

    Attributes:
      name: one of ``registry.OUTPUTS``.
      combines: whether several teachers' outputs can be made one, see ``combined``.
    """

    name: ClassVar[str]
    combines: ClassVar[bool] = False

    @property
    def student_capture(self) -> Any:
        """What is needed of a student's output whatever the terms, to be joined with theirs."""
        return Capture()

    @property
    def teacher_capture(self) -> Any:
        """What is needed of a teacher's, likewise."""
        return Capture()

    @property
    def structure(self) -> str:
        """What more decides what is compiled: put behind the terms' structure."""
        return ""

    def reads(self, spec: Spec) -> bool:
        """Whether a loss can be read here."""
        return self.name in spec.feed.outputs

    def names(self) -> tuple[str, ...]:
        """The losses that can be read here."""
        return registry.names(self.name)

    def options(self, name: str) -> Mapping[str, Option]:
        """What a loss may be given here."""
        spec = registry.lookup(name)
        return spec.with_options(self.options_of(spec.feed))

    def options_of(self, feed: Feed) -> Mapping[str, Option]:
        """The static options that a feed has here, beside its loss's own."""
        return feed.options()

    def refusal(self, spec: Spec) -> str:
        """Why a loss cannot be read here."""
        return f"this loss cannot be read off {self.name}, only off {', '.join(spec.feed.outputs)}."

    def statics(self, spec: Spec, given: Options) -> Statics:
        """The static options that name a term's structure, the loss's own among them."""
        own = sorted(key for key, option in spec.own.items() if not option.dynamic)
        return tuple((key, given[key]) for key in own if given[key] != ())  # () says nothing

    def fit(self, spec: Spec, given: Options, student: ModelShape, teacher: Shape) -> Reader:
        """How a loss is read between two models.

        Args:
          given: every option of the term.
          teacher: None only for losses that need none.

        Raises:
          UserError: if the loss cannot be computed between them.
        """
        raise NotImplementedError

    def seed(self, term: int, teacher: int) -> int:
        """Of the own parameters of a term against a teacher, both counted from 0."""
        return 1000 * term + teacher

    def said(self, output: Any, batch: Any) -> Said:
        """A student's output as the readers take it."""
        return Said(output, batch)

    def weights(
        self, teachers: Sequence[Any], weights_K: Array | None, trust: str, batch: Any
    ) -> Array | None:
        """How much teachers count: [K] by the objective alone; [K, B] where that differs from
        example to example; None for a single one that counts everywhere alike.

        Args:
          trust: by what they count on an example, see ``registry.TEACHER_OPTIONS``.
        """
        return weights_K

    def combined(self, teachers: Sequence[Any], how: str, weights: Any, T: Any) -> Any:
        """Several teachers' outputs as one, ``mean_probabilities`` or ``mean_logits``.

        Args:
          weights: as ``weights`` gives them.
        """
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class Classes(Outputs):
    """A classifier's: logits of classes, hidden states, attention (``ModelOutput``)."""

    name: ClassVar[str] = "classes"
    combines: ClassVar[bool] = True

    def fit(self, spec: Spec, given: Options, student: ModelShape, teacher: Shape) -> Reader:
        return spec.feed.bind(given, student, teacher)

    def weights(
        self, teachers: Sequence[Any], weights_K: Array | None, trust: str, batch: Any
    ) -> Array | None:
        silent = any(teacher.heard_B is not None for teacher in teachers)
        if len(teachers) == 1 or (trust == registry.ALIKE and not silent):
            return weights_K
        shares = [self._sure(teacher, trust, batch) for teacher in teachers]
        shares_KB = jnp.stack(floats(*shares))
        if weights_K is not None:
            shares_KB = shares_KB * number(weights_K, shares_KB)[:, None]
        total_1B = jnp.sum(shares_KB, axis=0, keepdims=True)
        alike = jnp.full_like(shares_KB, 1 / len(teachers))
        return jnp.where(total_1B > 0, shares_KB / jnp.where(total_1B > 0, total_1B, 1), alike)

    def _sure(self, teacher: ModelOutput, by: Any, batch: Batch) -> Array:
        """float [B]: 0 where the teacher says nothing."""
        logits_BC = logits_of(teacher)
        sure_B = jnp.ones(logits_BC.shape[:1], jnp.float32)
        if by != registry.ALIKE:
            labels, known = batch.labels_B, batch.label_where_B
            sure_B = trust_in(logits_BC, by=by, labels=labels, known=known)
        return sure_B if teacher.heard_B is None else jnp.where(teacher.heard_B, sure_B, 0)

    def combined(self, teachers: Sequence[Any], how: str, weights: Any, T: Any) -> Any:
        logits_KBC = jnp.stack(floats(*map(logits_of, teachers)))
        if how == "mean_logits":
            logits_BC = mean_logits(logits_KBC, weights=weights)
        else:
            logits_BC = mean_probabilities(logits_KBC, weights=weights, T=T)
        heard = [teacher.heard_B for teacher in teachers]
        if any(each is None for each in heard):
            return ModelOutput(logits_BC=logits_BC)
        return ModelOutput(logits_BC=logits_BC, heard_B=functools.reduce(jnp.logical_or, heard))


CLASSES = Classes()
