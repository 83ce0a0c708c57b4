"""The examples of an experiment, ready to be batched, with the labels that it may use."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from distill_jax.core.digests import digest
from distill_jax.core.errors import UserError, unknown
from distill_jax.core.files import home
from distill_jax.data.augment.augmentation import augmented, is_copy, parse_augmentation, source_of
from distill_jax.data.augment.base import Tools
from distill_jax.data.clients import rows_of_client
from distill_jax.data.coverage import Coverage, in_words
from distill_jax.data.load_images import load_images
from distill_jax.data.plan import choose_lengths
from distill_jax.data.subsets import labelled_rows
from distill_jax.data.table import TextDataset, TextTable
from distill_jax.data.tokenise import TokenTable
from distill_jax.data.transfer import add_texts, noisy_labels
from distill_jax.objectives.outputs import Outputs
from distill_jax.tasks.classification.cells import DataConfig, TrainingConfig, parse_client
from distill_jax.tasks.kinds.kind import Examples, Kind

FEW_SHAPES = 3
EVALUATION_BATCH = 64
IMAGE_EVALUATION_BATCH = 512
NO_TOOLS = Tools("this model")


@dataclass(frozen=True, eq=False)
class Splits:
    """What a table is trained and tested on.

    Attributes:
      labelled: the training examples whose labels are used.
      everything: those and the transfer set, whose labels are -1.
      validation, test: fully labelled.
      few_lengths: three to five batch lengths, for work too short to be worth more
        compilations: evaluation, and fine-tuning on few labels. The transfer set has no say in
        them, so that the teacher does not depend on it.
      evaluation_batch: examples at a time in evaluation.
      digest: content of all of it, the choice of labels included.
      labels_digest: content of what the teacher is trained on: all but the transfer set.
      tokens_digest: content of the data set before that choice.
      notes: what was decided about the data.
      coverage: of each split's texts, how much is cut or unknown; empty for images.
      test_texts: id -> a test example's text, or its two; empty for images.
      fitted: what the kind of task learnt of the labels that are used, see ``Kind.fit``.
    """

    config: DataConfig
    label_names: tuple[str, ...]
    labelled: Examples
    everything: Examples
    validation: Examples
    test: Examples
    few_lengths: tuple[int, ...]
    evaluation_batch: int
    digest: str
    labels_digest: str
    tokens_digest: str
    notes: tuple[str, ...] = ()
    coverage: Mapping[str, Coverage] = dataclasses.field(default_factory=dict)
    test_texts: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict, repr=False)
    fitted: Any = None
    _lengths: Callable[[int, int], tuple[int, ...]] = dataclasses.field(init=False, repr=False)

    def __post_init__(self) -> None:
        def choose(batch_size: int, max_shapes: int) -> tuple[int, ...]:
            tables = (self.labelled, self.validation, self.test)
            longest = max(int(table.lengths_N.max()) for table in tables)
            lengths_N = np.append(self.everything.lengths_N, longest)
            return choose_lengths(lengths_N, batch_size=batch_size, max_shapes=max_shapes)

        object.__setattr__(self, "_lengths", lru_cache(choose))

    @property
    def kind(self) -> Kind:
        """Of what is predicted."""
        return self.config.kind

    @property
    def outputs(self) -> Outputs:
        """What models of it say, as objectives know it."""
        return self.kind.outputs_for(self.label_names)

    def training_table(self, *, with_teacher: bool) -> Examples:
        """All examples where a teacher speaks of them, else those with labels."""
        return self.everything if with_teacher else self.labelled

    def training_lengths(self, training: TrainingConfig) -> tuple[int, ...]:
        """Lengths of training batches: at most a tenth of an epoch is padding, where so many
        shapes can do that."""
        return self._lengths(training.batch_size, training.max_shapes)

    @property
    def summary(self) -> str:
        """For people."""
        others = len(self.everything) - len(self.labelled)
        training = f"{len(self.labelled):,} training examples, all of them labelled"
        if others:
            training = (
                f"{len(self.labelled):,} labelled and {others:,} unlabelled training examples"
            )
        return (
            f"{training}, {len(self.validation):,} validation, "
            f"{len(self.test):,} test; {self.kind.described(self.label_names)}"
        )

    def told(self) -> Iterator[str]:
        """What a person should know before training, line by line."""
        for note in self.notes:
            yield f"data: {note}"
        yield f"{self.config.name}: {self.summary}"
        for line in in_words(self.coverage, self.config.max_length):
            yield f"data: {line}"


def load_texts(config: DataConfig) -> TextDataset:
    """The text data set of a configuration, without what is added to it."""
    return config.kind.load(config)


def with_more_texts(config: DataConfig, dataset: TextDataset) -> TextDataset:
    """The data set with the texts of others that the configuration names; itself where it names
    none."""
    if not config.more_texts:
        return dataset
    return add_texts(dataset, [config.kind.load_more(config, name) for name in config.more_texts])


def prepare_texts(
    config: DataConfig, dataset: TextDataset, tokenizer_file: Path, tools: Tools = NO_TOOLS
) -> Splits:
    """Tokenise a data set and choose the labels to use. What was prepared before is reused.

    Args:
      tools: what augmentations may use.
    """

    def tokenise(texts: TextDataset):
        cache = home() / "tokens"
        return config.kind.tokenise(texts, tokenizer_file, config.max_length, cache)

    own = tokenise(dataset)
    notes = (*dataset.notes, *own.notes)
    train: TokenTable = own.splits["train"]
    wider = with_more_texts(config, dataset)
    augmentation = parse_augmentation(config.augment)
    if augmentation is not None:
        wider = augmented(wider, augmentation, tools, only=_to_copy(config, train))
    if wider is not dataset:
        train, notes = tokenise(wider).splits["train"], (*wider.notes, *own.notes)
    if augmentation is not None:
        notes = (*notes, _cost(train))
    longest = max(int(table.lengths_N.max()) for table in own.splits.values())
    fine = choose_lengths(
        np.append(own.splits["train"].lengths_N, longest), batch_size=EVALUATION_BATCH
    )
    splits = Splits(
        config=config,
        label_names=own.label_names,
        labelled=train,
        everything=train,
        validation=own.splits["validation"],
        test=own.splits["test"],
        few_lengths=fine[:: -max(1, len(fine) // FEW_SHAPES)][::-1],
        evaluation_batch=EVALUATION_BATCH,
        digest="",
        labels_digest="",
        tokens_digest=own.digest,
        notes=notes,
        coverage=own.coverage,
        test_texts=_texts_by_id(dataset.splits["test"]),
    )
    return _with_labels_chosen(splits)


def _cost(train: TokenTable) -> str:
    """What the copies cost in a teacher's reading, said before it starts."""
    copies_N = np.array([is_copy(example) for example in train.ids])
    tokens, more = (int(train.lengths_N[chosen].sum()) for chosen in (~copies_N, copies_N))
    return (
        f"a teacher reads {more:,} tokens of copies, {more / max(tokens, 1):.1f} times those of "
        "the texts themselves, as far as the steps get to them"
    )


