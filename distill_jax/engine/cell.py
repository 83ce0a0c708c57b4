"""A cell: one entry of a table, as data. Its hash is its identity in the ledger."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from distill_jax.core.digests import digest, fields_that_count
from distill_jax.core.errors import UserError, unknown
from distill_jax.core.fields import check_fields
from distill_jax.engine.options import Precision


class Setup(Protocol):
    """What a cell is in the words of its task: data, teacher, student. A frozen dataclass."""

    __dataclass_fields__: ClassVar[dict[str, Any]]
    Training: ClassVar[type]
    """What ``Train.training`` is in this task."""

    def settled(self, cell: Any) -> Any:
        """The cell in canonical form, so that what means the same has one hash.

        Raises:
          UserError: for what can be seen to be wrong without any data.
        """

    def identity(self, cell: Any) -> Mapping[str, Any]:
        """What decides how the cell comes out, see ``Cell.counted``: names count as little as
        can be, contents do."""


SetupT = TypeVar("SetupT", bound=Setup)


@dataclass(frozen=True)
class Stage:
    """A stage of a student's making, as data. Kinds beside ``Train`` live in ``compression``.

    Attributes:
      kind: what it is called.
    """

    kind: ClassVar[str] = ""

    @property
    def objectives(self) -> tuple[str, ...]:
        """That it trains with; () where it trains with none of its own."""
        return ()

    def check(self, setup: Setup) -> None:
        """Raises ``UserError`` for a stage that a student of this task cannot have."""


@dataclass(frozen=True)
class Train(Stage):
    """Training with an objective.

    Attributes:
      objective: its text; canonical once the cell is settled.
      training: how, in the task's own terms.
    """

    kind: ClassVar[str] = "train"

    objective: str
    training: Any

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def objectives(self) -> tuple[str, ...]:
        return (self.objective,)

    def check(self, setup: Setup) -> None:
        if not isinstance(self.training, setup.Training):
            wanted = setup.Training.__name__
            raise UserError(f"a stage's training must be a {wanted}, not {self.training!r}")


@dataclass(frozen=True)
class Cell(Generic[SetupT]):
    """One student of a table, whatever its task.

    Attributes:
      setup: data, teacher, student.
      stages: of its making, in order, each from the end of the one before. First come those that
        train, of which the last one selects the best step on validation; then what is done to the
        finished student, see ``steps``.
      seed: of initialisation, dropout, order of the data and draws.
      precision: in which it is trained.
      plugin: digest of the user's code behind its losses; None where they are the library's.
      data_digest, teacher_digest: content of data and teacher; known when they have been made.
    """

    setup: SetupT
    stages: tuple[Stage, ...]
    seed: int = 0
    precision: Precision = "f32"
    plugin: str | None = None
    data_digest: str = ""
    teacher_digest: str = ""

    def __post_init__(self) -> None:
        check_fields(self)
        if not self.making:
            raise UserError("a cell needs a stage at least, and the first one trains")
        for stage in self.stages:
            stage.check(self.setup)
        if not 0 <= self.seed < 2**32:
            raise UserError(f"seeds are from 0 to 4294967295, not {self.seed}")

    @property
    def making(self) -> tuple[Train, ...]:
        """The stages that train the student, before anything else is done to it."""
        return tuple(takewhile(lambda stage: stage.kind == Train.kind, self.stages))  # type: ignore

    @property
    def steps(self) -> tuple[Stage, ...]:
        """What is done to the finished student."""
        return self.stages[len(self.making) :]

    @property
    def objective(self) -> str:
        """Of the last stage of its making."""
        return self.making[-1].objective

    @property
    def training(self) -> Any:
        """Of the last stage of its making."""
        return self.making[-1].training

    @property
    def objectives(self) -> tuple[str, ...]:
        """Of all stages."""
        return tuple(text for stage in self.stages for text in stage.objectives)

    @property
    def hash(self) -> str:
        """Content digest.

        Raises:
          ValueError: before the content of its data is known.
        """
        if not self.data_digest:
            raise ValueError("a cell has a hash when its data are known")
        return digest(self.setup.identity(self))

    @property
    def config(self) -> dict[str, Any]:
        """Everything by name, as ledger and checkpoints keep it: fields of the setup and of the
        last stage of the making beside the cell's own; ``intermediate`` holds the stages before,
        ``steps`` those after, where there are any."""
        fields = {**dataclasses.asdict(self), **dataclasses.asdict(self.setup)}
        stages, made = fields.pop("stages"), len(self.making)
        *before, last = stages[:made]
        del fields["setup"]
        earlier = before if len(before) > 1 else (before or [None])[0]
        after = zip(self.steps, stages[made:], strict=True)
        steps = [{"kind": step.kind, **own} for step, own in after]
        return {**fields, **last, "intermediate": earlier, **({"steps": steps} if steps else {})}

    def counted(self, *without: str) -> dict[str, Any]:
        """The fields that may count in ``hash``, by the names of ``config``.

        Those that came when hashes had been given out count only where they are not at default.

        Args:
          without: fields that do not count.
        """
        *before, last = self.making
        late = {
            "intermediate": before[0] if len(before) == 1 else before,
            "steps": [{"kind": step.kind, **fields_that_count(step)} for step in self.steps],
            "plugin": self.plugin,
            "precision": self.precision if self.precision != "f32" else None,
        }
        fields = {
            **fields_that_count(self.setup),
            **vars(last),
            **{name: value for name, value in late.items() if value},
            "seed": self.seed,
            "data_digest": self.data_digest,
            "teacher_digest": self.teacher_digest,
        }
        return {name: value for name, value in fields.items() if name not in without}

    def but(self, **changes: Any) -> Cell[SetupT]:
        """The cell with some fields replaced: its own, its setup's or its making's last stage's."""
        return changed(self, changes.items())


