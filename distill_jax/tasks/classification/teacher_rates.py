"""The learning rate of a teacher's fine-tuning, chosen on validation; how its curve ended."""

from collections.abc import Sequence
from typing import Any

from distill_jax.engine.engine import Engine
from distill_jax.engine.strategies import clear_checkpoints
from distill_jax.tasks.classification.cells import ClassifierCell, TrainingConfig
from distill_jax.tasks.classification.models import Checkpoint
from distill_jax.tasks.classification.splits import Splits
from distill_jax.tasks.classification.teacher import Teacher, fine_tuned
from distill_jax.tasks.kinds.kind import Kind
from distill_jax.training.loop import LoopConfig

Scores = dict[str, float]


def best_fine_tuned(
    engine: Engine, splits: Splits, pretrained: Checkpoint, cell: ClassifierCell, name: str
) -> tuple[Teacher, ClassifierCell]:
    """The teacher of a cell, of several learning rates that of the best score on validation.

    Each rate is a run of its own, with its own checkpoints: what is done is not done again.

    Args:
      cell: of the teacher's fine-tuning.
      name: of the teacher, for people.

    Returns:
      The teacher, and the cell of the run that it came from.
    """
    tried = candidates(cell, len(splits.labelled))
    labels = ["fine-tuning the teacher"]
    if len(tried) > 1:
        labels = [f"{labels[0]} at {in_short(rate_of(each))}" for each in tried]
    teachers = [
        fine_tuned(engine, splits, pretrained, each, label)
        for each, label in zip(tried, labels, strict=True)
    ]
    kind = splits.kind
    best = best_of([at_best(teacher.training) for teacher in teachers], cell.training, kind)
    for other in tried[:best] + tried[best + 1 :]:
        clear_checkpoints(engine.run_folder(other.hash, shared=True))
    said = why_this_rate(cell, tried, [at_best(t.training) for t in teachers], best, splits)
    for line in (said, how_it_ended(teachers[best].training, cell.training, kind)):
        if line:
            engine.reporter.say(f"{name}: {line}")
    return teachers[best], tried[best]


def candidates(cell: ClassifierCell, examples: int) -> list[ClassifierCell]:
    """The runs of which the teacher is chosen, one a learning rate; the cell where none is."""
    config = cell.setup.teacher
    if not config.rates or _is_long(cell, examples):
        return [cell]
    return [cell.but(training=cell.training.at_rate(rate)) for rate in config.rates]


def rate_of(cell: ClassifierCell) -> float:
    """The peak learning rate of a run."""
    return cell.training.optimizer.learning_rate


def at_best(training: dict[str, Any]) -> Scores:
    """The validation scores of a teacher at its selected step; {} where nobody kept them."""
    at = training.get("selected_step")
    return next((scores for scores in training.get("history", []) if scores["step"] == at), {})


def best_of(scores: Sequence[Scores], training: TrainingConfig, kind: Kind) -> int:
    """Which scores are the best by what the training selects by; of equals those of the lowest
    loss, then the first."""
    worth = [_merit(each, training, kind) for each in scores]
    return max(range(len(worth)), key=lambda place: worth[place])


def why_this_rate(
    cell: ClassifierCell,
    tried: Sequence[ClassifierCell],
    scores: Sequence[Scores],
    best: int,
    splits: Splits,
) -> str | None:
    """Which learning rate was chosen and why, for people; None where there was no choice."""
    config = cell.setup.teacher
    if config.rates and _is_long(cell, len(splits.labelled)):
        steps = cell.training.total_steps(len(splits.labelled))
        return (
            f"rate {in_short(rate_of(cell))}, not chosen on validation: fine-tuning takes up to "
            f"{steps:,} steps, more than {config.rates_within:,}"
        )
    if len(tried) == 1:
        return None
    kind, select = splits.kind, cell.training.select
    own, *others = scores[best], *scores[:best], *scores[best + 1 :]
    told = f"validation {_named(select)}"
    metric = kind.metric_of(select)
    than = "under" if metric in kind.lower else "over"
    tied = [each for each in others if each.get(metric) == own.get(metric)]
    if tied and metric != kind.decides["loss"]:
        told = f"validation loss at equal {_named(select)}"
        metric, than, others = kind.decides["loss"], "under", tied
    beaten = ", ".join(_shown(each, metric, kind) for each in others)
    rates = ", ".join(in_short(rate_of(each)) for each in tried)
    chosen = in_short(rate_of(tried[best]))
    return f"rate {chosen} of {rates} by {told} {_shown(own, metric, kind)} {than} {beaten}"


def how_it_ended(training: dict[str, Any], config: TrainingConfig, kind: Kind) -> str | None:
    """The end of a teacher's curve in one line; None where nobody kept it."""
    history = training.get("history", [])
    if not at_best(training):
        return None
    steps = int(history[-1]["step"])
    planned = training.get("planned_steps", steps)
    early = f" (ended early, {planned:,} planned)" if steps < planned else ""
    select, metric = config.select, kind.metric_of(config.select)
    line = (
        f"best step {training['selected_step']:,} of {steps:,}{early}, validation "
        f"{_named(select)} {_shown(at_best(training), metric, kind)}"
    )
    worth = [_merit(scores, config, kind)[0] for scores in history]
    since = len(worth) - 1 - worth.index(max(worth))
    if since:
        return f"{line}, flat for the last {since} evaluation{'s' if since > 1 else ''}"
    if len(worth) == 1 or worth[-1] == 1.0:  # no curve, or nothing above
        return line
    way = "falling" if metric in kind.lower else "rising"
    return f"{line}, still {way}: more --teacher-epochs may help"


def in_short(rate: float) -> str:
    """``2e-4``."""
    digits, _, exponent = f"{rate:.6e}".partition("e")
    return f"{digits.rstrip('0').rstrip('.')}e{int(exponent)}"


def _is_long(cell: ClassifierCell, examples: int) -> bool:
    """Whether the fine-tuning is too long to be done several times."""
    within = cell.setup.teacher.rates_within
    return 0 < within < cell.training.total_steps(examples)


def _merit(scores: Scores, training: TrainingConfig, kind: Kind) -> tuple[float, float]:
    """Higher is better: what the training selects by, then a low loss."""
    if not scores:
        return float("-inf"), float("-inf")
    by = LoopConfig(
        1, 1, select=kind.metric_of(training.select), ties=kind.decides["loss"], lower=kind.lower
    )
    return by.merit(scores)


def _named(select: str) -> str:
    return "macro-F1" if select == "macro_f1" else select


def _shown(scores: Scores, metric: str, kind: Kind) -> str:
    return kind.shown(metric, scores.get(metric, float("nan")))
