"""A tag a word, in BIO form: ``--task tags``."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from scipy import special

from distill_jax.core.errors import UserError
from distill_jax.data.conll import TAGS, WORDS
from distill_jax.data.labels import LabelColumn
from distill_jax.data.split_files import listed
from distill_jax.data.table import Dataset, TextDataset, TextTable
from distill_jax.data.tags import TagColumn, type_of, with_sound_tags
from distill_jax.data.tokenise import TokenDataset
from distill_jax.data.words import tokenise_words
from distill_jax.evaluation.answers import Form, softmax
from distill_jax.evaluation.metrics import classification_metrics
from distill_jax.evaluation.shares import of_ratio
from distill_jax.evaluation.tag_answers import TagForm
from distill_jax.evaluation.tagging import EntityCounts, count_entities, entity_mistakes
from distill_jax.evaluation.tokens import asked_about, of_tokens, padded_targets
from distill_jax.objectives.outputs import Outputs
from distill_jax.objectives.token_outputs import TokenTags
from distill_jax.tables.columns import COSTS, FIDELITY, Column
from distill_jax.tables.evidence import pack_numbers
from distill_jax.tasks.kinds.kind import Calibrated, Described, Examples, Kind, register

F1 = Column("test/f1", "entity F1 %", 100, 1, higher_is_better=True)
_OF_WORDS = ("accuracy", "nll", "fidelity", "kl_to_teacher")
"""Metrics of words that are asked about, each word an example."""


class Tags(Kind):
    """A tag a word. Scores are of entities, as ``conlleval`` counts them over all words; accuracy,
    likelihood and fidelity are of the words that have a token. What is fitted are the tags'
    names."""

    name = "tags"
    what = "tags"
    outputs: ClassVar[Outputs] = TokenTags()
    alone = "ce"
    rows = ("ce", "kl", "mse_logits", "hidden_mse + kl")
    head = "tokens"
    heads: ClassVar[tuple[str, ...]] = ("token_classification",)
    columns = (
        F1,
        Column("test/precision", "precision %", 100, 1, higher_is_better=True),
        Column("test/recall", "recall %", 100, 1, higher_is_better=True),
        Column("test/accuracy", "word accuracy %", 100, 1, higher_is_better=True),
        FIDELITY,
        *COSTS,
    )
    tested: ClassVar[tuple[str, ...]] = ("test/f1",)
    decides: ClassVar[Mapping[str, str]] = {"f1": "f1", "accuracy": "accuracy", "loss": "nll"}
    lower = ("nll",)
    plain = ("nll",)

    def labels(self, data: Described) -> LabelColumn:
        return TagColumn(words=data.text)

    def load(self, data: Described) -> TextDataset:
        check_single(data)
        return with_sound_tags(super().load(with_usual_columns(data)))

    def load_more(self, data: Described, name: str) -> TextDataset:
        return super().load_more(with_usual_columns(data), name)

    def load_new(
        self, data: Described, label_names: tuple[str, ...]
    ) -> tuple[dict[str, TextTable], tuple[str, ...]]:
        check_single(data)
        tables, notes = super().load_new(with_usual_columns(data), label_names)
        found = with_sound_tags(Dataset("new", label_names, tables, notes))
        return dict(found.splits), found.notes

    def averages(
        self, said: np.ndarray, table: Examples, fitted: Any, names: Sequence[str]
    ) -> dict[str, float]:
        """Mean probabilities of the tags, over all tokens."""
        tags = self.tags(names)
        there_NT = np.arange(said.shape[1])[None] < table.lengths_N[:, None]
        probs_SC = special.softmax(np.float64(said[..., : len(tags)][there_NT]), axis=-1)
        return dict(zip(tags, probs_SC.mean(axis=0).tolist(), strict=True))

    def tokenise(
        self, dataset: TextDataset, tokenizer_file: Path, max_length: int, cache: Path | None
    ) -> TokenDataset:
        return tokenise_words(
            dataset, self.tags(dataset.label_names), tokenizer_file, max_length=max_length
        )

    def tags(self, label_names: Sequence[str]) -> Sequence[str]:
        """The tags among the names of the outputs, which come first."""
        return label_names

    def label_of(self, table: TextTable, row: int, names: Sequence[str]) -> str:
        return " ".join(table.targets[row])

    def fit(self, labelled: Examples, label_names: Sequence[str]) -> Any:
        return {"tags": list(self.tags(label_names))}

    def described(self, label_names: Sequence[str]) -> str:
        return described_types(self.tags(label_names))

    def scores(
        self,
        said: np.ndarray,
        table: Examples,
        fitted: Any,
        *,
        calibrated: Calibrated | None = None,
        teacher: np.ndarray | None = None,
    ) -> dict[str, float]:
        tags = fitted["tags"]
        said_WC, targets_W = asked_about(said[..., : len(tags)], table)
        beside = None if teacher is None else asked_about(teacher[..., : len(tags)], table)[0]
        of_words = classification_metrics(said_WC, targets_W, teacher_logits_NC=beside)
        scores = {name: of_words[name] for name in _OF_WORDS if name in of_words}
        if np.isnan(said_WC).any():
            return {**dict.fromkeys(("f1", "precision", "recall"), math.nan), **scores}
        return {**counted(said, table, tags).scores, **scores}

    def measured(
        self,
        said: np.ndarray,
        table: Examples,
        fitted: Any,
        calibrated: Calibrated,
        teacher: np.ndarray | None,
    ) -> dict[str, float]:
        """With the F1 of each type, ``test/f1/TYPE``."""
        scores = super().measured(said, table, fitted, calibrated, teacher)
        return {**scores, **f1_by_type(said, table, fitted["tags"])}

    def evidence(
        self, said: np.ndarray, table: Examples, fitted: Any, calibrated: Calibrated
    ) -> dict[str, Any]:
        if not np.isfinite(said).all():
            return {}
        return {"test_scores": {"f1": f1_by_sentence(said, table, fitted["tags"])}}

    def mistakes(
        self,
        said: np.ndarray,
        table: Examples,
        label_names: Sequence[str],
        texts: Mapping[str, tuple[str, ...]],
        calibrated: Calibrated,
    ) -> dict[str, Any] | None:
        tags = self.tags(label_names)
        sure_N = surest_mistake(said, table, len(tags))
        return entity_mistakes(*tagged(said, table, tags), sure_N, table.ids, texts)

    def constant(self, labelled: Examples, label_names: Sequence[str]) -> np.ndarray | None:
        """The logarithms of the tags' frequencies, each one occurrence more than there are."""
        return log_shares(labelled, len(self.tags(label_names)))

    def saved(self, fitted: Any, calibrated: Calibrated) -> dict[str, Any]:
        return dict(fitted)

    def form(self, saved: Mapping[str, Any], names: tuple[str, ...], tokenizer_file: Path) -> Form:
        return tag_form(saved, names)


