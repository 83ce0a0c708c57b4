"""One stage of one run, ready to be trained: all that the engine has to know of it."""

import dataclasses
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from distill_jax.core.errors import UserError
from distill_jax.core.mesh import Placement
from distill_jax.data.plan import TrainingTable
from distill_jax.engine.options import Precision
from distill_jax.models.build import build_model
from distill_jax.models.occurring import OccurringTokens
from distill_jax.models.recommenders.occurring_items import OccurringItems
from distill_jax.objectives.resolve import ResolvedObjective
from distill_jax.training.by_rows import ByRows, can_go_by_rows
from distill_jax.training.checkpoint import Identity
from distill_jax.training.feed import Feed, TeacherOutputs
from distill_jax.training.ingredients.base import Adapted
from distill_jax.training.loop import LoopConfig
from distill_jax.training.optimizer import OptimizerConfig, static_part, trained_count
from distill_jax.training.pruning import Pruning
from distill_jax.training.recipe import PLAIN, Recipe
from distill_jax.training.state import Params

OnBatch = Callable[[], None]
"""Called now and then during an evaluation; raises to stop."""
Evaluate = Callable[[Params, Mesh, OnBatch], dict[str, float]]
"""(parameters, devices, on_batch) -> validation scores."""
EvaluateMembers = Callable[[Params, Placement, OnBatch], Sequence[dict[str, float]]]
"""(a placed stack of parameters, where it is, on_batch) -> validation scores of each member."""


def compute_dtype(precision: Precision) -> Any:
    """In which a student's layers compute."""
    return jnp.float32 if precision == "f32" else jnp.bfloat16