def changed(cell: Cell[SetupT], changes: Iterable[tuple[str, Any]]) -> Cell[SetupT]:
    """A cell with fields replaced, by dotted path: ``seed``, ``data.max_length``, ``objective``,
    ``training.optimizer.learning_rate``; ``intermediate`` for a stage before the last, a tuple of
    several, or None.

    Raises:
      UserError: for a field that is not there.
    """
    for path, value in changes:
        cell = _changed(cell, path, value)
    return cell


def _changed(cell: Cell[SetupT], path: str, value: Any) -> Cell[SetupT]:
    key = path.split(".")[0]
    own = [f.name for f in dataclasses.fields(cell) if f.name not in ("setup", "stages")]
    of_setup = [f.name for f in dataclasses.fields(cell.setup)]
    *before, last = cell.making
    after = cell.steps
    if path == "intermediate":
        several = value if isinstance(value, tuple) else (value,)
        earlier = [] if value is None else several
        return dataclasses.replace(cell, stages=(*earlier, last, *after))
    if key == "intermediate" and before:
        own_path = path.partition(".")[2]
        stages = (*before[:-1], _replaced(before[-1], own_path, value), last, *after)
        return dataclasses.replace(cell, stages=stages)
    if key in of_setup:
        return dataclasses.replace(cell, setup=_replaced(cell.setup, path, value))
    if key in ("objective", "training"):
        return dataclasses.replace(cell, stages=(*before, _replaced(last, path, value), *after))
    if key in own:
        return _replaced(cell, path, value)
    names = [*own, *of_setup, "objective", "training", "intermediate"]
    raise unknown(f"field in {path!r}", key, names)


def _replaced(node: Any, path: str, value: Any, depth: int = 0) -> Any:
    keys = path.split(".")[depth:]
    names = [f.name for f in dataclasses.fields(node)] if dataclasses.is_dataclass(node) else []
    if keys[0] not in names:
        raise unknown(f"field in {path!r}", keys[0], names)
    if len(keys) > 1:
        value = _replaced(getattr(node, keys[0]), path, value, depth + 1)
    return dataclasses.replace(node, **{keys[0]: value})
