"""A table of recommenders, as data: who teaches, who learns, how."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from distill_jax.core.errors import UserError
from distill_jax.core.fields import check_fields
from distill_jax.sweeps.columns import Column
from distill_jax.sweeps.recommend.cells import CLOSED_FORMS, RecCell, RecData, RecModel, RecTeacher
from distill_jax.sweeps.recommend.columns import COLUMNS, NDCG
from distill_jax.sweeps.spec import Place, TableSpec
from distill_jax.training.recommender import FitConfig


@dataclass(frozen=True)
class RecRow:
    """One way of training a student.

    Attributes:
      label: what the table calls it.
      objective, start, placebo: see ``RecCell``.
    """

    label: str
    objective: str
    start: Literal["random", "teacher_items"] = "random"
    placebo: bool = False

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class RecSweep:
    """Students x rows x seeds, with one teacher.

    Attributes:
      rows: the first is what the others are tested against.
      references: recommenders in closed form that stand beside the teacher.
      peers: other models of the teacher's training that stand beside it; nobody listens to them.
      tested: keys of the columns that are tested.
    """

    name: str
    title: str
    data: RecData
    teacher: RecTeacher
    students: tuple[RecModel, ...]
    rows: tuple[RecRow, ...]
    training: FitConfig
    seeds: tuple[int, ...] = (0, 1, 2)
    references: tuple[str, ...] = ("popularity", "ease")
    peers: tuple[RecModel, ...] = ()
    columns: tuple[Column, ...] = field(default=COLUMNS)
    tested: tuple[str, ...] = (NDCG.key,)

    def __post_init__(self) -> None:
        check_fields(self)
        for what, values in (
            ("rows", [row.label for row in self.rows]),
            ("students", [student.name for student in self.students]),
            ("seeds", list(self.seeds)),
            ("teachers", [self.teacher.model.name, *(peer.name for peer in self.peers)]),
        ):
            if not values or len(set(values)) < len(values):
                raise UserError(f"table {self.name}: {what} must be there, each once.")
        if unknown := set(self.references) - set(CLOSED_FORMS):
            raise UserError(
                f"table {self.name}: no reference {sorted(unknown)[0]!r}; allowed: "
                f"{', '.join(CLOSED_FORMS)}."
            )

    def cells(self, data_digest: str, teacher_digest: str) -> Iterator[tuple[RecRow, RecCell]]:
        """Every run, all seeds of a row one after another: they share a compiled step."""
        from distill_jax.objectives.ranking_objective import parse_ranking

        for student in self.students:
            for row in self.rows:
                objective = str(parse_ranking(row.objective))
                listens = row.start != "random" or listens_to_teacher(objective)
                for seed in self.seeds:
                    cell = RecCell(
                        self.data,
                        student,
                        objective,
                        self.training,
                        seed,
                        row.start,
                        row.placebo,
                        data_digest,
                        teacher_digest if listens else "",
                        self.teacher.top if listens else 0,
                    )
                    yield row, cell

    def teacher_cell(self, data_digest: str, model: RecModel | None = None) -> RecCell:
        """The teacher's own training, or a peer's."""
        teacher = self.teacher
        return RecCell(
            self.data,
            model or teacher.model,
            teacher.objective,
            teacher.training,
            teacher.seed,
            data_digest=data_digest,
        )

    def spec(
        self, places: tuple[Place, ...], teachers: tuple[Place, ...], protocol: tuple[str, ...]
    ) -> TableSpec:
        """The table without its numbers."""
        return TableSpec(
            name=self.name,
            title=self.title,
            layout="metrics",
            columns=self.columns,
            baseline=self.rows[0].label,
            places=places,
            teachers=teachers,
            tested=self.tested,
            group_title="student",
            row_title="training",
            protocol=protocol,
        )

    def with_data(self, data: RecData) -> RecSweep:
        """The same table of other data."""
        return dataclasses.replace(self, data=data)


def listens_to_teacher(objective: str) -> bool:
    """Whether a term of an objective needs a teacher."""
    from distill_jax.objectives.ranking_distillation_terms import TEACHING
    from distill_jax.objectives.ranking_objective import parse_ranking

    return any(term.name in TEACHING for term in parse_ranking(objective).terms)
