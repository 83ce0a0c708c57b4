"""What the runner asks of a task: runs to carry out, and the table that they stand in."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from distill_jax.engine.engine import Engine
from distill_jax.engine.resume import Known
from distill_jax.engine.work import Work
from distill_jax.tables.ledger import Ledger, LedgerRow
from distill_jax.tables.spec import TableSpec, Where
from distill_jax.training.feed import TeacherOutputs
from distill_jax.training.loop import TrainResult
from distill_jax.training.state import Params


class Run(Protocol):
    """A student of a table, from its start to its row of the ledger."""

    @property
    def hash(self) -> str:
        """Of its cell."""

    @property
    def title(self) -> str:
        """For people."""

    @property
    def works(self) -> tuple[Work, ...]:
        """Its stages in order; the last one selects."""

    @property
    def together(self) -> Mapping[str, Any]:
        """What runs must share, beside the structure of their works, to be trained in one step."""

    def start(self) -> Params:
        """The student before its first step."""

    def outputs(self) -> TeacherOutputs | None:
        """What its teacher says of a batch; None where it listens to none."""

    def finish(self, engine: Engine, result: TrainResult, seconds: float) -> LedgerRow:
        """Read the test split once, keep the model, and write the run up.

        Args:
          seconds: since the run was last resumed.
        """

    def told(self, row: LedgerRow) -> str:
        """Its main scores, in a line."""


class TableTask(Protocol):
    """One table of one task, before the runner: what it needs is made in this order."""

    @property
    def name(self) -> str:
        """Of the experiment."""

    def prepare(self, engine: Engine) -> None:
        """Load the data and check every entry, before anything is trained.

        Raises:
          UserError: for what the user can mend.
        """

    def settings(self) -> Mapping[Where, Known]:
        """Where every run stands, and what is known of it without its teacher."""

    def raise_teachers(self, ledger: Ledger) -> None:
        """Train who teaches, unless that is done; their rows go to the ledger."""

    def runs(self) -> Sequence[Run]:
        """All runs, each once, now that their teachers are known."""

    def spec(self) -> TableSpec:
        """The table without its numbers."""

    def configs(self) -> Mapping[str, Mapping[str, Any]]:
        """Hash of a run -> its settings."""

    def self_check(self, runs: Sequence[Run]) -> None:
        """What would spoil the runs that are to be trained, found before step 1.

        Raises:
          UserError: for the first check that fails.
        """
