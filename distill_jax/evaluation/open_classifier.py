"""A finished classifier in use: anybody's texts in, classes with their probabilities out."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import jax
import numpy as np

from distill_jax.core.errors import UserError
from distill_jax.core.mesh import make_mesh
from distill_jax.data.coverage import Coverage
from distill_jax.data.plan import choose_lengths
from distill_jax.data.tokenise import tokenise_texts
from distill_jax.evaluation.calibration import is_temperature, read_temperature
from distill_jax.evaluation.predict import LogitsOf, check_token_types, logits_of, predict_logits
from distill_jax.models.build import build_model, load_model
from distill_jax.models.loaded import Loaded


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a classifier says of an example.

    Attributes:
      label: its likeliest class.
      probabilities: of every class, in the order of the model's.
    """

    label: str
    probabilities: dict[str, float]

    @property
    def probability(self) -> float:
        """Of ``label``."""
        return self.probabilities[self.label]


@dataclasses.dataclass(frozen=True, eq=False)
class OpenClassifier:
    """A classifier of texts, or of pairs of texts.

    Attributes:
      label_names: the classes; their numbers where the folder does not name them.
      max_length: tokens after which texts are cut, as in training where the folder says so.
      pairs: whether it was trained on pairs; None where the folder does not say.
      temperature: by which logits are divided before the softmax; no class hangs on it.
    """

    model: Loaded
    label_names: tuple[str, ...]
    max_length: int
    pairs: bool | None
    temperature: float
    _apply: LogitsOf

    def classify(
        self, texts: Sequence[str], texts_b: Sequence[str] | None = None, *, batch_size: int = 32
    ) -> list[Answer | None]:
        """The answer for each text, or pair of texts, in the order given; None for blank ones.

        Args:
          texts_b: the second text of each pair.

        Raises:
          UserError: for single texts where the model wants pairs, and the other way round.
        """
        return self.classify_covered(texts, texts_b, batch_size=batch_size)[0]

    def classify_covered(
        self, texts: Sequence[str], texts_b: Sequence[str] | None = None, *, batch_size: int = 32
    ) -> tuple[list[Answer | None], Coverage | None]:
        """``classify``, and how much of the texts the model got to see; None where all are blank.

        Raises:
          UserError: as ``classify``.
        """
        if batch_size < 1:
            raise UserError(f"the batch size must be at least 1, not {batch_size}")
        self._check_kind(texts, texts_b)
        joined = texts if texts_b is None else [a + b for a, b in zip(texts, texts_b, strict=True)]
        rows = [row for row, text in enumerate(joined) if text.strip()]
        answers: list[Answer | None] = [None] * len(texts)
        if not rows:
            return answers, None
        assert self.model.tokenizer_file is not None, "found when it was opened"
        tokens, coverage = tokenise_texts(
            [texts[row] for row in rows],
            self.model.tokenizer_file,
            max_length=self.max_length,
            texts_b=None if texts_b is None else [texts_b[row] for row in rows],
        )
        check_token_types(tokens, self.model.config.token_range)
        logits_NC = predict_logits(
            self._apply,
            self.model.params,
            tokens,
            shape_lengths=choose_lengths(tokens.lengths_N, batch_size=batch_size, max_shapes=4),
            batch_size=batch_size,
            mesh=make_mesh(jax.devices()[:1]),
        )
        probs_NC = np.asarray(jax.nn.softmax(logits_NC / np.float32(self.temperature)))
        for row, logits_C, probs_C in zip(rows, logits_NC, probs_NC, strict=True):
            label = self.label_names[int(logits_C.argmax())]
            by_name = dict(zip(self.label_names, map(float, probs_C), strict=True))
            answers[row] = Answer(label, by_name)
        return answers, coverage

    def _check_kind(self, texts: Sequence[str], texts_b: Sequence[str] | None) -> None:
        if texts_b is not None and len(texts_b) != len(texts):
            raise UserError(f"{len(texts)} texts and {len(texts_b)} second texts; as many are due.")
        if texts_b is None and self.pairs:
            raise UserError(
                "this model was trained on pairs of texts: give each its second text (--second, "
                "for files --text-b COLUMN, in Python texts_b)."
            )
        if texts_b is not None and self.pairs is False:
            raise UserError("this model was trained on single texts: leave out the second ones.")


def open_classifier(
    folder: Path | str,
    *,
    max_length: int | None = None,
    temperature: float | Literal["auto"] = "auto",
) -> OpenClassifier:
    """Open a run's folder, its ``model``, or any folder with a classifier of texts.

    Args:
      max_length: tokens after which texts are cut; None for that of the training, or as many as
        the model has positions where the folder does not say.
      temperature: of the probabilities; ``auto`` for the one that was fitted on validation and
        kept in the folder, 1 where there is none.

    Raises:
      UserError: when there is none, or its head was never trained; for a temperature that is no
        positive number.
    """
    folder = Path(folder)
    inner = folder / "model"
    if not folder.is_dir():
        raise UserError(f"no model at {folder}: expected the folder of a finished run")
    if temperature == "auto":
        temperature = read_temperature(inner if inner.is_dir() else folder) or 1.0
    if not is_temperature(temperature):
        raise UserError(f"the temperature must be a positive number or auto, not {temperature}")
    model = load_model(inner if inner.is_dir() else folder)
    if model.fresh:
        raise UserError(f"{folder} has no trained classifier head ({', '.join(model.fresh)})")
    if model.tokenizer_file is None:
        raise UserError(f"{folder} has a classifier of images; texts are asked about here")
    longest = model.config.token_range.positions
    chosen = max_length or model.inputs.max_length or longest
    return OpenClassifier(
        model,
        model.label_names or tuple(str(n) for n in range(model.config.num_labels)),
        min(chosen, longest),
        model.inputs.pairs,
        float(temperature),
        logits_of(build_model(model.config)),
    )