def _texts_by_id(table: TextTable) -> dict[str, tuple[str, ...]]:
    columns = [table.texts] if table.texts_b is None else [table.texts, table.texts_b]
    return dict(zip(table.ids, zip(*columns, strict=True), strict=True))


def prepare_images(config: DataConfig) -> Splits:
    """A data set of images, and the choice of the labels to use.

    Raises:
      UserError: there is none, or the configuration asks for texts.
    """
    if config.text_b is not None or config.more_texts:
        raise UserError(f"data {config.name!r} are images: they have no second text and no texts")
    dataset = load_images(config.name)
    train = dataset.splits["train"]
    splits = Splits(
        config=config,
        label_names=dataset.label_names,
        labelled=train,
        everything=train,
        validation=dataset.splits["validation"],
        test=dataset.splits["test"],
        few_lengths=(1,),
        evaluation_batch=IMAGE_EVALUATION_BATCH,
        digest="",
        labels_digest="",
        tokens_digest=dataset.digest,
        notes=dataset.notes,
    )
    return _with_labels_chosen(splits)


def _with_labels_chosen(splits: Splits) -> Splits:
    """Labels dropped, made noisy, and the transfer set cut as the configuration says."""
    config, train = splits.config, splits.everything
    draw = config.label_seed if config.draws_labels else 0
    rows = _rows_used(config, train)
    if config.label_noise:
        noisy_N = noisy_labels(
            train.ids, train.labels_N, config.label_noise, len(splits.label_names), seed=draw
        )
        train = train.with_labels(noisy_N)
    used, client = rows, parse_client(config.client)
    if client is not None:
        rows = rows_of_client(train, used, client, config.client_alpha, seed=draw)
    labelled = train.take(rows)
    everything = train.without_labels(np.setdiff1d(np.arange(len(train)), rows))
    if config.transfer == "none":
        everything = everything.take(_without_the_rest(config, train, rows))
    elif len(unheard := _unheard(config, train, used, rows)):
        gone = {train.ids[row] for row in unheard}
        kept = [source_of(example) not in gone for example in everything.ids]
        everything = everything.take(np.flatnonzero(kept))
    if config.left_out:
        everything = everything.take(_not_left_out(splits, train, everything))
    chosen: dict[str, Any] = {
        "tokens": splits.tokens_digest,
        "label_fraction": config.label_fraction,
        "label_noise": config.label_noise,
    }
    if draw:  # there was one draw once; its digest stays
        chosen["label_seed"] = draw
    if client is not None:
        chosen |= {"client": client, "client_alpha": config.client_alpha}
    if config.task != DataConfig.task:  # classes were alone once
        chosen["task"] = config.task
    labels_digest = digest(chosen)
    kind = config.kind
    fitted = kind.fit(labelled, splits.label_names)
    return dataclasses.replace(
        splits,
        fitted=fitted,
        labelled=kind.ready(labelled, fitted),
        everything=kind.ready(everything, fitted),
        validation=kind.ready(splits.validation, fitted),
        test=kind.ready(splits.test, fitted),
        labels_digest=labels_digest,
        digest=digest({"labels": labels_digest, "everything": everything.digest}),
    )


