"""What the runner asks of a task: runs to carry out, and what stands in their table beside them."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from distill_jax.engine.cell import Cell
from distill_jax.engine.engine import Engine
from distill_jax.engine.resume import Known
from distill_jax.engine.sweep import Entry, Sweep
from distill_jax.engine.work import Work
from distill_jax.tables.ledger import Ledger, LedgerRow
from distill_jax.tables.spec import TableSpec
from distill_jax.training.feed import TeacherOutputs
from distill_jax.training.loop import TrainResult
from distill_jax.training.state import Params


@dataclass(frozen=True, eq=False)
class Run(ABC):
    """A student of a table, from its start to its row of the ledger.

    Attributes:
      entry: its cell, all contents known, and the first place where it stands.
    """

    entry: Entry[Any]

    @property
    def cell(self) -> Cell[Any]:
        """What it is, as data."""
        return self.entry.cell

    @property
    def hash(self) -> str:
        """Of its cell."""
        return self.entry.cell.hash

    @property
    def title(self) -> str:
        """For people."""
        return self.entry.title

    @property
    def config(self) -> dict[str, Any]:
        """Its settings, as ledger and checkpoints keep them."""
        return self.entry.cell.config

    @property
    @abstractmethod
    def works(self) -> Sequence[Work]:
        """Its stages in order; the last one selects."""

    @property
    def together(self) -> Mapping[str, Any]:
        """What runs must share, beside the structure of their works, to be trained in one step."""
        return {}

    @abstractmethod
    def start(self) -> Params:
        """The student before its first step."""

    @abstractmethod
    def outputs(self) -> TeacherOutputs | None:
        """What its teacher says of a batch; None where it listens to none."""

    @abstractmethod
    def finish(self, engine: Engine, result: TrainResult, seconds: float) -> LedgerRow:
        """Read the test split once, keep the model, and write the run up.

        Args:
          seconds: since the run was last resumed.
        """

    @abstractmethod
    def told(self, row: LedgerRow) -> str:
        """Its main scores, in a line."""


RunT = TypeVar("RunT", bound=Run)


class Task(Protocol[RunT]):
    """A task, at work on one table: what the runner needs is made in this order."""

    @property
    def sweep(self) -> Sweep[Any]:
        """The table, as it was declared."""

    def prepare(self, engine: Engine, entries: Sequence[Entry[Any]]) -> None:
        """Load the data and check every entry, before anything is trained.

        Raises:
          UserError: for what the user can mend.
        """

    def known(self, cell: Cell[Any]) -> Known | None:
        """What is known of a cell's settings before its teacher is; None for nothing."""

    def raise_teachers(self, ledger: Ledger) -> None:
        """Train who teaches, unless that is done, and measure what stands beside the students;
        their rows go to the ledger."""

    def run(self, entry: Entry[Any]) -> RunT:
        """The run of an entry, all contents of its cell filled in."""

    def described(self, spec: TableSpec) -> TableSpec:
        """The table's description with what only the task knows: who stands beside the students,
        how the numbers came about."""

    def self_check(self, runs: Sequence[RunT]) -> None:
        """What would spoil the runs that are to be trained, found before step 1.

        Raises:
          UserError: for the first check that fails.
        """
