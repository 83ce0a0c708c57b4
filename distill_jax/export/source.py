"""What an export is made of: a finished run, its model, and what the ledger says of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from distill_jax.core.errors import UserError
from distill_jax.core.files import user_path
from distill_jax.data.tokenise import TokenTable
from distill_jax.evaluation.latency import parameter_count
from distill_jax.evaluation.open_classifier import OpenClassifier, open_classifier
from distill_jax.models.build import family_in, family_of
from distill_jax.models.loaded import Loaded
from distill_jax.tables.ledger import Ledger, LedgerRow
from distill_jax.tables.outputs import LEDGER
from distill_jax.tasks.classification.cells import DataConfig
from distill_jax.tasks.kinds.classes import TEMPERATURE
from distill_jax.tasks.kinds.kind import Kind
from distill_jax.tasks.kinds.kinds import form_of, kind_named

_SCORES = ("test/", "validation/", "latency/")


@dataclasses.dataclass(frozen=True, eq=False)
class Source:
    """A finished model of texts: a classifier, or one of another kind of task.

    Attributes:
      folder: of the run, or of the model where it belongs to none.
      opened: the model, under JAX.
      model: the same, as loaded.
      row: the run's row of the ledger; None where there is none.
    """

    folder: Path
    opened: OpenClassifier
    model: Loaded
    row: LedgerRow | None

    @property
    def pairs(self) -> bool:
        """Whether it reads pairs of texts; single ones where its folder does not say."""
        return bool(self.opened.pairs)

    @property
    def kind(self) -> Kind:
        """Of what it predicts."""
        return kind_named(self.opened.task.task if self.opened.task else DataConfig.task)

    @property
    def saved(self) -> Mapping[str, Any]:
        """What its answers are made with, see ``Kind.saved``."""
        own = self.opened.task.saved if self.opened.task else {}
        return {TEMPERATURE: self.opened.temperature, **own}

    def score(self, said: np.ndarray, tokens: TokenTable) -> float:
        """The main score of its kind, of outputs for a labelled split.

        Args:
          tokens: as the kind's ``tokenise`` made them.
        """
        kind, saved = self.kind, self.saved
        return kind.scores(said, kind.ready(tokens, saved), saved, calibrated=saved)[kind.main]

    @property
    def example_texts(self) -> str:
        """What stands in examples of Python for the texts."""
        return '("a text", "its second text")' if self.pairs else '"a text", "another text"'

    @property
    def birth(self) -> dict[str, Any]:
        """What it was made of, for ``export.json``."""
        said = {
            "model": self.model.digest,
            "family": family_of(self.model.config).name,
            "parameters": parameter_count(self.model.params),
        }
        return birth_of(said, self.row)


def birth_of(said: Mapping[str, Any], row: LedgerRow | None) -> dict[str, Any]:
    """What a model was made of, for ``export.json``.

    Args:
      said: of the model itself, its digest as ``model``.
      row: its run's row of the ledger.
    """
    if row is None:
        return dict(said)
    scores = {
        name: value
        for name, value in row.metrics.items()
        if name.startswith(_SCORES) and value == value
    }
    return {
        **said,
        "run": row.hash,
        "experiment": row.experiment,
        "row": row.row,
        "group": row.group,
        "seed": row.seed,
        "fingerprints": dict(row.fingerprints),
        "data": public_name(_name(row.config.get("data"))),
        "teacher": public_name(_name(row.config.get("teacher"))),
        "device": row.device,
        "finished_at": row.finished_at,
        "code": dict(row.code),
        "scores": scores,
    }


def public_name(name: Any) -> str | None:
    """Of a data set or a teacher, without the folders of somebody's machine."""
    if name is None:
        return None
    kind, colon, path = str(name).rpartition(":")
    local = Path(path).is_absolute() or path.startswith(("~", ".")) or kind == "files"
    return kind + colon + (Path(path).name if local else path)


def _name(said: Any) -> Any:
    return said.get("name") if isinstance(said, dict) else said


def open_source(folder: Path) -> Source:
    """Open what is to be exported.

    Args:
      folder: of a finished run of a model of texts, or with its model.

    Raises:
      UserError: there is none, it is not finished, or it reads no texts.
    """
    folder = user_path(folder)
    if not folder.is_dir():
        raise UserError(f"no run at {folder}: expected the folder of a finished run, .../runs/HASH")
    if not (folder / "model").is_dir() and not (folder / "config.json").is_file():
        raise UserError(
            f"{folder} holds no model: a run keeps one when it is finished. Run the same command "
            "again, it goes on where it stopped"
        )
    inner = folder / "model"
    if (reads := family_in(inner if inner.is_dir() else folder).reads) != "texts":
        raise UserError(
            f"{folder} has a classifier of {reads}; exports are of classifiers of texts, whose "
            "inputs are what a tokeniser gives"
        )
    opened = open_classifier(folder, form_of=form_of)
    assert opened.model is not None, "it was opened from its parameters"
    return Source(folder, opened, opened.model, row_of(folder))


def row_of(folder: Path) -> LedgerRow | None:
    """The row of a run in ``RESULTS/runs/HASH``."""
    folder = folder.resolve()
    ledger = folder.parents[1] / LEDGER if len(folder.parents) > 1 else folder
    if folder.parent.name != "runs" or not ledger.is_file():
        return None
    return next((row for row in Ledger(ledger).rows() if row.hash == folder.name), None)
