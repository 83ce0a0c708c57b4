"""Whether an export answers as its source: when it is written, and whenever it is asked.

An export keeps golden answers: what its source and it itself said of a few texts of ours when it
was written. Where the source is gone, they stand for it.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from distill_jax.core.errors import UserError
from distill_jax.data.tokenise import TokenTable, tokenise_texts
from distill_jax.evaluation.open_classifier import OpenClassifier
from distill_jax.evaluation.stream import WindowPredictor
from distill_jax.export.formats import Format, Logits
from distill_jax.export.probes import probe_columns
from distill_jax.export.runtime import ExportRuntime
from distill_jax.export.source import Source

GOLDEN = "golden.json"
DRIFT = 1e-2
"""By which an 8-bit export's logit may differ from its own of another machine: sums of floats in
another order can move an activation by one step of 127."""


@dataclasses.dataclass(frozen=True)
class Difference:
    """Between the logits of two models of the same texts.

    Attributes:
      sentences: how many there were.
      worst: the largest difference of a logit.
      allowed: the most that it may be.
      agreement: share of the texts that get the same class.
    """

    sentences: int
    worst: float
    allowed: float
    agreement: float

    @property
    def holds(self) -> bool:
        """Whether it is small enough; NaN is not."""
        return self.worst <= self.allowed


def difference(theirs_NC: np.ndarray, ours_NC: np.ndarray, tolerance: float) -> Difference:
    """Of some logits from those they should be; large logits may differ in proportion."""
    worst = float(np.abs(theirs_NC - ours_NC).max())
    scale = max(1.0, float(np.abs(ours_NC).max()))
    same = np.mean(theirs_NC.argmax(axis=1) == ours_NC.argmax(axis=1))
    return Difference(len(ours_NC), worst, tolerance * scale, float(same))


def written_parity(source: Source, format: Format, logits: Logits) -> dict[str, Any]:
    """What is checked before an export is there, for ``export.json``.

    Raises:
      UserError: the export answers otherwise.
    """
    tokens = tokens_of(source.opened, probe_columns(source.pairs))
    theirs_NC = exported_logits(source, logits, tokens)
    found = difference(theirs_NC, source_logits(source, tokens), format.tolerance or np.inf)
    if not found.holds:
        raise UserError(
            f"what was written as {format.name} answers otherwise than {source.folder}: a logit "
            f"differs by {found.worst:.3g}, more than {found.allowed:.3g}; nothing was kept"
        )
    return {
        "compared_with": "the source under JAX",
        "sentences": found.sentences,
        "worst_difference": found.worst,
        "tolerance": format.tolerance,
        "agreement": found.agreement,
    }


def write_golden(source: Source, logits: Logits, folder: Path) -> None:
    """Keep what source and export say of the probes, in an ``atomic_folder``."""
    columns = probe_columns(source.pairs)
    tokens = tokens_of(source.opened, columns)
    golden = {
        "texts": list(map(list, zip(*columns, strict=True))),
        "source": source_logits(source, tokens).tolist(),
        "export": exported_logits(source, logits, tokens).tolist(),
    }
    (folder / GOLDEN).write_text(json.dumps(golden, indent=1, ensure_ascii=False) + "\n", "utf-8")


def tokens_of(opened: OpenClassifier, columns: Sequence[Sequence[str]]) -> TokenTable:
    """Texts, or pairs of texts, as a classifier's tokeniser cuts them."""
    texts, *more = columns
    tokens, _ = tokenise_texts(
        texts,
        opened.tokenizer_file,
        max_length=opened.max_length,
        texts_b=more[0] if more else None,
    )
    return tokens


def source_logits(source: Source, tokens: TokenTable) -> np.ndarray:
    """Logits [N, C] of the source."""
    return WindowPredictor(source.opened.runtime, longest=source.opened.max_length)(tokens)


def exported_logits(source: Source, logits: Logits, tokens: TokenTable) -> np.ndarray:
    """Logits [N, C] of what was exported."""
    return WindowPredictor(ExportRuntime(logits), longest=source.opened.max_length)(tokens)