def _unheard(config: DataConfig, train: Examples, used: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Rows of examples of which nobody hears.

    Args:
      used: rows whose labels are used, by all clients together.
      rows: those of them that are used here.

    Raises:
      UserError: where nothing is left.
    """
    if config.transfer == "rest":
        return np.setdiff1d(used, rows)  # they are other clients' alone
    if len(used) == len(train):
        raise UserError(
            f"{config.name}: the labels of all training examples are used: none is left of which a "
            "teacher alone speaks; lower --label-fraction"
        )
    return used


def left_out(config: DataConfig, label_names: tuple[str, ...]) -> np.ndarray:
    """bool [C], the classes that are left out of the transfer set.

    Raises:
      UserError: there is no such class, or none is left.
    """
    for name in config.left_out:
        if name not in label_names:
            raise unknown("class", name, label_names, where=f"of data {config.name!r}")
    out_C = np.array([name in config.left_out for name in label_names])
    if out_C.all():
        raise UserError("all classes are left out of the transfer set: none is left to learn from")
    return out_C


def _not_left_out(splits: Splits, train: Examples, chosen: Examples) -> np.ndarray:
    """int64 rows of ``chosen`` whose class, known or not, is one that students may see."""
    out_C = left_out(splits.config, splits.label_names)
    gone = {train.ids[row] for row in np.flatnonzero(out_C[train.labels_N] & (train.labels_N >= 0))}
    return np.flatnonzero([source_of(example) not in gone for example in chosen.ids])


def _rows_used(config: DataConfig, train: Examples) -> np.ndarray:
    """The rows whose labels are used."""
    draw = config.label_seed if config.draws_labels else 0
    salt = f"labels/{draw}" if draw else "labels"
    return labelled_rows(train, config.label_fraction, salt=salt)


def _to_copy(config: DataConfig, train: Examples) -> set[str] | None:
    """Ids of the examples of which copies are of use; None for all."""
    if config.transfer == "rest" or config.more_texts:
        return None
    return {train.ids[row] for row in _rows_used(config, train)}


def _without_the_rest(config: DataConfig, train: Examples, rows: np.ndarray) -> np.ndarray:
    """The rows of a table but for the examples whose labels are not used, and their copies."""
    used = {train.ids[row] for row in rows}
    if not config.more_texts:
        return np.flatnonzero([source_of(example) in used for example in train.ids])
    gone = {train.ids[row] for row in labelled_rows(train, 1.0)} - used
    return np.flatnonzero([source_of(example) not in gone for example in train.ids])
