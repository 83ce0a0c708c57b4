"""A teacher that is no model: a file of what somebody said of the examples, ``file:PREDICTIONS``;
and nobody at all, ``none``.

The student's tokeniser is then that of ``TeacherConfig.tokenizer``, a checkpoint whose layers
copied students start from.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any, ClassVar

import numpy as np

from distill_jax.core.digests import digest, digest_arrays, digest_strings
from distill_jax.core.errors import UserError
from distill_jax.core.files import user_path
from distill_jax.core.types import Batch, Capture, ModelOutput
from distill_jax.engine.engine import Engine
from distill_jax.engine.options import Precision
from distill_jax.tasks.classification.cells import DataConfig, TeacherConfig
from distill_jax.tasks.classification.label_map import Order, order_of
from distill_jax.tasks.classification.models import Checkpoint
from distill_jax.tasks.classification.splits import Examples, Splits, load_texts, with_more_texts
from distill_jax.tasks.classification.teacher import Teacher
from distill_jax.teachers.predictions import Key, Predictions, read_predictions
from distill_jax.teachers.recited import Recited
from distill_jax.training.feed import TeacherOutputs

INSTEAD = "name the classes as the data do"
"""What else one can do about classes that do not fit."""


@dataclass(frozen=True, eq=False)
class Words:
    """What is known of examples.

    Attributes:
      row_of: an example's key -> its row.
      logits_NC: float32.
      key_of: an example's id -> its key; of one that has none it raises ``KeyError``.
    """

    row_of: Mapping[Key, int]
    logits_NC: np.ndarray
    key_of: Callable[[str], Key]

    def on(self, ids: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Logits [N, C] of examples, 0 where nothing is known; and bool [N], where something is."""
        rows = [self._row(example) for example in ids]
        rows_N = np.asarray(rows, np.int64)
        heard_N = rows_N >= 0
        logits_NC = np.zeros((len(ids), self.logits_NC.shape[1]), np.float32)
        logits_NC[heard_N] = self.logits_NC[rows_N[heard_N]]
        return logits_NC, heard_N

    def _row(self, example: str) -> int:
        try:
            return self.row_of.get(self.key_of(example), -1)
        except KeyError:
            return -1

    @cached_property
    def digest(self) -> str:
        """Of keys and logits, whatever their order."""
        keys = sorted(self.row_of, key=str)
        rows = [self.row_of[key] for key in keys]
        words = (word for key in keys for word in (key if isinstance(key, tuple) else (key,)))
        said = digest_arrays({"logits": self.logits_NC[rows]})
        return digest({"keys": digest_strings(words), "said": said})


@dataclass(frozen=True, eq=False)
class FileTeacher(Teacher):
    """A ``Teacher`` whose words are known; ``config`` is that of its pupils' tokeniser.

    Attributes:
      words: of the examples.
    """

    by_id: ClassVar[bool] = True

    words: Words = field(kw_only=True)

    def answers(
        self, engine: Engine, splits: Splits, table: Examples, precision: Precision = "f32"
    ) -> np.ndarray:
        logits_NC, heard_N = self.words.on(table.ids)
        logits_NC[~heard_N] = np.nan
        return logits_NC

    def speaks_of(self, table: Examples) -> np.ndarray:
        return self.words.on(table.ids)[1]

    def on_few(
        self, splits: Splits, forward: Callable[..., ModelOutput]
    ) -> Callable[[Batch], ModelOutput]:
        if not self.words.row_of:  # of students who hear each other alone the mechanics are checked
            return partial(forward, self.config, self.pretrained.params)
        return Recited(*self.words.on(splits.everything.ids))

    def outputs(
        self,
        engine: Engine,
        splits: Splits,
        capture: Capture,
        config: TeacherConfig,
        wider: Splits,
        rows: np.ndarray | None = None,
    ) -> TeacherOutputs:
        if not self.words.row_of:
            raise UserError("there is nobody to listen to: the students had --teacher none")
        return Recited(*self.words.on(splits.everything.ids))


