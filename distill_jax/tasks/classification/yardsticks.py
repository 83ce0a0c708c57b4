"""Yardsticks of a table: what the same labels give without a teacher, as rows of the ledger."""

import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from distill_jax.core.digests import digest
from distill_jax.core.distributed import is_lead
from distill_jax.core.errors import UserError, unknown
from distill_jax.data.load_images import is_images
from distill_jax.data.subsets import labelled_rows
from distill_jax.data.table import TextDataset, TextTable
from distill_jax.engine.merge import rows_in
from distill_jax.engine.rows import ledger_row
from distill_jax.engine.sweep import Entry
from distill_jax.evaluation.yardsticks import (
    Columns,
    Fitted,
    Regression,
    text_features,
)
from distill_jax.tables.ledger import Ledger, LedgerRow
from distill_jax.tables.names import PIXELS, USED, YARDSTICK
from distill_jax.tables.spec import Place
from distill_jax.tasks.classification.cells import ClassifierCell, ClassifierSetup, DataConfig
from distill_jax.tasks.classification.runs import evidence
from distill_jax.tasks.classification.splits import Examples, Splits, load_texts

if TYPE_CHECKING:
    from distill_jax.tasks.classification.supplies import Supplies


@dataclass(frozen=True)
class Yardstick:
    """A row that needs no teacher.

    Attributes:
      student: its name, that of the row.
      data: what is learnt from.
      data_digest: content of data and choice of labels, as of a teacher.
      select: what decides on validation.
      recipe: of a linear model; None where nothing is fitted.
    """

    student: str
    data: DataConfig
    data_digest: str
    select: str = "accuracy"
    recipe: Regression | None = None

    @property
    def hash(self) -> str:
        """Content digest; what the data are called does not count."""
        fields = {k: v for k, v in dataclasses.asdict(self).items() if k != "data"}
        return digest({YARDSTICK: fields})


@dataclass(frozen=True, eq=False)
class Placed:
    """A yardstick, where it stands, and the examples that it is measured on."""

    yardstick: Yardstick
    place: Place
    splits: Splits


def check_references(names: Sequence[str]) -> None:
    """Raises ``UserError`` for other names than ``YARDSTICK``, which stands for both."""
    for name in names:
        if name != YARDSTICK:
            raise unknown("reference", name, [YARDSTICK])


def yardsticks_of(
    entries: Sequence[Entry[ClassifierSetup]], task_of: Callable[[ClassifierCell], Splits]
) -> list[Placed]:
    """At most two for each data set and choice of labels, at the first seed that trains on it."""
    planned: dict[str, Placed] = {}
    for entry in entries:
        splits = task_of(entry.cell)
        for yardstick in _of(splits, entry.cell.training.select):
            hash_ = yardstick.hash
            place = Place(yardstick.student, YARDSTICK, entry.cell.seed, hash_)
            planned.setdefault(hash_, Placed(yardstick, place, splits))
    return sorted(planned.values(), key=lambda each: each.yardstick.recipe is not None)


def _of(splits: Splits, select: str) -> list[Yardstick]:
    """The best answer to all examples alike, and a linear model, as far as the kind has them."""
    kind, config, content = splits.kind, splits.config, splits.labels_digest
    found = []
    if kind.constant(splits.labelled, splits.label_names) is not None:
        found.append(Yardstick(kind.constant_name, config, content))
    if kind.fitted_name is not None:
        fitted = PIXELS if is_images(config.name) else kind.fitted_name
        found.append(Yardstick(fitted, config, content, select, Regression()))
    return found


def measure(
    entries: Sequence[Entry[ClassifierSetup]], supplies: "Supplies", ledger: Ledger
) -> list[Place]:
    """Fit what is not in the ledger yet, a row each; in parts of a table each has one owner.

    Returns:
      Where all of them stand, those of other parts too.
    """
    engine = supplies.engine
    planned = yardsticks_of(entries, lambda cell: supplies.of(cell)[0])
    finished = rows_in(ledger.path.parent)
    texts_of = lru_cache(1)(load_texts)
    for each in planned:
        hash_ = each.yardstick.hash
        if not is_lead() or not engine.options.share.holds(hash_):
            continue
        if (row := finished.get(hash_)) is None:
            row = _measured(each, supplies.experiment, texts_of, engine.check_stop)
            ledger.append(row)
        draw = each.yardstick.data.label_seed
        shown = f" (labels {draw})" if draw else ""
        engine.reporter.say(f"yardstick {row.row}{shown}: {each.splits.kind.told(row.metrics)}")
        used, there = (row.metrics.get(f"train/{name}") for name in USED)
        if used is not None and there is not None and used < there:
            engine.reporter.say(f"yardstick {row.row}: fitted to {used:,} of {there:,} labels")
    return [each.place for each in planned]