@dataclass(frozen=True, eq=False)
class Work:
    """One stage of one run.

    Attributes:
      identity: of its cell, for checkpoints and trackers.
      seed: of dropout, of the order of the data and of what is drawn.
      config: of the model, hashable; with ``precision`` what of it is compiled.
      build: (dtype, remat) -> what the step applies: a Flax module, or its like.
      objective, optimizer, loop, batch_size: how it is trained.
      lengths: that batches are padded to.
      table: what is learnt from.
      data: digest of that.
      loss_params: () -> the losses' own parameters before the first step.
      evaluate: gives validation scores, those of ``loop.select`` among them.
      evaluate_members: the same for many at once; without it they are evaluated one by one.
      draws, renumber: see ``Feed``.
      occurring: the tokens that its table holds, where the model has embeddings for more.
      items: those that a batch names, where its loss looks at no others.
      by_rows: how tables of items are trained by rows; found by the engine.
      prefix: of the names of this stage's files.
      pruning: how weights go while it is trained; None where none does.
      recipe: what is done beside the objective.
      embeddings: where the model's embeddings of tokens are, see ``Family``.
      own_program: whether what is compiled holds more than ``structure`` tells: arrays of the
        model, or how this table's rows are numbered. No other table may have it.
    """

    identity: Identity
    seed: int
    config: Hashable
    build: Callable[[Any, bool], Any]
    objective: ResolvedObjective
    optimizer: OptimizerConfig
    loop: LoopConfig
    batch_size: int
    lengths: tuple[int, ...]
    table: TrainingTable
    data: str
    loss_params: Callable[[], Params]
    evaluate: Evaluate
    evaluate_members: EvaluateMembers | None = None
    draws: Callable[[Any, int, int], Any] | None = None
    renumber: Callable[[Any], Any] | None = None
    occurring: OccurringTokens | None = None
    items: OccurringItems | None = None
    by_rows: ByRows | None = None
    precision: Precision = "f32"
    prefix: str = ""
    pruning: Pruning | None = None
    recipe: Recipe = PLAIN
    embeddings: tuple[str, ...] = ()
    own_program: bool = False

    @property
    def steps(self) -> int:
        """Optimiser steps in all."""
        return self.loop.steps

    @property
    def selects(self) -> bool:
        """Whether the best step on validation is kept, not the last one."""
        return self.loop.select is not None

    @property
    def structure(self) -> tuple[Any, ...]:
        """What is compiled, beside the shapes of its batches."""
        pruning = self.pruning and self.pruning.static
        optimizer = static_part(self.optimizer)
        by_rows = self.by_rows is not None
        return self.config, self.objective, optimizer, self.precision, pruning, self.recipe, by_rows

    @property
    def order(self) -> tuple[int, str]:
        """Works with the same of this see the same batches."""
        return self.seed, self.data

    def feed(self, teacher: TeacherOutputs | None, rows: slice | None = None) -> Feed:
        """The batches, or some rows of each, a pure function of the step."""
        said = teacher if self.objective.needs_teacher else None
        return Feed(
            self.table,
            self.lengths,
            self.batch_size,
            self.seed,
            said,
            rows,
            self.draws,
            self.renumber,
        )

    def of_occurring(self, start: Params) -> tuple["Work", Params, Callable[[Params], Params]]:
        """The same work on a model of the tokens that occur alone, where that is smaller; its
        parameters; and the way back to those of the whole model.

        Args:
          start: parameters before the first step.
        """
        if (tokens := self.occurring) is None:
            return self, start, lambda params: params
        whole = partial(tokens.whole, before=start)

        def evaluate(params: Params, mesh: Mesh, on_batch: OnBatch) -> dict[str, float]:
            return self.evaluate(whole(params), mesh, on_batch)

        config = dataclasses.replace(self.config, vocab_size=tokens.count)  # type: ignore[type-var]
        build = partial(build_model, config)
        smaller = dataclasses.replace(
            self, config=config, build=build, evaluate=evaluate, renumber=tokens.renumber
        )
        return smaller, tokens.cut(start), whole

    def of_rows(self, params: Params) -> "Work":
        """The same work by rows, where it can be and a batch touches few of them.

        Args:
          params: of the model, or their shapes.
        """
        plain = self.pruning is None and not self.recipe and self.precision != "bf16-params"
        if self.items is None or not plain or not can_go_by_rows(self.optimizer):
            return self
        tables = self.items.tables(params)
        by_rows = ByRows(tables, static_part(self.optimizer), self.items.renumber)
        return dataclasses.replace(self, by_rows=by_rows, own_program=True)

    def adapted(self, start: Params) -> tuple["Work", Params, Callable[[Params], Params]]:
        """The same work on the parameters that its recipe trains instead of the model's; these
        before the first step; and the way back to the model's.

        Args:
          start: the model's before the first step.
        """
        if (adapter := self.recipe.adapter) is None:
            return self, start, lambda params: params
        if self.pruning is not None:
            raise UserError(f"{self.recipe} adds to kernels, and pruned ones must not change so")

        def evaluate(params: Params, mesh: Mesh, on_batch: OnBatch) -> dict[str, float]:
            return self.evaluate(adapter.merged(params), mesh, on_batch)

        def evaluate_members(
            stacked: Params, placement: Placement, on_batch: OnBatch
        ) -> Sequence[dict[str, float]]:
            assert self.evaluate_members is not None
            return self.evaluate_members(jax.vmap(adapter.merged)(stacked), placement, on_batch)

        work = dataclasses.replace(
            self,
            build=lambda dtype, remat: Adapted(self.build(dtype, remat), adapter),
            evaluate=evaluate,
            evaluate_members=evaluate_members if self.evaluate_members else None,
        )
        return work, adapter.start(start, self.seed), adapter.merged

    def trained_parameters(self, params: Params) -> int:
        """How many numbers are trained of a model with such parameters."""
        return trained_count(self.optimizer, self.adapted(params)[1])

    def model(self, *, remat: bool = False) -> Any:
        """What the step applies."""
        return self.build(compute_dtype(self.precision), remat)

    def in_precision(self, params: Params) -> Params:
        """Parameters in the dtype in which they are trained."""
        if self.precision != "bf16-params":
            return params
        return jax.tree.map(lambda x: np.asarray(x).astype(jnp.bfloat16), params)