def file_teacher(splits: Splits, pretrained: Checkpoint, config: TeacherConfig) -> FileTeacher:
    """The teacher of a file, checked against the data.

    Args:
      pretrained: whose tokeniser and layers students have.

    Raises:
      UserError: what the file says is damaged, of other classes or of other examples.
    """
    data = splits.config
    path = user_path(config.source.removeprefix("file:"))
    kind = data.kind
    assert kind.spoken is not None, "a cell refuses other tasks"
    said = read_predictions(
        path, text=data.text, text_b=data.text_b, label=data.label, meaning=kind.spoken
    )
    order: Order | None = None
    columns: list[int | None] = list(range(len(said.names)))
    if kind.named:
        order, columns = _order(said, splits.label_names, config)
    logits_NC = said.logits(columns, config.tail)
    if (units := kind.units(None, splits.fitted)) is not None:
        logits_NC = logits_NC * np.float32(units[0]) + np.float32(units[1])
    key_of: Callable[[str], Key] = str
    if said.by == "text":
        texts = texts_by_id(data)
        key_of = texts.__getitem__
    row_of = {key: row for row, key in enumerate(said.keys)}
    words = Words(row_of, logits_NC, key_of)
    _check_silence(words, splits, config)
    return _teacher(
        splits,
        dataclasses.replace(pretrained, order=order),
        words,
        told(said, words, splits, config),
    )


def nobody(splits: Splits, pretrained: Checkpoint) -> FileTeacher:
    """A teacher who says nothing, for students of labels alone."""
    words = Words({}, np.zeros((0, len(splits.label_names)), np.float32), str)
    return _teacher(splits, pretrained, words, [])


def told(said: Predictions, words: Words, splits: Splits, config: TeacherConfig) -> list[str]:
    """What a person should know of the file, line by line."""
    heard = {
        "training": words.on(splits.everything.ids)[1],
        "validation": words.on(splits.validation.ids)[1],
        "test": words.on(splits.test.ids)[1],
    }
    shares = [f"{each.sum():,} of {len(each):,} {name}" for name, each in heard.items()]
    lines = [
        f"{said.path.name}: {said.kind} by {said.by}, of {', '.join(shares)} examples; digest "
        f"{words.digest}"
    ]
    lacking = int((~heard["training"]).sum())
    if lacking:
        lines.append(
            f"{said.path.name} says nothing of {lacking:,} training examples: nobody listens there"
        )
    classes = len(splits.label_names)
    if said.partial and said.most_named < classes:
        rest = {
            "spread": "is spread evenly over the classes it does not name",
            "drop": "is dropped: the classes it does not name have next to none",
        }[config.tail]
        lines.append(
            f"{said.path.name} names up to {said.most_named} of {classes} classes a row; the rest "
            f"of the probability {rest}"
        )
    return lines


def texts_by_id(data: DataConfig) -> dict[str, Key]:
    """An example's id -> its text, or its two, of all splits."""
    dataset = with_more_texts(data, load_texts(data))
    found: dict[str, Key] = {}
    for table in dataset.splits.values():
        if table.texts_b is None:
            found |= zip(table.ids, table.texts, strict=True)
        else:
            pairs = zip(table.texts, table.texts_b, strict=True)
            found |= zip(table.ids, pairs, strict=True)
    return found


def _teacher(
    splits: Splits, pretrained: Checkpoint, words: Words, notes: Sequence[str]
) -> FileTeacher:
    config: Any = pretrained.config
    own = digest({"words": words.digest, "pretrained": pretrained.digest})
    return FileTeacher(
        pretrained,
        config,
        None,
        own,
        None,
        {"notes": list(notes), "predictions": words.digest},
        splits.label_names,
        words=words,
    )


def _order(
    said: Predictions, label_names: Sequence[str], config: TeacherConfig
) -> tuple[Order, list[int | None]]:
    """Which column of the file is which class of the data; None for one that it never names."""
    heads = list(said.names)
    if said.partial and not config.label_map:
        folded = {name.strip().casefold() for name in heads}
        heads += [name for name in label_names if name.strip().casefold() not in folded]
    order = order_of(heads, len(heads), label_names, config.label_map, INSTEAD)
    known = len(said.names)
    return order, [column if column < known else None for column in order.columns]


def _check_silence(words: Words, splits: Splits, config: TeacherConfig) -> None:
    """Raises ``UserError`` for a file that says nothing of too many training examples."""
    heard_N = words.on(splits.everything.ids)[1]
    silent = 1 - float(heard_N.mean())
    if silent > config.most_silent or not heard_N.any():
        missing = splits.everything.ids[int(np.argmin(heard_N))]
        raise UserError(
            f"{config.source} says nothing of {100 * silent:.1f}% of the training examples, "
            f"{missing!r} for one; --teacher-gaps allows {100 * config.most_silent:g}%"
        )