def _measured(
    planned: Placed,
    experiment: str,
    texts_of: Callable[[DataConfig], TextDataset],
    check_stop: Callable[[], None],
) -> LedgerRow:
    """Fit it, choose on validation, and read the test split once."""
    started = time.perf_counter()
    yardstick, splits = planned.yardstick, planned.splits
    kind, labelled = splits.kind, splits.labelled
    fitted = _constant(splits, labelled)
    if yardstick.recipe is not None:
        share = yardstick.recipe.share(len(labelled), len(splits.label_names))
        if share < 1:
            labelled = labelled.take(labelled_rows(labelled, share, salt=YARDSTICK))
        fitted = _regression(yardstick, yardstick.recipe, splits, labelled, texts_of, check_stop)
    seconds = time.perf_counter() - started
    calibrated = kind.calibrate(fitted.validation_NC, splits.validation, splits.fitted)
    metrics = kind.measured(fitted.test_NC, splits.test, splits.fitted, calibrated, None)
    chosen = kind.scores(fitted.validation_NC, splits.validation, splits.fitted)
    metrics |= {f"validation/{name}": chosen[name] for name in kind.decides.values()}
    metrics |= {f"train/{USED[0]}": len(labelled), f"train/{USED[1]}": len(splits.labelled)}
    metrics = {name: value for name, value in metrics.items() if not math.isnan(value)}
    config = {**dataclasses.asdict(yardstick), "seed": splits.config.label_seed}
    return ledger_row(
        hash=yardstick.hash,
        experiment=experiment,
        row=yardstick.student,
        group=YARDSTICK,
        seed=splits.config.label_seed,
        config=config if fitted.chosen is None else {**config, "chosen": fitted.chosen},
        metrics=metrics,
        fingerprints={"labels": splits.labels_digest, "tokens": splits.tokens_digest},
        training={"seconds": {"train": seconds, "total": seconds}},
        **evidence(splits, fitted.test_NC, calibrated, []),
    )


def _constant(splits: Splits, labelled: Examples) -> Fitted:
    """The same answer to every example of validation and test."""
    answer_C = splits.kind.constant(labelled, splits.label_names)
    assert answer_C is not None

    def always(table: Examples) -> np.ndarray:
        tokens = [int(table.lengths_N.max())] if splits.kind.head == "tokens" else []
        return np.broadcast_to(answer_C, (len(table), *tokens, len(answer_C)))

    return Fitted(None, always(splits.validation), always(splits.test))


def _regression(
    yardstick: Yardstick,
    recipe: Regression,
    splits: Splits,
    labelled: Examples,
    texts_of: Callable[[DataConfig], TextDataset],
    check_stop: Callable[[], None],
) -> Fitted:
    """A linear model on the pixels or the texts of the examples."""
    tables = {"train": labelled, "validation": splits.validation, "test": splits.test}
    classes = len(splits.label_names)
    features: list[Any]
    if labelled.features_NF is not None:
        features = [table.features_NF for table in tables.values()]
    else:
        dataset = texts_of(splits.config)
        texts = [_columns(dataset.splits[name], table.ids) for name, table in tables.items()]
        if not any(text.strip() for column in texts[0] for text in column):
            return _constant(splits, labelled)
        features = text_features(recipe, texts[0], texts[1:], classes)
    kind = splits.kind
    metric = kind.metric_of(yardstick.select)

    def score(said: np.ndarray) -> float:
        value = kind.scores(said, splits.validation, splits.fitted)[metric]
        if math.isnan(value):  # one answer to all
            return -math.inf
        return -value if metric in kind.lower else value

    return kind.regressed(recipe, labelled, features, splits.label_names, score, check_stop)


def _columns(table: TextTable, ids: Sequence[str]) -> Columns:
    """The texts of these examples, in their order; one column or two."""
    rows = {name: row for row, name in enumerate(table.ids)}
    try:
        chosen = [rows[name] for name in ids]
    except KeyError as error:
        raise UserError(f"the data changed while they were in use: no example {error}") from error
    columns = [table.texts] if table.texts_b is None else [table.texts, table.texts_b]
    return [[column[row] for row in chosen] for column in columns]
