"""A table as plain data: rows of means, spreads and tests, footnotes, and what it is made of.

``build`` makes one; Markdown, LaTeX, CSV, the terminal, the figures and the report write it out.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from distill_jax.core.errors import unknown
from distill_jax.tables.columns import Column
from distill_jax.tables.ledger import LedgerRow
from distill_jax.tables.published import Published
from distill_jax.tables.spec import TableSpec
from distill_jax.tables.statistics import JointTest, PairedTest, Summary

SIGNIFICANCE = 0.05
KINDS = ("seeds", "examples", "joint")
"""Of tests of one comparison."""
Runs = frozenset[tuple[str, str]]
"""The runs that a comparison pairs, by hash."""
Role = Literal["teacher", "yardstick", "baseline", "compared"]


@dataclass(frozen=True)
class Tests:
    """What the runs of two rows say of their difference in one column.

    Attributes:
      seeds: over seeds; examples: over test examples; joint: over both at once. The last two are
        None where the runs did not keep what each example contributed.
      p_seeds, p_examples, p_joint: their p values after Holm's correction.
    """

    seeds: PairedTest
    examples: PairedTest | None = None
    joint: JointTest | None = None
    p_seeds: float = 1.0
    p_examples: float | None = None
    p_joint: float | None = None

    def reversed(self) -> "Tests":
        """The same of the second row against the first."""
        return replace(
            self,
            seeds=self.seeds.reversed(),
            examples=self.examples and self.examples.reversed(),
            joint=self.joint and self.joint.reversed(),
        )

    @property
    def different(self) -> bool:
        """Whether the joint test rejects at 5%; where there is none, nothing is known."""
        return self.p_joint is not None and self.p_joint < SIGNIFICANCE


@dataclass(frozen=True)
class Comparison:
    """Line ``line`` of the table minus line ``other``, in one column."""

    key: str
    line: int
    other: int
    runs: Runs
    tests: Tests


@dataclass(frozen=True)
class Entry:
    """One entry of the table, in raw (unscaled) units.

    Attributes:
      by_seed: seed -> score.
      summary: over the seeds.
      tests: against the baseline of the same group, or the best row of it; None where there are
        none.
      letters: where all pairs of a group are tested: rows without a common letter differ.
    """

    by_seed: Mapping[int, float]
    summary: Summary
    tests: Tests | None = None
    letters: str = ""

    def bold(self, higher_is_better: bool | None) -> bool:
        """Whether it is better than the baseline by the joint test at 5%.

        Where rows stand against the best one instead: whether it is not worse than that.
        """
        if self.letters:
            return "a" in self.letters
        joint = self.tests.joint if self.tests and self.tests.different else None
        if joint is None or higher_is_better is None:
            return False
        return joint.difference > 0 if higher_is_better else joint.difference < 0


@dataclass(frozen=True)
class TableRow:
    """One line: all runs of one row label in one group.

    Attributes:
      group, row: where it stands.
      role: teachers and yardsticks are never tested, the others of a group are compared with its
        baseline.
      runs: seed -> run, by rising seed.
      entries: key of the column -> entry.
    """

    group: str
    row: str
    role: Role
    runs: Mapping[int, LedgerRow]
    entries: Mapping[str, Entry]

    @property
    def is_student(self) -> bool:
        """Whether it is neither a teacher nor a yardstick."""
        return self.role in ("baseline", "compared")

    @property
    def seeds(self) -> tuple[int, ...]:
        """Of the finished runs."""
        return tuple(self.runs)

    def mean(self, key: str) -> float | None:
        """Of a number that some runs have, a column's or not; None where none has."""
        numbers = [x for run in self.runs.values() if (x := run.number(key)) is not None]
        return sum(numbers) / len(numbers) if numbers else None


@dataclass(frozen=True)
class Table:
    """A finished table.

    Attributes:
      spec: what it shows.
      columns: of these the ones that some run has a number for.
      rows: teachers, yardsticks, then the students, group by group.
      unfinished: how many runs are not finished, of how many.
      published: numbers of a paper, shown beside the measured ones.
      comparisons: all that were tested.
      notes: what the reader must know to read it rightly.
    """

    spec: TableSpec
    columns: tuple[Column, ...]
    rows: tuple[TableRow, ...]
    unfinished: tuple[int, int]
    published: Published | None = None
    comparisons: tuple[Comparison, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def students(self) -> tuple[TableRow, ...]:
        """The rows beside the teachers' and the yardsticks'."""
        return tuple(row for row in self.rows if row.is_student)

    @property
    def teachers(self) -> tuple[TableRow, ...]:
        """The teachers' rows."""
        return tuple(row for row in self.rows if row.role == "teacher")

    @property
    def yardsticks(self) -> tuple[TableRow, ...]:
        """The rows of what the labels give without a teacher."""
        return tuple(row for row in self.rows if row.role == "yardstick")

    @property
    def groups(self) -> dict[str, list[TableRow]]:
        """The students' rows by group, both in the table's order."""
        groups: dict[str, list[TableRow]] = {}
        for row in self.students:
            groups.setdefault(row.group, []).append(row)
        return groups

    def column(self, key: str) -> Column:
        """The column of this key.

        Raises:
          UserError: if there is none.
        """
        for column in self.columns:
            if column.key == key:
                return column
        raise unknown("column", key, [column.key for column in self.columns])
