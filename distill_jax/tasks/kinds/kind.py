"""What is predicted: one ``Kind`` a file, registered; ``--task`` and ``DataConfig.task`` name it.

Everything that trains, distils, resumes, tests and reports students of texts is in
``tasks.classification`` and asks the kind of its data for what differs. To add one, write a file
that ends with ``register(MyKind())`` and import it in ``kinds``. No other file changes.

What happens to a kind, in order:

1. ``load`` reads the data; ``labels`` says how a cell of the label column is read. A model has as
   many outputs as the data set has ``label_names``.
2. ``tokenise`` makes token tables with ``labels_N`` (0 or more where an example has a label, -1
   where it has none: for the draw of the labels that are used) and ``targets`` or ``targets_S``.
3. ``fit`` looks at the labels that are used, and at nothing else; ``ready`` makes of every table
   what losses read (a number scaled to mean 0 and deviation 1, say).
4. Objectives are read off ``outputs``; a teacher is fine-tuned with ``alone``.
5. ``scores`` judges what a model says of a split: on validation at every evaluation, where
   ``decides`` names what ``--select`` may choose; on test once, with what ``calibrate`` fitted on
   validation, and with what the teacher says.
6. ``evidence`` keeps what each test example contributed, for paired tests.
7. ``saved`` goes beside the model; ``form`` makes of it and of outputs what ``predict`` prints.

``said`` are a model's outputs as ``predict_logits`` gives them, float32: [N, C], or [N, T, C] where
``head`` is ``tokens``. Everything here runs on the host.
"""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

import numpy as np

from distill_jax.core.errors import unknown
from distill_jax.data.images import ImageTable
from distill_jax.data.labels import LabelColumn
from distill_jax.data.load import load_dataset
from distill_jax.data.new_data import new_texts
from distill_jax.data.split_files import listed
from distill_jax.data.table import TextDataset, TextTable
from distill_jax.data.tokenise import TokenDataset, TokenTable, tokenise_dataset
from distill_jax.data.transfer import load_more
from distill_jax.evaluation.answers import Form
from distill_jax.evaluation.task_file import write_task
from distill_jax.evaluation.yardsticks import Fitted, Regression
from distill_jax.models.hf_config import read_json, write_json
from distill_jax.models.hf_folder import CONFIG
from distill_jax.objectives.grammar import parse
from distill_jax.objectives.outputs import Outputs
from distill_jax.objectives.terms import Objective
from distill_jax.tables.columns import Column
from distill_jax.tables.evidence import unpack_correct, unpack_numbers
from distill_jax.teachers.predictions import Meaning

Examples = TokenTable | ImageTable
Calibrated = Mapping[str, float]
"""What was fitted on validation, by name: a temperature, a threshold; {} for nothing."""


class Described(Protocol):
    """What a kind reads of ``DataConfig``."""

    @property
    def name(self) -> str: ...

    @property
    def text(self) -> str: ...

    @property
    def text_b(self) -> str | None: ...

    @property
    def label(self) -> str: ...

    @property
    def label_separator(self) -> str: ...


