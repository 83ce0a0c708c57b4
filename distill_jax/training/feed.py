"""Batches as a pure function of the step: there is no iterator to lose."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any

import grain

from distill_jax.data.plan import PlannedBatch, TrainingTable, plan_epoch

TeacherOutputs = Callable[[Any], Any]
"""What a teacher says of a batch, computed live or looked up in a cache."""


@dataclass(frozen=True, eq=False)
class Feed:
    """``feed(step)`` is the batch of that step and what the teacher says of it.

    Attributes:
      table: the training examples.
      shape_lengths: the few lengths that batches are padded to.
      batch_size: rows of a batch; the last batch of an epoch is filled up with padding rows.
      seed: decides the order; with the step it decides everything.
      teacher: the teacher's outputs, or None where no loss listens to a teacher.
      rows: which rows of every batch this process reads; all by default.
      draws: what else depends on chance, (batch, seed, step) -> batch; a pure function.
      renumber: the batch as the student reads it, where its teacher reads other numbers.
    """

    table: TrainingTable
    shape_lengths: tuple[int, ...]
    batch_size: int
    seed: int
    teacher: TeacherOutputs | None = None
    rows: slice | None = None
    draws: Callable[[Any, int, int], Any] | None = None
    renumber: Callable[[Any], Any] | None = None

    @cached_property
    def planned(self) -> Callable[[int], tuple[PlannedBatch, ...]]:
        """``planned(epoch)`` is the batches of an epoch, in order."""

        def plan(epoch: int) -> tuple[PlannedBatch, ...]:
            return plan_epoch(
                self.table.lengths_N,
                self.shape_lengths,
                batch_size=self.batch_size,
                seed=self.seed,
                epoch=epoch,
            )

        return lru_cache(maxsize=2)(plan)

    @property
    def steps_per_epoch(self) -> int:
        return -(-len(self.table) // self.batch_size)

    def __call__(self, step: int) -> tuple[Any, Any]:
        epoch, position = divmod(step, self.steps_per_epoch)
        planned = self.planned(epoch)[position]
        batch_size = self.batch_size
        if self.rows is not None:
            planned = replace(planned, rows=planned.rows[self.rows])
            batch_size = len(range(*self.rows.indices(batch_size)))
        batch = self.table.batch(planned.rows, planned.length, batch_size)
        if self.draws is not None:
            batch = self.draws(batch, self.seed, step)
        said = self.teacher(batch) if self.teacher else None
        return self.renumber(batch) if self.renumber else batch, said

    def of_each_shape(self, start: int, stop: int) -> list[tuple[int, Any, Any]]:
        """Of the steps ``start`` to ``stop - 1`` the first of each shape: its number, batch, and
        what the teacher says of it."""
        first: dict[int, int] = {}
        for step in range(start, stop):
            epoch, position = divmod(step, self.steps_per_epoch)
            first.setdefault(self.planned(epoch)[position].length, step)
            if len(first) == len(self.shape_lengths):  # later epochs need not be planned
                break
        return [(step, *self(step)) for step in first.values()]

    def read(self, start: int, stop: int) -> Iterator[tuple[Any, Any]]:
        """The batches of steps ``start`` to ``stop - 1``, made ahead by a thread."""
        ahead = grain.ReadOptions(num_threads=1, prefetch_buffer_size=4)
        return iter(grain.MapDataset.range(start, stop).map(self).to_iter_dataset(ahead))
