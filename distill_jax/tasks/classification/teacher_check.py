"""Before anything listens to a teacher: does it know more than how often each class occurs, and
are its classes those of the data?"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from scipy.optimize import linear_sum_assignment

from distill_jax.core.errors import UserError
from distill_jax.data.split_files import listed
from distill_jax.engine.engine import Engine
from distill_jax.engine.options import Precision
from distill_jax.tables.cautions import (
    ACCURACY,
    MAJORITY,
    MAJORITY_ON_LABELS,
    ON_LABELS,
    REORDERED,
)
from distill_jax.tasks.classification.label_map import shown_label_map
from distill_jax.tasks.classification.splits import Splits
from distill_jax.tasks.classification.teacher import Teacher

MOST_ROWS = 1000
"""Of the labelled training rows, spread evenly; of validation all are asked about anyway."""
LEAST_GAIN = 0.05
"""A better order of the classes is named from here on, and from three standard errors."""
ERRORS = 3.0


@dataclass(frozen=True, eq=False)
class Said:
    """What a teacher says of rows with labels.

    Attributes:
      said_N: its likeliest class.
      labels_N: the right one.
    """

    said_N: np.ndarray
    labels_N: np.ndarray

    @property
    def accuracy(self) -> float:
        """Share of the rows."""
        return float((self.said_N == self.labels_N).mean())

    @property
    def majority(self) -> float:
        """Accuracy of always saying the class that is commonest here."""
        return float(np.bincount(self.labels_N).max() / len(self.labels_N))

    def told(self) -> str:
        """For people."""
        return f"{100 * self.accuracy:.1f}% (commonest class {100 * self.majority:.1f}%)"


@dataclass(frozen=True, eq=False)
class Checked:
    """What a check found.

    Attributes:
      metrics: for the teacher's row.
      validation: what it says of validation; None where it was not asked.
    """

    metrics: dict[str, float] = field(default_factory=dict)
    validation: np.ndarray | None = None


def check_teacher(
    engine: Engine,
    splits: Splits,
    teacher: Teacher,
    which: str = "",
    known: Mapping[str, float] = {},
    precision: Precision = "f32",
) -> Checked:
    """Ask a teacher about rows whose labels are known, say how it did, and warn or refuse.

    Args:
      which: of several teachers, for people.
      known: the metrics of its row where it has one; a teacher that was found good is not asked
        again.
      precision: in which it speaks.

    Raises:
      UserError: with ``--teacher-check refuse``, for a teacher that is no better on validation
        than the commonest class, or whose classes seem to be in another order.
    """
    say, how = engine.reporter.say, engine.options.teacher_check
    if how == "off":
        return Checked()
    if not splits.kind.has_classes:
        return _beside_constant(engine, splits, teacher, which, precision)
    if ACCURACY in known and known[ACCURACY] > known[MAJORITY] and REORDERED not in known:
        return Checked()
    rows = np.unique(np.linspace(0, len(splits.labelled) - 1, MOST_ROWS).astype(np.int64))
    few, known_validation = (
        table.take(np.flatnonzero(teacher.speaks_of(table)))
        for table in (splits.labelled.take(rows), splits.validation)
    )
    if not len(few) or not len(known_validation):
        say(f"teacher{which}: it says nothing of labelled examples, or of validation: not checked")
        return Checked()
    few_NC, validation_NC = (
        teacher.answers(engine, splits, table, precision) for table in (few, known_validation)
    )
    labelled = Said(few_NC.argmax(axis=-1), few.labels_N)
    validation = Said(validation_NC.argmax(axis=-1), known_validation.labels_N)
    say(
        f"teacher{which}: right in {labelled.told()} of {len(labelled.labels_N):,} labelled "
        f"training rows, {validation.told()} of {len(validation.labels_N):,} of validation"
    )
    both = Said(
        np.concatenate([labelled.said_N, validation.said_N]),
        np.concatenate([labelled.labels_N, validation.labels_N]),
    )
    order = teacher.pretrained.order
    columns_C = better_order(both, len(splits.label_names)) if order else None
    metrics = {
        ACCURACY: validation.accuracy,
        MAJORITY: validation.majority,
        ON_LABELS: labelled.accuracy,
        MAJORITY_ON_LABELS: labelled.majority,
    }
    wrong = []
    if columns_C is not None and order is not None:
        metrics[REORDERED] = float((columns_C[both.said_N] == both.labels_N).mean())
        wrong.append(_in_another_order(splits, order.taken, columns_C, both, metrics[REORDERED]))
    elif not validation.accuracy > validation.majority:
        wrong.append(_no_better(splits, validation, as_it_came=order is not None))
    for each in wrong:
        if how == "refuse":
            raise UserError(f"{each} (--teacher-check warn goes on all the same)")
        say(f"warning: {each}")
    whole = len(known_validation) == len(splits.validation)
    return Checked(metrics, validation_NC if whole else None)


def _beside_constant(
    engine: Engine, splits: Splits, teacher: Teacher, which: str, precision: Precision
) -> Checked:
    """Whether a teacher of another kind of task does better on validation than the one answer to
    all examples that is best on the labels that are used."""
    kind, validation = splits.kind, splits.validation
    spoken = np.flatnonzero(teacher.speaks_of(validation))
    if not len(spoken):
        engine.reporter.say(f"teacher{which}: it says nothing of validation: not checked")
        return Checked()
    whole = len(spoken) == len(validation)
    validation = validation if whole else validation.take(spoken)
    said = teacher.answers(engine, splits, validation, precision)
    constant_C = kind.constant(splits.labelled, splits.label_names)
    if constant_C is None:
        return Checked(validation=said if whole else None)
    always = np.broadcast_to(constant_C, said.shape)
    metric = kind.decides["loss"]
    own, other = (kind.scores(each, validation, splits.fitted)[metric] for each in (said, always))
    shown = f"{kind.shown(metric, own)}, of one answer to all {kind.shown(metric, other)}"
    engine.reporter.say(f"teacher{which}: {metric} on validation {shown}")
    better = own < other if metric in kind.lower else own > other
    if not better:
        wrong = (
            f"the teacher knows no more of validation than one answer to all examples: {metric} "
            f"{shown}. Students would learn noise from it; train it longer, on more labels, or "
            "take another"
        )
        if engine.options.teacher_check == "refuse":
            raise UserError(f"{wrong} (--teacher-check warn goes on all the same)")
        engine.reporter.say(f"warning: {wrong}")
    return Checked(validation=said if whole else None)


def better_order(said: Said, classes: int) -> np.ndarray | None:
    """For each class that is said the class that is meant, where another order fits far better.

    Chance finds a better order of many classes too. So the rows are cut in two; the best order of
    either half is judged on the other. There it must gain ``LEAST_GAIN`` and ``ERRORS`` standard
    errors, and be as many of them above the commonest class: always saying one class is no order.

    Returns:
      [C], a permutation; None where the order as it stands will do.
    """
    half_N = np.random.default_rng(0).permutation(len(said.labels_N)) % 2
    gains, rights = [], []
    for own in (0, 1):
        meant_C = _best_order(said, half_N == own, classes)
        there = half_N != own
        right_N = meant_C[said.said_N[there]] == said.labels_N[there]
        before_N = said.said_N[there] == said.labels_N[there]
        gains.append(right_N.astype(float) - before_N)
        rights.append(right_N.astype(float))
    gain_N, right_N = np.concatenate(gains), np.concatenate(rights)
    if len(gain_N) < 2:
        return None
    if not gain_N.mean() > max(LEAST_GAIN, ERRORS * _error(gain_N)):
        return None
    if not right_N.mean() > said.majority + ERRORS * _error(right_N):
        return None
    return _best_order(said, np.ones(len(gain_N), bool), classes)


def _best_order(said: Said, rows_N: np.ndarray, classes: int) -> np.ndarray:
    """The permutation [C] of most right answers; of classes never said it is as it stands."""
    counts_CC = np.zeros((classes, classes))
    np.add.at(counts_CC, (said.said_N[rows_N], said.labels_N[rows_N]), 1)
    counts_CC += 0.5 / classes * np.eye(classes)  # decides between equals
    return np.asarray(linear_sum_assignment(counts_CC, maximize=True)[1])


def _error(values_N: np.ndarray) -> float:
    """Standard error of the mean."""
    return float(values_N.std(ddof=1) / math.sqrt(len(values_N)))


def _in_another_order(
    splits: Splits, taken: tuple[str, ...], meant_C: np.ndarray, said: Said, accuracy: float
) -> str:
    pairs = [(head, splits.label_names[meant]) for head, meant in zip(taken, meant_C, strict=True)]
    return (
        "the teacher's classes seem to be in another order: "
        f"{listed([f'{head} is {name}' for head, name in pairs])} "
        f"({100 * accuracy:.1f}% right so, {100 * said.accuracy:.1f}% as they stand); "
        f"{shown_label_map(pairs)}"
    )


def _no_better(splits: Splits, said: Said, *, as_it_came: bool) -> str:
    commonest = splits.label_names[int(np.bincount(said.labels_N).argmax())]
    constant = len(set(said.said_N.tolist())) == 1
    always = (
        f" (it says {splits.label_names[int(said.said_N[0])]!r} of every row)" if constant else ""
    )
    way_out = (
        "leave out --no-fine-tune, or see whether its classes are the data's"
        if as_it_came
        else "train it longer, on more labels, or take another"
    )
    return (
        f"the teacher knows no more of validation than that {commonest!r} is the commonest class: "
        f"right in {100 * said.accuracy:.1f}%{always}, always saying so in "
        f"{100 * said.majority:.1f}%. Students would learn noise from it; {way_out}"
    )
