"""A recommender trained through the loop that trains everything else."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax

from distill_jax.core.errors import UserError
from distill_jax.core.fields import check_fields
from distill_jax.core.mesh import check_batch_size, make_mesh, own_rows
from distill_jax.data.histories import Draws, Hiding, HistoryTable
from distill_jax.data.interactions import RankingSplit
from distill_jax.data.plan import choose_lengths
from distill_jax.models.recommenders.build import Recommender
from distill_jax.objectives.ranking_objective import RankingObjective
from distill_jax.training.checkpoint import Checkpoints, silent
from distill_jax.training.diagnose import make_probe
from distill_jax.training.drive import OnNan
from distill_jax.training.feed import Feed, TeacherOutputs
from distill_jax.training.interrupt import StopRequest
from distill_jax.training.layout import Layout
from distill_jax.training.loop import Evaluate, LoopConfig, OnLog, TrainResult, train
from distill_jax.training.optimizer import OptimizerConfig, make_optimizer, static_part
from distill_jax.training.state import Params
from distill_jax.training.step import CompiledStep, make_step

NDCG = "ndcg@10"
ADAM = OptimizerConfig(
    learning_rate=1e-3, schedule="constant", warmup=0.0, weight_decay=0.0, clip_norm=5.0
)


@dataclass(frozen=True)
class FitConfig:
    """How a recommender is trained.

    Attributes:
      epochs: passes over the users.
      eval_every: epochs between evaluations on the validation split.
      batch_size: users of a batch.
      max_shapes: batch lengths, each a compilation. With one, any users share a batch; with more,
        users of like history lengths do, which saves padding.
      optimizer: Adam at a constant rate, as SASRec's authors train it.
      hiding: which items are hidden from a model that finds hidden items.
      select: the validation metric that decides which evaluation was best.
      accumulate: see ``training.step.make_step``.
      log_every: steps between log lines.
      checkpoint_seconds: see ``training.drive.LoopConfig``.
      on_nan: see there.
    """

    epochs: int = 100
    eval_every: int = 1
    batch_size: int = 128
    max_shapes: int = 1
    optimizer: OptimizerConfig = ADAM
    hiding: Hiding = field(default_factory=Hiding)
    select: str = NDCG
    accumulate: int = 1
    log_every: int = 20
    checkpoint_seconds: float = 60.0
    on_nan: OnNan = "stop"

    def __post_init__(self) -> None:
        check_fields(self)
        if min(self.epochs, self.eval_every, self.batch_size, self.max_shapes) < 1:
            raise UserError("epochs, eval_every, batch_size and max_shapes must be at least 1.")

    def feed(
        self,
        recommender: Recommender,
        split: RankingSplit,
        objective: RankingObjective,
        *,
        seed: int,
        teacher: TeacherOutputs | None = None,
        rows: slice | None = None,
    ) -> Feed:
        """The batches of training: a pure function of the step."""
        config = recommender.config
        table = HistoryTable(split, config.task, config.max_length)
        lengths = choose_lengths(
            table.lengths_N, batch_size=self.batch_size, max_shapes=self.max_shapes
        )
        hiding = self.hiding if config.task == "hidden" else None
        draws = Draws(table, hiding, objective.negatives)
        return Feed(table, lengths, self.batch_size, seed, teacher, rows, draws)


def fit(
    recommender: Recommender,
    split: RankingSplit,
    objective: RankingObjective,
    config: FitConfig,
    *,
    seed: int,
    evaluate: Evaluate,
    params: Params | None = None,
    teacher: TeacherOutputs | None = None,
    layout: Layout | None = None,
    on_log: OnLog = lambda step, values: None,
    stop: StopRequest | None = None,
    checkpoints: Checkpoints | None = None,
    say: Callable[[str], None] = silent,
) -> TrainResult:
    """Train a recommender and keep it at its best validation score.

    Args:
      split: only its training part is learned from; ``evaluate`` looks at the validation part.
      objective: from ``resolve_ranking``.
      seed: decides the order of the users, what is drawn, dropout and fresh parameters.
      evaluate: parameters -> validation metrics, among them ``config.select``.
      params: to start from; fresh ones where they are None.
      teacher: what the teacher says of a batch, for objectives that listen to one.
      layout: one program over all devices by default.

    Raises:
      Interrupted, UserError: see ``training.loop.train``.
    """
    layout = layout or Layout(make_mesh())
    objective = objective.trained_on(split.train_counts_I)
    check_batch_size(config.batch_size, layout.mesh, config.accumulate)
    if objective.needs_teacher and teacher is None:
        raise UserError(f"{objective.objective}: there is no teacher to listen to.")
    rows = own_rows(layout.mesh, config.batch_size) if jax.process_count() > 1 else None
    feed = config.feed(recommender, split, objective, seed=seed, teacher=teacher, rows=rows)
    key = jax.random.key(seed)
    params = recommender.init(key) if params is None else params
    loss_params = objective.init_params(jax.random.fold_in(key, 1))
    optimizer = make_optimizer(static_part(config.optimizer))
    return train(
        layout.new_state(params, loss_params, optimizer),
        _compiled(recommender, objective, config, layout),
        feed,
        objective=objective,
        optimizer=config.optimizer,
        loop=LoopConfig(
            steps=config.epochs * feed.steps_per_epoch,
            eval_every=config.eval_every * feed.steps_per_epoch,
            log_every=config.log_every,
            select=config.select,
            checkpoint_seconds=config.checkpoint_seconds,
            on_nan=config.on_nan,
        ),
        layout=layout,
        evaluate=evaluate,
        on_log=on_log,
        stop=stop or StopRequest(),
        checkpoints=checkpoints,
        probe=make_probe(recommender, objective),
        say=say,
    )


def _compiled(
    recommender: Recommender, objective: RankingObjective, config: FitConfig, layout: Layout
) -> CompiledStep:
    """A step that runs of one structure share, so that another seed or weight compiles nothing."""
    statics = static_part(config.optimizer)
    skips = config.on_nan == "skip"
    return _shared_step(recommender, objective, statics, config.accumulate, skips, layout)


@functools.lru_cache(maxsize=8)
def _shared_step(
    recommender: Recommender,
    objective: RankingObjective,
    optimizer: OptimizerConfig,
    accumulate: int,
    skips: bool,
    layout: Any,
) -> CompiledStep:
    step = make_step(
        recommender,
        objective,
        make_optimizer(optimizer),
        accumulate=accumulate,
        axis=layout.axis,
        gathered=layout.gathered,
        skip_nonfinite=skips,
    )
    return layout.compile(step)
