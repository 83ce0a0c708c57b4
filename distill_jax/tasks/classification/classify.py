"""Classifiers at work: what they say of a table, how they are scored, what their training is."""

from collections.abc import Callable
from functools import lru_cache, partial

import jax
import numpy as np
from jax.sharding import Mesh

from distill_jax.core.mesh import Placement
from distill_jax.data.jitter import Jitter
from distill_jax.engine.options import Precision
from distill_jax.engine.strategies import stage_name
from distill_jax.engine.work import Work, compute_dtype
from distill_jax.evaluation.predict import (
    LogitsOf,
    logits_of,
    population_logits,
    population_logits_of,
    predict_logits,
)
from distill_jax.models.build import build_model
from distill_jax.models.family import ModelConfig, family_of
from distill_jax.models.occurring import OccurringTokens
from distill_jax.objectives.resolve import ResolvedObjective
from distill_jax.tasks.classification.cells import (
    TEACHER,
    ClassifierCell,
    TrainingConfig,
    config_of,
)
from distill_jax.tasks.classification.splits import Examples, Splits
from distill_jax.training.checkpoint import Identity
from distill_jax.training.loop import LoopConfig
from distill_jax.training.recipe import parse_recipe
from distill_jax.training.state import Params


@lru_cache(maxsize=64)
def predictor(config: ModelConfig, precision: Precision = "f32") -> LogitsOf:
    """The compiled forward pass of models of this shape."""
    return logits_of(build_model(config, compute_dtype(precision)))


@lru_cache(maxsize=16)
def _population_predictor(
    config: ModelConfig, precision: Precision, placement: Placement
) -> LogitsOf:
    return population_logits_of(build_model(config, compute_dtype(precision)), placement)


def predict(
    splits: Splits,
    config: ModelConfig,
    params: Params,
    table: Examples,
    *,
    mesh: Mesh,
    on_batch: Callable[[], None] = lambda: None,
    precision: Precision = "f32",
) -> np.ndarray:
    """What a model says of a table, in its order, see ``predict_logits``."""
    return predict_logits(
        predictor(config, precision),
        params,
        table,
        shape_lengths=splits.few_lengths,
        batch_size=splits.evaluation_batch * mesh.size,
        mesh=mesh,
        on_batch=on_batch,
    )


def classifier_work(
    cell: ClassifierCell,
    splits: Splits,
    config: ModelConfig,
    objective: ResolvedObjective,
    training: TrainingConfig,
    steps: int,
    *,
    selects: bool = True,
    number: int = 1,
) -> Work:
    """One stage of a cell.

    Args:
      selects: whether the best step on validation is kept; off for a stage before the last, whose
        end is what counts.
      number: of a stage before the last, from 1.
    """
    kind = splits.kind
    lengths = (
        splits.training_lengths(training) if cell.setup.student != TEACHER else splits.few_lengths
    )
    loop = LoopConfig(
        steps=steps,
        eval_every=max(1, -(-steps // training.evaluations)),
        select=kind.metric_of(training.select) if selects else None,
        ties=kind.decides.get(training.ties),
        lower=kind.lower,
        patience=training.patience if selects else 0,
    )
    table = splits.training_table(with_teacher=objective.needs_teacher)
    jittered = f", jitter {training.jitter}" if training.jitter else ""
    return Work(
        identity=_identity(cell, config),
        seed=cell.seed,
        config=config,
        build=partial(build_model, config),
        objective=objective,
        optimizer=training.moved,
        loop=loop,
        batch_size=training.batch_size,
        lengths=lengths,
        table=table,
        data=f"{splits.digest}{jittered}",
        loss_params=lambda: objective.init_params(jax.random.key(cell.seed)),
        evaluate=partial(_evaluate, splits, config, cell.precision),
        evaluate_members=partial(_evaluate_members, splits, config, cell.precision),
        draws=_draws(table, training),
        occurring=_occurring(config, table),
        precision=cell.precision,
        prefix="" if selects else f"{stage_name(number)}-",
        recipe=parse_recipe(training.recipe),
        embeddings=family_of(config).embeddings,
    )


def _occurring(config: ModelConfig, table: Examples) -> OccurringTokens | None:
    """The tokens of a table, where the model has embeddings for more."""
    path = family_of(config).embeddings
    tokens_R = table.occurring_tokens
    if not path or len(tokens_R) + 1 >= config.token_range.tokens:
        return None
    return OccurringTokens(path, tokens_R)


def _draws(table: Examples, training: TrainingConfig) -> Jitter | None:
    """What of a batch depends on chance beside its order."""
    if not training.jitter:
        return None
    return Jitter(table, training.jitter, -(-len(table) // training.batch_size))


def _identity(cell: ClassifierCell, config: ModelConfig) -> Identity:
    return Identity(cell.hash, config_of(cell, config))


def _evaluate(
    splits: Splits,
    config: ModelConfig,
    precision: Precision,
    params: Params,
    mesh: Mesh,
    on_batch: Callable[[], None],
) -> dict[str, float]:
    """What decides which step is kept, of the model as it is trained."""
    validation = splits.validation
    said = predict(
        splits, config, params, validation, mesh=mesh, on_batch=on_batch, precision=precision
    )
    return splits.kind.scores(said, validation, splits.fitted)


def _evaluate_members(
    splits: Splits,
    config: ModelConfig,
    precision: Precision,
    stacked: Params,
    placement: Placement,
    on_batch: Callable[[], None],
) -> list[dict[str, float]]:
    said_P = population_logits(
        _population_predictor(config, precision, placement),
        stacked,
        splits.validation,
        shape_lengths=splits.few_lengths,
        batch_size=splits.evaluation_batch,
        placement=placement,
        on_batch=on_batch,
    )
    return [_scores(splits, said) for said in said_P]


def _scores(splits: Splits, said: np.ndarray) -> dict[str, float]:
    """Metrics of one member; NaN where it diverged, which nobody reads."""
    kind = splits.kind
    if not np.isfinite(said).all():
        return dict.fromkeys(kind.decides.values(), float("nan"))
    return kind.scores(said, splits.validation, splits.fitted)