class Kind(ABC):
    """One kind of what is predicted; see the module. It has no state.

    Attributes:
      name: of ``--task``.
      what: a label is called, for people.
      outputs: which losses can be read, and how.
      alone: the objective on labels alone, by which a teacher is fine-tuned, and the first row of
        a table that others are tested against.
      rows: objectives of ``compare-losses`` where none are named.
      head: what the model's head reads: one vector an example, or every token.
      pairs: whether an example is a pair of texts, whatever ``--text-b`` says.
      has_classes: whether an example has one class: then labels can be made wrong on purpose, and
        classes weighed.
      named: whether outputs are told apart by their names, and may be in another order elsewhere.
      spoken: how a file of predictions is read, see ``teachers.predictions``; None where there is
        no form for one.
      heads: of checkpoints that were trained elsewhere, those that say what it predicts, see
        ``hf_config.check_head``.
      columns: of the table; the first one is the main score, higher is better.
      tested: keys of those that are tested; ``evidence`` keeps numbers for them.
      decides: word of ``--select`` -> metric of ``scores``; the first is the default, ``loss`` must
        be there.
      lower: metrics of which the lowest is the best.
      plain: metrics that are no shares, shown as they are and not in percent.
    """

    name: ClassVar[str]
    what: ClassVar[str]
    outputs: ClassVar[Outputs]
    alone: ClassVar[str]
    rows: ClassVar[tuple[str, ...]]
    head: ClassVar[Literal["pooled", "tokens"]] = "pooled"
    pairs: ClassVar[bool] = False
    has_classes: ClassVar[bool] = False
    named: ClassVar[bool] = True
    spoken: ClassVar[Meaning | None] = None
    heads: ClassVar[tuple[str, ...]] = ()
    columns: ClassVar[tuple[Column, ...]]
    tested: ClassVar[tuple[str, ...]]
    decides: ClassVar[Mapping[str, str]]
    lower: ClassVar[tuple[str, ...]] = ()
    plain: ClassVar[tuple[str, ...]] = ()

    @property
    def augments(self) -> bool:
        """Whether altered copies of its texts can be taught: not where answers are of words."""
        return self.head == "pooled"

    def parse(self, text: str) -> Objective:
        """An objective, of the losses that can be written here.

        Raises:
          UserError: with the column of the mistake and the nearest name that exists.
        """
        return parse(text, self.outputs)

    # Data.

    @abstractmethod
    def labels(self, data: Described) -> LabelColumn:
        """How the column of labels is read."""

    def load(self, data: Described) -> TextDataset:
        """The data set as text.

        Raises:
          UserError: it is not there, or not as expected.
        """
        return load_dataset(
            data.name,
            text=data.text,
            text_b=data.text_b,
            label=data.label,
            labels=self.labels(data),
        )

    def load_more(self, data: Described, name: str) -> TextDataset:
        """Training texts of another data set, in the columns of this one, for a teacher to speak
        of.

        Raises:
          UserError: as ``load``.
        """
        return load_more(name, text=data.text, text_b=data.text_b, labels=self.labels(data))

    def load_new(
        self, data: Described, label_names: tuple[str, ...]
    ) -> tuple[dict[str, TextTable], tuple[str, ...]]:
        """Examples that are new to a model with outputs of these names, see ``new_texts``.

        Raises:
          UserError: as ``load``; for a label that the model does not know.
        """
        columns: dict[str, Any] = {"text": data.text, "text_b": data.text_b, "label": data.label}
        return new_texts(data.name, label_names, **columns, labels=self.labels(data))

    def tokenise(
        self, dataset: TextDataset, tokenizer_file: Path, max_length: int, cache: Path | None
    ) -> TokenDataset:
        """Token tables with targets; by default ``targets`` [N, ...] as the text table has them.

        The digest must name everything that the tables hold: that of ``dataset`` does.

        Args:
          cache: folder where arrays are kept; None keeps nothing.
        """
        tokens = tokenise_dataset(dataset, tokenizer_file, max_length=max_length, cache=cache)
        splits = {
            split: dataclasses.replace(table, targets=dataset.splits[split].targets)
            for split, table in tokens.splits.items()
        }
        return dataclasses.replace(tokens, splits=splits)

    def fit(self, labelled: Examples, label_names: Sequence[str]) -> Any:
        """What is learnt from the labels that are used, plain JSON; None for nothing."""
        return None

    def ready(self, table: Examples, fitted: Any) -> Examples:
        """A table as losses and ``scores`` read it."""
        return table

    def renamed(self, table: Examples, prefix: str) -> Examples:
        """A table whose ids begin with a prefix, so that it can stand beside one with the same."""
        ids = tuple(f"{prefix}{example}" for example in table.ids)
        return dataclasses.replace(table, ids=ids)

    def units(self, saved: Mapping[str, Any] | None, fitted: Any) -> tuple[float, float] | None:
        """By what the outputs of a head that was trained elsewhere are multiplied, and what is then
        added, so that they are as ``ready`` has the labels; None where they are.

        Args:
          saved: what is kept beside it; None where it is not of this package.
          fitted: of ``fit``, of the data that it is to speak of.
        """
        return None

    def outputs_for(self, label_names: Sequence[str]) -> Outputs:
        """``outputs`` of a model with outputs of these names."""
        return self.outputs

    def described(self, label_names: Sequence[str]) -> str:
        """What the outputs are, for people."""
        return f"{self.what} {listed(label_names)}"

    def tally(self, table: TextTable, names: Sequence[str]) -> str:
        """How often which label occurs in a split, for people."""
        known = 0 if table.labels_N is None else int((table.labels_N >= 0).sum())
        return f"{known:,} with a label"

    def label_of(self, table: TextTable, row: int, names: Sequence[str]) -> str:
        """The label of an example that has one, for people."""
        return str(table.targets[row])

    # Scores.

    def metric_of(self, select: str) -> str:
        """The metric that a word of ``--select`` stands for.

        Raises:
          UserError: with the nearest word, for another.
        """
        word = select.replace("-", "_")
        by_lower = {name.lower(): name for name in self.decides}
        if word.lower() not in by_lower:
            raise unknown("metric to select by", select, self.decides, where=f"(task {self.name})")
        return self.decides[by_lower[word.lower()]]

    @property
    def main(self) -> str:
        """The metric of the first column."""
        return self.columns[0].key.removeprefix("test/")

    @abstractmethod
    def scores(
        self,
        said: np.ndarray,
        table: Examples,
        fitted: Any,
        *,
        calibrated: Calibrated | None = None,
        teacher: np.ndarray | None = None,
    ) -> dict[str, float]:
        """Every metric, by name; NaN where a run diverged.

        Args:
          table: the split, fully labelled, as ``ready`` made it.
          fitted: of ``fit``.
          calibrated: of ``calibrate``; None on validation while a model is trained.
          teacher: what the teacher says of the same examples.
        """

    def measured(
        self,
        said: np.ndarray,
        table: Examples,
        fitted: Any,
        calibrated: Calibrated,
        teacher: np.ndarray | None,
    ) -> dict[str, float]:
        """``scores`` on the test split as the ledger keeps them, and what was calibrated."""
        scores = self.scores(said, table, fitted, calibrated=calibrated, teacher=teacher)
        return {**{f"test/{name}": value for name, value in scores.items()}, **calibrated}

    def calibrate(self, said: np.ndarray, validation: Examples, fitted: Any) -> dict[str, float]:
        """What is fitted on validation, where the test split has no say."""
        return {}

    @abstractmethod
    def evidence(
        self, said: np.ndarray, table: Examples, fitted: Any, calibrated: Calibrated
    ) -> dict[str, Any]:
        """What each test example contributed: ``test_correct``, or ``test_scores``, metric ->
        packed numbers whose mean is the metric; see ``tables.evidence``, ``evaluation.shares``."""

    whole: ClassVar[str | None] = None
    """The metric of ``evidence`` that is 1 where all of an answer is right and 0 where not; None
    where there is no such thing."""

    averaged: ClassVar[str] = "mean probability"
    """What ``averages`` are, for people."""

    def averages(
        self, said: np.ndarray, table: Examples, fitted: Any, names: Sequence[str]
    ) -> dict[str, float]:
        """What a model says of a table on average, by name: mean probabilities, or a mean number;
        {} where nothing can be said in so few words."""
        return {}

    def mean(self, said_K: Sequence[np.ndarray]) -> np.ndarray:
        """What several teachers say together, for fidelity."""
        return np.mean(np.stack(said_K), axis=0)

    def mistakes(
        self,
        said: np.ndarray,
        table: Examples,
        label_names: Sequence[str],
        texts: Mapping[str, tuple[str, ...]],
        calibrated: Calibrated,
    ) -> dict[str, Any] | None:
        """What the report shows of errors, see ``evaluation.mistakes``; None for nothing.

        Args:
          texts: id -> one text, or two of a pair.
        """
        return None

    # What the same labels give without a teacher.

    constant_name: ClassVar[str] = "constant"
    """The row of ``constant``."""
    fitted_name: ClassVar[str | None] = None
    """The row of ``regressed``; None where there is none."""

    def constant(self, labelled: Examples, label_names: Sequence[str]) -> np.ndarray | None:
        """Outputs [C] (float) that are the best answer to all examples alike; None for none."""
        return None

    def regressed(
        self,
        recipe: Regression,
        labelled: Examples,
        features: Sequence[Any],
        label_names: Sequence[str],
        score: Callable[[np.ndarray], float],
        on_fit: Callable[[], None],
    ) -> Fitted:
        """Outputs of a linear model on features, where ``fitted_name`` is given.

        Args:
          features: [N, F] of the labelled examples, of validation and of test.
          score: of outputs on validation, higher is better.
          on_fit: called before every fit.
        """
        raise NotImplementedError

    # What is kept, and what is said to people.

    @abstractmethod
    def saved(self, fitted: Any, calibrated: Calibrated) -> dict[str, Any]:
        """What is kept beside a model for ``form``, plain JSON."""

    @abstractmethod
    def form(self, saved: Mapping[str, Any], names: tuple[str, ...], tokenizer_file: Path) -> Form:
        """How ``predict`` answers, from what ``saved`` kept.

        Args:
          names: of the outputs.
          tokenizer_file: of the model's tokeniser.

        Raises:
          LookupError, TypeError, ValueError: for what ``saved`` never made.
        """

    problem_type: ClassVar[str | None] = None
    """What ``transformers`` calls it, for folders that it can open."""

    def keep(self, folder: Path, fitted: Any, calibrated: Calibrated) -> None:
        """Write what is needed beside the model in a folder."""
        self.mark(folder, self.saved(fitted, calibrated))
        if (card := folder / "README.md").is_file():
            card.write_text(
                f"# A model made with distill_jax, task {self.name}\n\n"
                'Ask it: `distill-jax predict FOLDER "a text"`.\n',
                encoding="utf-8",
            )

    def mark(self, folder: Path, saved: Mapping[str, Any]) -> None:
        """Say in a model's folder what it predicts.

        Args:
          saved: see ``saved``.
        """
        write_task(folder, self.name, saved)
        config = folder / CONFIG
        raw = read_json(config) if config.is_file() else {}
        if self.problem_type is not None and "id2label" in raw:
            write_json(config, {**raw, "problem_type": self.problem_type})

    def told(self, metrics: Mapping[str, float]) -> str:
        """The main score of a row of the ledger, in words: ``test accuracy 91.2%``."""
        column = self.columns[0]
        title = column.title.removesuffix(" %")
        unit = "%" if title != column.title else ""
        value = column.scale * metrics.get(column.key, math.nan)
        return f"test {title} {value:.{column.decimals}f}{unit}"

    def shown(self, metric: str, value: float) -> str:
        """A metric's value for people."""
        return f"{value:.3f}" if metric in self.plain else f"{100 * value:.1f}%"


def by_example(
    kind: Kind, said: np.ndarray, table: Examples, fitted: Any, calibrated: Calibrated
) -> dict[str, np.ndarray]:
    """Metric -> numbers [N] whose mean it is, of those that ``evidence`` keeps."""
    kept = kind.evidence(said, table, fitted, calibrated)
    found = {name: unpack_numbers(text) for name, text in kept.get("test_scores", {}).items()}
    if "test_correct" in kept:
        found["accuracy"] = unpack_correct(kept["test_correct"])
    return {name: np.asarray(own_N, np.float64) for name, own_N in found.items()}


_KINDS: dict[str, Kind] = {}


def register(kind: Kind) -> Kind:
    """Make a kind known.

    Raises:
      ValueError: its name is taken, or ``loss`` is missing among what may decide.
    """
    if kind.name in _KINDS or "loss" not in kind.decides:
        raise ValueError(f"a kind {kind.name!r} is there, or it has no loss to select by")
    _KINDS[kind.name] = kind
    return kind


def registered() -> Mapping[str, Kind]:
    """All that were registered, by name."""
    return _KINDS