def with_usual_columns(data: Any, label: str = TAGS) -> Any:
    """The configuration with the names of columns that files of words have, where none is given.

    Args:
      label: that of the labels.
    """
    usual = {"text": ("sentence", WORDS), "label": ("label", label)}
    own = {name: new for name, (old, new) in usual.items() if getattr(data, name) == old}
    return replace(data, **own)


def check_single(data: Described, what: str = "tags") -> None:
    """Raises ``UserError`` for pairs of texts, and for data that is not the user's files."""
    if data.text_b is not None:
        raise UserError(f"{what} are of one sentence: leave --text-b out")
    if not data.name.startswith("files:"):
        raise UserError(f"data {data.name!r} has no {what}: give files with --data files:FOLDER")


def described_types(tags: Sequence[str]) -> str:
    """The types of entities, for people."""
    types = list(dict.fromkeys(type_of(tag) for tag in tags[1:]))
    return f"{len(types)} types of entities: {listed(types)}"


def tagged(
    said_NTC: np.ndarray, table: Examples, tags: Sequence[str]
) -> tuple[list[list[str]], list[tuple[str, ...]]]:
    """The tags of every sentence as a model says, and as they are; a word that is not asked about
    is outside of all entities."""
    said_WC, _ = asked_about(said_NTC[..., : len(tags)], table)
    words = iter(said_WC.argmax(axis=-1).tolist())
    said, due = [], []
    for own in of_tokens(table).aside or ():
        told = [tags[0]] * len(own.due)
        for word in own.seen:
            told[word] = tags[next(words)]
        said.append(told)
        due.append(own.due)
    return said, due


def counted(said_NTC: np.ndarray, table: Examples, tags: Sequence[str]) -> EntityCounts:
    """Entities of every sentence."""
    return count_entities(*tagged(said_NTC, table, tags))


def surest_mistake(said_NTC: np.ndarray, table: Examples, count: int) -> np.ndarray:
    """[N], the probability of the surest wrong tag of every sentence; 0 where none is.

    Args:
      count: of the outputs that are tags.
    """
    said_WC, targets_W = asked_about(said_NTC[..., :count], table)
    probs_WC = softmax(said_WC)
    wrong_W = said_WC.argmax(axis=-1) != targets_W
    sure_W = np.where(wrong_W, probs_WC.max(axis=-1), 0.0)
    sentence_W = np.repeat(
        np.arange(len(table)), [len(own.seen) for own in of_tokens(table).aside or ()]
    )
    sure_N = np.zeros(len(table))
    np.maximum.at(sure_N, sentence_W, sure_W)
    return sure_N


def f1_by_sentence(said_NTC: np.ndarray, table: Examples, tags: Sequence[str]) -> str:
    """Packed numbers whose mean over sentences is the F1."""
    counts = counted(said_NTC, table, tags)
    return pack_numbers(of_ratio(2 * counts.right_N, counts.said_N + counts.due_N))


def f1_by_type(said_NTC: np.ndarray, table: Examples, tags: Sequence[str]) -> dict[str, float]:
    """``test/f1/TYPE`` of every type that is said or due; {} of a run that diverged."""
    if not np.isfinite(said_NTC).all():
        return {}
    types = counted(said_NTC, table, tags).by_type
    return {
        f"test/f1/{name}": 2 * right / (said + due) for name, (right, said, due) in types.items()
    }


def log_shares(labelled: Examples, count: int) -> np.ndarray:
    """Logarithms [count] of how often each tag is due at a token, counted from 1."""
    targets_NT = padded_targets(labelled, int(labelled.lengths_N.max()))[labelled.labels_N >= 0]
    counts = 1 + np.bincount(targets_NT[targets_NT >= 0], minlength=count)
    return np.log(counts / counts.sum())


def tag_form(saved: Mapping[str, Any], names: tuple[str, ...]) -> TagForm:
    """Answers of a model with outputs of these names; those that are no tags are intents."""
    tags = tuple(saved["tags"])
    if names[: len(tags)] != tags or not tags:
        raise ValueError("the tags are not the first outputs")
    return TagForm(tags, names[len(tags) :])


register(Tags())
