"""A student that was brought up to date, as what the next update begins with."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from distill_jax.tasks.classification.cells import ClassifierCell
from distill_jax.tasks.classification.new_data import NewData, grown, splits_of_new
from distill_jax.tasks.classification.runs import ClassifierRun, Moment
from distill_jax.tasks.classification.teacher import Teacher


@dataclass(frozen=True, eq=False, kw_only=True)
class UpdatedRun(ClassifierRun):
    """A student that went on. Its splits are all that was there before and all that came.

    Attributes:
      before: what it went on from.
      new: what it went on with.
    """

    before: ClassifierRun
    new: NewData

    @property
    def moments(self) -> tuple[Moment, ...]:
        came = splits_of_new(self.new, self.before.splits)
        return (*self.before.moments, Moment(came, self.teachers))

    @cached_property
    def seen(self) -> Mapping[str, frozenset[str]]:
        came = self.new.seen
        return {split: keys | came.get(split, set()) for split, keys in self.before.seen.items()}


def updated_run(
    run: ClassifierRun, cell: ClassifierCell, new: NewData, teachers: tuple[Teacher, ...]
) -> UpdatedRun:
    """A run that went on.

    Args:
      run: that it went on from.
      cell: of what came out.
      new: what came.
      teachers: as they were when they were asked about that.
    """
    same = {field.name: getattr(run, field.name) for field in dataclasses.fields(ClassifierRun)}
    changed = {
        "entry": dataclasses.replace(run.entry, cell=cell),
        "splits": grown(run.splits, new, f"update {len(cell.steps)}/"),
        "teachers": teachers,
    }
    return UpdatedRun(**{**same, **changed}, before=run, new=new)
