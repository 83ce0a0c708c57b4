"""How the teacher of ``compare-losses`` is fine-tuned: the flags, and what stands in for them."""

import dataclasses
from typing import TYPE_CHECKING

from distill_jax.cli.compare_flags import CompareLosses
from distill_jax.core.errors import UserError

if TYPE_CHECKING:
    from distill_jax.tasks.classification.cells import TrainingConfig

EPOCHS, RATE = 3.0, 1e-4
MIN_STEPS, PATIENCE, EVALUATIONS = 300, 3, 10
RATES, RATES_WITHIN = (1e-4, 2e-4), 1000
"""Of the user's own data; committed tables rest on ``EPOCHS`` and ``RATE`` alone."""


def teacher_training(
    args: CompareLosses, training: "TrainingConfig", own: bool
) -> "TrainingConfig":
    """The teacher's fine-tuning.

    Args:
      training: of the students, for what is the same.
      own: whether the data are the user's.
    """
    from distill_jax.training.optimizer import OptimizerConfig

    epochs = EPOCHS if args.teacher_epochs is None else args.teacher_epochs
    min_steps, patience = args.teacher_min_steps, args.teacher_patience
    if min_steps is None:  # passes given by hand are just these
        min_steps = MIN_STEPS if own and args.teacher_epochs is None else 0
    if patience is None:
        patience = PATIENCE if own else 0
    evaluations = max(1, round(epochs)) if 0 < epochs < 99 else 1
    if own or min_steps or patience:
        evaluations = EVALUATIONS
    rate = RATE if args.teacher_learning_rate is None else args.teacher_learning_rate
    return dataclasses.replace(
        training,
        epochs=epochs,
        steps=0,
        min_steps=min_steps,
        patience=patience,
        batch_size=args.teacher_batch_size,
        evaluations=evaluations,
        jitter=args.teacher_jitter,
        optimizer=OptimizerConfig(learning_rate=rate),
    )


def teacher_rates(args: CompareLosses, own: bool) -> tuple[tuple[float, ...], int]:
    """Learning rates to choose from, and up to how many steps that is done; 0 for any number.

    Raises:
      UserError: where one rate and several are given.
    """
    if args.teacher_rates and args.teacher_learning_rate is not None:
        raise UserError("--teacher-learning-rate and --teacher-rates are given; leave one out")
    if own and args.fine_tune and not args.teacher_rates and args.teacher_learning_rate is None:
        return RATES, RATES_WITHIN
    return args.teacher_rates, 0
