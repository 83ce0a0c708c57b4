"""New examples for a finished run: read as its own are, beside some of its own again."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from distill_jax.core.digests import digest, digest_strings, unit_interval
from distill_jax.core.errors import UserError
from distill_jax.core.files import home
from distill_jax.data.coverage import Coverage
from distill_jax.data.load_images import is_images
from distill_jax.data.new_data import apart, keys_by_split, keys_of_images, new_images
from distill_jax.data.splits import text_keys
from distill_jax.data.table import Dataset
from distill_jax.data.tokenise import TokenTable
from distill_jax.tasks.classification.cells import DataConfig
from distill_jax.tasks.classification.runs import ClassifierRun
from distill_jax.tasks.classification.splits import Examples, Splits


@dataclass(frozen=True, eq=False)
class NewData:
    """What is new, in the classes of the run.

    Attributes:
      config: where it was found.
      train: labels are -1 where there are none.
      validation, test: all labelled; None where there are none.
      digest: of its content, as the run's models read it.
      notes: what was decided about it.
      coverage: see ``Splits``.
      test_texts: see ``Splits``.
      seen: see ``ClassifierRun``.
    """

    config: DataConfig
    train: Examples
    validation: Examples | None
    test: Examples | None
    digest: str
    notes: tuple[str, ...] = ()
    coverage: Mapping[str, Coverage] = dataclasses.field(default_factory=dict)
    test_texts: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict, repr=False)
    seen: Mapping[str, frozenset[str]] = dataclasses.field(default_factory=dict, repr=False)

    @property
    def labels(self) -> int:
        """How many training examples have one."""
        return int((self.train.labels_N >= 0).sum())


def load_new_data(config: DataConfig, run: ClassifierRun) -> NewData:
    """New examples, told apart from the run's own.

    Args:
      config: with the name of the new data and its columns.
      run: whose classes, tokeniser and maximal length count, and all that it has seen.

    Raises:
      UserError: they are of another kind than the run's, nothing of them is new, or they have a
        label that the run does not know.
    """
    names, own = run.splits.label_names, run.splits.config
    if is_images(config.name) != is_images(own.name):
        raise UserError(f"data {config.name!r} and {own.name!r}: one is images, the other texts")
    if is_images(config.name):
        tables, notes = new_images(config.name, names)
        tables, told = apart(tables, run.seen, keys_of_images)
        size, seen = tables["train"].image, run.splits.everything.image
        if size != seen:
            raise UserError(f"new images of {size}, the run's are {seen} (height, width, channels)")
        found = Dataset("new", names, tables)
        return NewData(
            config,
            tables["train"],
            tables.get("validation"),
            tables.get("test"),
            found.digest,
            (*notes, *told),
            seen=keys_by_split(tables, keys_of_images),
        )
    return _new_texts(config, run)


def _new_texts(config: DataConfig, run: ClassifierRun) -> NewData:
    names, own, kind = run.splits.label_names, run.splits.config, run.splits.kind
    tables, notes = kind.load_new(config, names)
    if (tables["train"].texts_b is None) != (_columns(run.splits) == 1):
        raise UserError(f"{config.name} and {own.name}: one has pairs, the other has not")
    tables, told = apart(tables, run.seen, text_keys)
    tokenizer_file = run.teacher.pretrained.tokenizer_file
    assert tokenizer_file is not None, "the run reads texts"
    tokens = kind.tokenise(
        Dataset("new", names, tables),
        tokenizer_file,
        own.max_length,
        home() / "tokens",
    )
    ready = {
        split: kind.ready(_with_targets(table, run.splits.everything), run.splits.fitted)
        for split, table in tokens.splits.items()
    }
    test = tables.get("test")
    columns = [] if test is None else [test.texts, *([test.texts_b] if test.texts_b else [])]
    texts = dict(zip(test.ids, zip(*columns, strict=True), strict=True)) if test else {}
    return NewData(
        config,
        ready["train"],
        ready.get("validation"),
        ready.get("test"),
        tokens.digest,
        (*notes, *told),
        tokens.coverage,
        texts,
        keys_by_split(tables, text_keys),
    )


def _columns(splits: Splits) -> int:
    """How many texts an example has."""
    return len(next(iter(splits.test_texts.values())))


def _with_targets(table: TokenTable, old: Examples) -> TokenTable:
    """A table of which nothing is labelled, with targets of which nothing is read, as the old one
    has some."""
    given = old.targets
    if given is None or table.targets is not None:
        return table
    return dataclasses.replace(table, targets=np.zeros((len(table), *given.shape[1:]), given.dtype))


def rehearsed(splits: Splits, share: float, new: int, seed: int) -> np.ndarray:
    """int64, ascending: training examples that come again, in the order of a hash of their ids.

    Args:
      share: how many, as a share of the new ones; all where there are fewer.
      new: how many new ones there are.
    """
    ids = splits.everything.ids
    count = min(len(ids), round(share * new))
    drawn_N = np.array([unit_interval(f"rehearse/{seed}/{example}") for example in ids])
    return np.sort(np.argsort(drawn_N, kind="stable")[:count])


def splits_of_new(new: NewData, splits: Splits) -> Splits:
    """The new examples alone, as the run's own are; test and validation are the run's where the
    new data has none."""
    return dataclasses.replace(
        splits,
        config=new.config,
        labelled=new.train.take(np.flatnonzero(new.train.labels_N >= 0)),
        everything=new.train,
        validation=splits.validation if new.validation is None else new.validation,
        test=splits.test if new.test is None else new.test,
        few_lengths=_longer(splits.few_lengths, new),
        digest=new.digest,
        labels_digest=new.digest,
        tokens_digest=new.digest,
        notes=new.notes,
        coverage=new.coverage,
        test_texts=new.test_texts,
    )


def mixed(splits: Splits, rows: np.ndarray, new: NewData) -> Splits:
    """Some of the run's training examples, then the new ones, whose ids begin with ``new/``; the
    validation examples of both; the run's test.

    Args:
      rows: of ``splits.everything``.
    """
    kind = splits.kind
    train = kind.renamed(new.train, "new/")
    if len(rows):
        train = splits.everything.take(rows).joined(train)  # type: ignore[arg-type]
    validation = splits.validation
    if new.validation is not None:
        validation = validation.joined(kind.renamed(new.validation, "new/"))  # type: ignore
    again = [splits.everything.ids[row] for row in rows]
    content = digest({"old": splits.digest, "again": digest_strings(again), "new": new.digest})
    return dataclasses.replace(
        splits,
        labelled=train.take(np.flatnonzero(train.labels_N >= 0)),
        everything=train,
        validation=validation,
        few_lengths=_longer(splits.few_lengths, new),
        digest=content,
        labels_digest=content,
        tokens_digest=content,
    )


def grown(splits: Splits, new: NewData, prefix: str) -> Splits:
    """All that there was and all that was new, as what the next new data come to.

    Args:
      prefix: the ids of what was new begin with it.
    """

    def both(table: Examples, more: Examples | None) -> Examples:
        if more is None:
            return table
        return table.joined(splits.kind.renamed(more, prefix))  # type: ignore[arg-type]

    everything = both(splits.everything, new.train)
    digests: dict[str, Any] = {
        name: digest({"old": getattr(splits, name), "new": new.digest})
        for name in ("digest", "labels_digest", "tokens_digest")
    }
    covered = {
        split: own.joined(new.coverage[split]) if split in new.coverage else own
        for split, own in splits.coverage.items()
    }
    texts = {f"{prefix}{example}": told for example, told in new.test_texts.items()}
    return dataclasses.replace(
        splits,
        labelled=everything.take(np.flatnonzero(everything.labels_N >= 0)),
        everything=everything,
        validation=both(splits.validation, new.validation),
        test=both(splits.test, new.test),
        few_lengths=_longer(splits.few_lengths, new),
        coverage=covered,
        test_texts={**splits.test_texts, **texts},
        **digests,
    )


def _longer(lengths: tuple[int, ...], new: NewData) -> tuple[int, ...]:
    """Batch lengths that hold the new examples too."""
    tables = [table for table in (new.train, new.validation, new.test) if table is not None]
    longest = max(int(table.lengths_N.max()) for table in tables)
    return lengths if longest <= lengths[-1] else (*lengths, longest)
