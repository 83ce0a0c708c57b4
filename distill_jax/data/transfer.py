"""More text for the teacher to speak on, and labels made wrong on purpose."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from distill_jax.core.digests import unit_interval
from distill_jax.core.errors import UserError
from distill_jax.core.files import user_path
from distill_jax.data.files import load_unlabelled
from distill_jax.data.labels import CLASSES, LabelColumn
from distill_jax.data.load import load_dataset
from distill_jax.data.splits import concatenate, text_keys
from distill_jax.data.table import TextDataset


def load_more(
    spec: str,
    *,
    text: str = "sentence",
    text_b: str | None = None,
    labels: LabelColumn = CLASSES,
) -> TextDataset:
    """Training texts of another data set. Files need no label, no validation and no test.

    Args:
      spec: see ``load_dataset``.
      text, text_b: columns of files and of TFDS sets.
      labels: as those of texts like these are read.

    Raises:
      UserError: it is not there, or not as expected.
    """
    kind, _, rest = spec.partition(":")
    if kind == "files" and rest:
        folder = user_path(rest)
        train, notes = load_unlabelled(folder, text=text, text_b=text_b, labels=labels)
        return TextDataset(f"files:{folder}", (), {"train": train}, notes)
    return load_dataset(spec, text=text, text_b=text_b)


def add_texts(dataset: TextDataset, others: Sequence[TextDataset]) -> TextDataset:
    """The data set with the training texts of others in its transfer set.

    Their labels are dropped. Texts that stand in any split of ``dataset`` are left out, so that
    no test sentence is ever spoken on.

    Raises:
      UserError: when one has pairs of sentences and another has not.
    """
    known = {key for table in dataset.splits.values() for key in text_keys(table)}
    train = dataset.splits["train"]
    notes = list(dataset.notes)
    for other in others:
        extra = other.splits["train"]
        if (extra.texts_b is None) != (train.texts_b is None):
            raise UserError(f"{other.name} and {dataset.name}: one has pairs, the other has not")
        rows = []
        for row, key in enumerate(text_keys(extra)):
            if key not in known:
                known.add(key)
                rows.append(row)
        new = extra.take(rows)
        ids = tuple(f"{other.name}#{each}" for each in new.ids)
        train = concatenate(train, dataclasses.replace(new, ids=ids, labels_N=None, targets=None))
        notes.append(f"{len(rows)} texts of {other.name} joined the transfer set")
    return dataclasses.replace(
        dataset, splits={**dataset.splits, "train": train}, notes=tuple(notes)
    )


def noisy_labels(
    ids: Sequence[str], labels_N: np.ndarray, share: float, num_labels: int, *, seed: int = 0
) -> np.ndarray:
    """Labels of which a share is replaced by another class, each other class as likely.

    Which ones, and by what, is a hash of the example's id and of ``seed``, another of which is
    another draw: the wrong labels at a smaller share are among those at a larger one. Rows without
    a label stay.
    """
    draw = f"{seed}/" if seed else ""
    wrong_N = np.fromiter(
        (unit_interval(f"noise/{draw}{example}") < share for example in ids), bool, len(ids)
    )
    others = (unit_interval(f"noisy class/{draw}{example}") for example in ids)
    other_N = np.fromiter((int(unit * (num_labels - 1)) for unit in others), np.int64, len(ids))
    shifted_N = (labels_N + 1 + other_N) % num_labels
    return np.where(wrong_N & (labels_N >= 0), shifted_N, labels_N).astype(np.int32)
