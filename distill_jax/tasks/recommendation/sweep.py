"""A table of recommenders, as data: who teaches, who learns, how."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from distill_jax.core.errors import UserError
from distill_jax.core.fields import check_fields
from distill_jax.engine.options import Precision
from distill_jax.tables.columns import Column
from distill_jax.tables.spec import Place, TableSpec
from distill_jax.tasks.recommendation.cells import (
    CLOSED_FORMS,
    RecCell,
    RecData,
    RecModel,
    RecTeacher,
)
from distill_jax.tasks.recommendation.columns import COLUMNS, NDCG
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
    """Students x rows x seeds, with one teacher or none.

    Attributes:
      teacher: None where everybody learns from labels alone.
      precision: of the students.
      rows: the first is what the others are tested against.
      references: recommenders in closed form that stand beside the teacher.
      peers: other models of the teacher's training that stand beside it; nobody listens to them.
      tested: keys of the columns that are tested.
      protocol: sentences that stand under the table, behind those that say how it came about.
    """

    name: str
    title: str
    data: RecData
    teacher: RecTeacher | None
    students: tuple[RecModel, ...]
    rows: tuple[RecRow, ...]
    training: FitConfig
    precision: Precision = "f32"
    seeds: tuple[int, ...] = (0, 1, 2)
    references: tuple[str, ...] = ("popularity", "ease")
    peers: tuple[RecModel, ...] = ()
    columns: tuple[Column, ...] = field(default=COLUMNS)
    tested: tuple[str, ...] = (NDCG.key,)
    protocol: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_fields(self)
        for what, values in (
            ("rows", [row.label for row in self.rows]),
            ("students", [student.name for student in self.students]),
            ("seeds", list(self.seeds)),
            ("teachers", [model.name for model in self.speakers]),
        ):
            if (not values and what != "teachers") or len(set(values)) < len(values):
                raise UserError(f"table {self.name}: {what} must be there, each once.")
        if unknown := set(self.references) - set(CLOSED_FORMS):
            raise UserError(
                f"table {self.name}: no reference {sorted(unknown)[0]!r}; allowed: "
                f"{', '.join(CLOSED_FORMS)}."
            )

    @property
    def speakers(self) -> tuple[RecModel, ...]:
        """The teacher and its peers."""
        return (self.teacher.model, *self.peers) if self.teacher else ()

    def cells(self, data_digest: str, teacher_digest: str) -> Iterator[tuple[RecRow, RecCell]]:
        """Every run, all seeds of a row one after another: they share a compiled step."""
        from distill_jax.objectives.items import parse_ranking
        from distill_jax.objectives.plugins import plugin_digest

        for student in self.students:
            for row in self.rows:
                objective = str(parse_ranking(row.objective))
                listens = row.start != "random" or listens_to_teacher(objective)
                if listens and self.teacher is None:
                    raise UserError(f"row {row.label!r} needs a teacher, and the table has none.")
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
                        self.teacher.top if self.teacher and listens else 0,
                        self.precision,
                        plugin_digest(objective, read=parse_ranking),
                    )
                    yield row, cell

    def teacher_cell(self, data_digest: str, model: RecModel | None = None) -> RecCell:
        """The teacher's own training, or a peer's."""
        teacher = self.teacher
        assert teacher is not None, "asked of tables with a teacher"
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


def listens_to_teacher(objective: str) -> bool:
    """Whether a term of an objective needs a teacher."""
    from distill_jax.objectives.items import parse_ranking
    from distill_jax.objectives.registry import lookup

    return any(lookup(term.name).feed.needs_teacher for term in parse_ranking(objective).terms)
