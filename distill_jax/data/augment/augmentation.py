"""An augmentation as text, ``"mask(0.1) + ngram(copies=5)"``, and the copies it makes."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from distill_jax.core.calls import Vocabulary, parse_sum
from distill_jax.core.digests import digest_strings
from distill_jax.core.errors import UserError
from distill_jax.data.augment.base import Augment, Draw, Tools, Words, words_of
from distill_jax.data.augment.kinds import kinds
from distill_jax.data.splits import concatenate, text_keys
from distill_jax.data.table import TextDataset, TextTable

COPY = "#copy-"
"""Between an example's id and what tells its copy: the number, and a digest of the text, so that
copies of other augmentations, or by another list of synonyms, are never taken for these."""


@dataclass(frozen=True)
class Augmentation:
    """Kinds that a copy goes through, one after the other. ``str`` is the canonical text."""

    kinds: tuple[Augment, ...]

    def __str__(self) -> str:
        return " + ".join(map(str, self.kinds))

    @property
    def copies(self) -> int:
        """Of each example."""
        return max((each.copies for each in self.kinds), default=0) or 1

    def check(self, tools: Tools) -> None:
        """Raises ``UserError`` where something that it needs is not there."""
        for each in self.kinds:
            each.check(tools)

    def copy_of(
        self, table: TextTable, texts: Sequence[str], copy: int, tools: Tools, *, side: int = 0
    ) -> list[str | None]:
        """Of each text its copy, None where there is none: a function of example, seed and copy.

        Args:
          texts: of the table, the first or the second of each example.
          copy: its number, from 1.
          side: 0 for first texts, 1 for second ones.
        """
        found: list[Words | None] = [words_of(text) for text in texts]
        for place, kind in enumerate(self.kinds):
            rows = [row for row, words in enumerate(found) if words]
            if not rows:
                break
            ids = [table.ids[row] for row in rows]
            draws = [Draw.of(example, kind.seed, copy, place, side) for example in ids]
            given = [found[row] or [] for row in rows]
            changed = kind.change_all(given, draws, ids, copy, tools)
            for row, words in zip(rows, changed, strict=True):
                found[row] = words
        return [" ".join(words) if words else None for words in found]


def parse_augmentation(text: str) -> Augmentation | None:
    """Reads an augmentation; None for ``""``.

    Raises:
      UserError: with the column of the mistake and, for a name, the nearest one that exists.
    """
    found = parse_sum(text, Vocabulary(kinds(), "augmentation", "mask(0.1)"))
    if not found:
        return None
    if len({each.copies for each in found if each.copies}) > 1:
        raise UserError(
            f"{text!r}: a copy goes through all of it, so there is one number of copies; say it "
            "once"
        )
    return Augmentation(found)


def source_of(example_id: str) -> str:
    """The id of the example whose copy this is; its own where it is none."""
    return example_id.rpartition(COPY)[0] or example_id


def is_copy(example_id: str) -> bool:
    """Whether an id is that of a copy."""
    return COPY in example_id


def augmented(
    dataset: TextDataset,
    augmentation: Augmentation,
    tools: Tools,
    only: Collection[str] | None = None,
) -> TextDataset:
    """The data set with copies of its training texts, which have no labels: the transfer set.

    Copies that are a text of the data already, of whatever split, or another copy, are left out.

    Args:
      only: ids of the training texts that are copied; None for all.

    Raises:
      UserError: where something that the augmentation needs is not there, or where it makes no new
        text of any example.
    """
    train = dataset.splits["train"]
    for kind in augmentation.kinds:
        if train.texts_b is not None and not kind.pairs:
            raise UserError(f"{kind.kind} is of single texts, and the data are pairs of texts")
    augmentation.check(tools)
    known = {key for table in dataset.splits.values() for key in text_keys(table)}
    sources = train
    if only is not None:
        sources = train.take([row for row, each in enumerate(train.ids) if each in only])
    wider, added, left_out = train, 0, 0
    for copy in range(1, augmentation.copies + 1):
        made = _copies(sources, augmentation, copy, tools)
        fresh = []
        for row, key in enumerate(text_keys(made)):
            if key not in known:
                known.add(key)
                fresh.append(row)
        added, left_out = added + len(fresh), left_out + len(sources) - len(fresh)
        wider = concatenate(wider, made.take(fresh))
    if len(sources) and not added:
        raise UserError(
            f"{augmentation} makes no new text of {len(sources):,} training examples: each copy is "
            "a text that is there already, or there is none"
        )
    beside = f"; {left_out:,} were texts that are there already, or had no copy" if left_out else ""
    note = f"{added:,} copies by {augmentation} joined the transfer set{beside}"
    if train.scores_N is not None:  # the examples stay what they are without copies beside them
        scores_N = np.concatenate([train.scores_N, np.full(added, np.nan, train.scores_N.dtype)])
        wider = dataclasses.replace(wider, scores_N=scores_N)
    splits = {**dataset.splits, "train": wider}
    return dataclasses.replace(dataset, splits=splits, notes=(*dataset.notes, note))


def _id(example: str, copy: int, *texts: str | None) -> str:
    return f"{example}{COPY}{copy}-{digest_strings(text or '' for text in texts)}"


def _copies(train: TextTable, augmentation: Augmentation, copy: int, tools: Tools) -> TextTable:
    """One copy of each example that has one."""
    firsts = augmentation.copy_of(train, train.texts, copy, tools)
    seconds: Sequence[str | None] | None = None
    if train.texts_b is not None:
        seconds = augmentation.copy_of(train, train.texts_b, copy, tools, side=1)
    rows = [row for row in range(len(train)) if firsts[row] and (seconds is None or seconds[row])]
    return TextTable(
        ids=tuple(
            _id(train.ids[row], copy, firsts[row], seconds[row] if seconds else None)
            for row in rows
        ),
        texts=tuple(firsts[row] or "" for row in rows),
        texts_b=None if seconds is None else tuple(seconds[row] or "" for row in rows),
    )
