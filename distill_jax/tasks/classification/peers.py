"""Students who teach each other: trained in one step, each against what the others say there.

Zhang, Xiang, Hospedales, Lu 2018, "Deep Mutual Learning", arXiv:1706.00384: of two students each
minimises the loss on labels and ``KL(other || own)``. Of more than two each hears the mean of the
others' probabilities (their DML_e). The objective is a text as any other, ``ce + kl`` say, in which
the peers stand in the teacher's place. All are updated at once, from what all said before. The
first of them is selected on validation, tested and kept.

To the engine they are one student whose parameters have a part for each: so populations,
checkpoints and resuming are as of any other.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array
from jax.sharding import Mesh

from distill_jax.core.errors import UserError
from distill_jax.core.mesh import Placement
from distill_jax.core.types import Capture, ModelOutput, Output
from distill_jax.engine.work import OnBatch, Work
from distill_jax.losses.teachers import mean_probabilities
from distill_jax.models.build import build_model
from distill_jax.objectives.resolve import Numbers, Parts, ResolvedObjective
from distill_jax.tasks.classification.cells import ClassifierCell
from distill_jax.tasks.classification.models import Checkpoint, params_of_student
from distill_jax.training.state import Params

_APART = 1 << 31
"""Between the seeds of the first student and of the others, modulo 2^32."""


@struct.dataclass
class PeersOutput(Output):
    """What all of them say of a batch.

    Attributes:
      said: an output each.
    """

    said: tuple[ModelOutput, ...]


class _Everything:
    """In place of a ``Capture``: what each objective reads is picked out there."""

    def select(self, output: PeersOutput) -> PeersOutput:
        return output


@dataclasses.dataclass(frozen=True)
class PeersObjective(ResolvedObjective):
    """An objective that each of several students minimises, the others in its teacher's place.

    Attributes:
      count: of the students.
    """

    count: int = 2

    @property
    def structure(self) -> str:
        return f"{super().structure} between {self.count}"

    @property
    def student_capture(self) -> Any:
        return _Everything()

    @property
    def needs_teacher(self) -> bool:
        """Nobody from outside is heard."""
        return False

    def __call__(
        self,
        params: Params,
        numbers: Mapping[str, Numbers],
        student: PeersOutput,
        teacher: Any,
        batch: Any,
    ) -> tuple[Array, Parts]:
        """The sum of the students' values, and of each term's sums and counts."""
        values, parts = [], []
        for own, said in enumerate(student.said):
            others = [other for number, other in enumerate(student.said) if number != own]
            value, part = super().__call__(params, numbers, said, _one_word(others), batch)
            values.append(value)
            parts.append(part)
        summed = {
            label: tuple(sum(each[label][place] for each in parts) for place in (0, 1))
            for label in parts[0]
        }
        return sum(values[1:], start=values[0]), summed  # type: ignore[return-value]


def _one_word(said: Sequence[ModelOutput]) -> ModelOutput:
    """What several say as one, constant."""
    logits_KBC = jnp.stack([jnp.asarray(each.logits_BC) for each in said])
    if len(said) == 1:
        return ModelOutput(logits_BC=jax.lax.stop_gradient(logits_KBC[0]))
    return ModelOutput(logits_BC=mean_probabilities(logits_KBC))


@dataclasses.dataclass(frozen=True)
class Peers:
    """What the step applies: one module with the parameters of each.

    Attributes:
      module: of all of them.
      count: how many.
    """

    module: Any
    count: int

    def apply(
        self,
        variables: Mapping[str, Any],
        batch: Any,
        *,
        train: bool = False,
        rngs: Mapping[str, Array] | None = None,
    ) -> PeersOutput:
        """An output each; dropout differs from one to the next."""
        said = []
        for number in range(self.count):
            own = {name: jax.random.fold_in(key, number) for name, key in (rngs or {}).items()}
            params = variables["params"][name_of(number)]
            said.append(self.module.apply({"params": params}, batch, train=train, rngs=own))
        return PeersOutput(tuple(said))


def name_of(number: int) -> str:
    """Of a student among the parameters."""
    return f"peer_{number}"


def check_peers(text: str, objective: ResolvedObjective) -> None:
    """Raises ``UserError`` for an objective that peers cannot have."""
    if objective.teacher_captures != (Capture(),):
        raise UserError(
            f"{text!r} reads more than logits, and students who teach each other hear no more"
        )


def among_peers(work: Work, count: int) -> Work:
    """The work of one student, as that of several who teach each other."""
    fields = {
        each.name: getattr(work.objective, each.name)
        for each in dataclasses.fields(ResolvedObjective)
    }
    evaluate_members = work.evaluate_members
    return dataclasses.replace(
        work,
        build=partial(_build, work.config, count),
        objective=PeersObjective(**fields, count=count),
        evaluate=partial(_evaluate, work),
        evaluate_members=None if evaluate_members is None else partial(_evaluate_members, work),
        occurring=None,
    )


def start_of_peers(
    cell: ClassifierCell, pretrained: Checkpoint, teacher: Any, count: int
) -> Params:
    """Where they start: each from a draw of its own.

    Args:
      teacher: see ``params_of_student``.
    """
    apart = [0, *(_APART + number for number in range(1, count))]
    return {
        name_of(number): params_of_student(
            dataclasses.replace(cell, seed=(cell.seed + more) % 2**32), pretrained, teacher
        )
        for number, more in enumerate(apart)
    }


def the_first(params: Params) -> Params:
    """The parameters of the student that is kept."""
    return params[name_of(0)]


def _build(config: Any, count: int, dtype: Any, remat: bool) -> Peers:
    return Peers(build_model(config, dtype, remat), count)


def _evaluate(work: Work, params: Params, mesh: Mesh, on_batch: OnBatch) -> dict[str, float]:
    return work.evaluate(the_first(params), mesh, on_batch)


def _evaluate_members(
    work: Work, stacked: Params, placement: Placement, on_batch: OnBatch
) -> Sequence[dict[str, float]]:
    assert work.evaluate_members is not None
    return work.evaluate_members(the_first(stacked), placement, on_batch)
