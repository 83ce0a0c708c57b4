"""Whether an export answers as its source: when it is written, and whenever it is asked.

An export keeps golden answers: what its source and it itself said of a few texts of ours when it
was written. Where the source is gone, they stand for it.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from distill_jax.core.errors import UserError
from distill_jax.data.tokenise import TokenTable, tokenise_texts
from distill_jax.evaluation.metrics import accuracy
from distill_jax.evaluation.open_classifier import OpenClassifier
from distill_jax.evaluation.stream import WindowPredictor
from distill_jax.export.formats import Format
from distill_jax.export.own_data import NoData, OwnData
from distill_jax.export.probes import probe_columns

GOLDEN = "golden.json"
MOST_SENTENCES = 5000
"""Of a split, evenly spread, that are asked about while an export is written."""
DRIFT = 5e-2
"""By which a logit of a format that rounds may differ from what the same folder said elsewhere, or
of the same text in another batch: sums of floats in another order can move an activation by one of
its 127 steps. Between ONNX Runtime's builds for x86 and for WebAssembly it was 0.012."""
_MOST_BYTES = 1 << 22


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


def difference(
    theirs_NC: np.ndarray, expected_NC: np.ndarray, tolerance: float | None
) -> Difference:
    """Of some logits from those they should be.

    Args:
      tolerance: for logits up to 10; of larger ones in proportion. None for any difference.
    """
    worst = float(np.abs(theirs_NC - expected_NC).max())
    allowed = math.inf if tolerance is None else tolerance
    same = float(np.mean(theirs_NC.argmax(axis=1) == expected_NC.argmax(axis=1)))
    scale = max(1.0, float(np.abs(expected_NC).max()) / 10)
    return Difference(len(expected_NC), worst, allowed * scale, same)


def logits_of_tokens(opened: OpenClassifier, tokens: TokenTable) -> np.ndarray:
    """Logits [N, C] of whatever was opened."""
    return WindowPredictor(opened.runtime, longest=opened.max_length)(tokens)


def logits_of_texts(opened: OpenClassifier, columns: Sequence[Sequence[str]]) -> np.ndarray:
    """Logits [N, C] of texts, or of pairs in two columns, none of them blank."""
    return logits_of_tokens(opened, _tokens(opened, columns))


def written_parity(
    source: OpenClassifier,
    export: OpenClassifier,
    format: Format,
    data: OwnData | NoData,
    *,
    tolerance: float | None,
    max_drop: float,
) -> dict[str, Any]:
    """What is checked before an export is there, for ``export.json``.

    Args:
      data: of the source, whose test split is asked about; else it is the probes.
      tolerance: by which a logit may differ; None where the format or the model rounds.
      max_drop: the most accuracy on validation that may be lost where something rounds.

    Raises:
      UserError: the export answers otherwise, or loses more.
    """
    tokens = data.splits["test"] if isinstance(data, OwnData) else None
    if tokens is None:
        tokens = _tokens(source, probe_columns(bool(source.pairs)))
    tokens = _some(tokens)
    expected_NC, theirs_NC = logits_of_tokens(source, tokens), logits_of_tokens(export, tokens)
    found = difference(theirs_NC, expected_NC, tolerance)
    if not found.holds:
        raise UserError(
            f"what was written as {format.name} answers otherwise than the source: a logit differs "
            f"by {found.worst:.3g}, more than {found.allowed:.3g}; nothing was kept"
        )
    apart = alone_or_batched(export, tolerance or DRIFT)
    if not apart.holds:
        raise UserError(
            f"what was written as {format.name} answers otherwise alone than among others: a logit "
            f"differs by {apart.worst:.3g}, more than {apart.allowed:.3g}; nothing was kept"
        )
    parity: dict[str, Any] = {
        "texts": data.name if isinstance(data, OwnData) else f"probes: {data.reason}",
        "sentences": found.sentences,
        "worst_difference": found.worst,
        "tolerance": tolerance,
        "agreement": found.agreement,
        "alone_or_batched": apart.worst,
    }
    if tolerance is None and isinstance(data, OwnData):
        parity["accuracy"] = _scores(source, export, data, max_drop, format)
    return parity


def alone_or_batched(opened: OpenClassifier, tolerance: float) -> Difference:
    """Between texts asked about alone, and among others with the padding that they bring."""
    tokens = _tokens(opened, probe_columns(bool(opened.pairs)))
    rows = np.arange(len(tokens))
    together = opened.runtime(tokens.batch(rows, int(tokens.lengths_N.max()), len(rows)))
    alone = [
        np.asarray(opened.runtime(tokens.batch(rows[n : n + 1], int(tokens.lengths_N[n]), 1)))
        for n in rows
    ]
    return difference(np.asarray(together), np.concatenate(alone), tolerance)


def write_golden(source: OpenClassifier, export: OpenClassifier, folder: Path) -> None:
    """Keep what source and export say of the probes, in an ``atomic_folder``."""
    columns = probe_columns(bool(source.pairs))
    golden = {
        "texts": [list(texts) for texts in zip(*columns, strict=True)],
        "source": logits_of_texts(source, columns).tolist(),
        "export": logits_of_texts(export, columns).tolist(),
    }
    text = json.dumps(golden, indent=1, ensure_ascii=False)
    (folder / GOLDEN).write_text(text + "\n", encoding="utf-8")


@dataclasses.dataclass(frozen=True, eq=False)
class Golden:
    """Answers kept in an export.

    Attributes:
      columns: the texts, or the two of each pair.
      source_NC, export_NC: what its source and it itself said of them.
    """

    columns: tuple[tuple[str, ...], ...]
    source_NC: np.ndarray
    export_NC: np.ndarray


def read_golden(folder: Path, classes: int, *, pairs: bool) -> Golden:
    """Read what ``write_golden`` kept.

    Raises:
      UserError: it is missing or damaged.
    """
    path = folder / GOLDEN
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise ValueError(f"it is larger than {_MOST_BYTES} bytes")
        raw: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        columns = tuple(tuple(map(str, column)) for column in zip(*raw["texts"], strict=True))
        logits = [np.asarray(raw[name], np.float32) for name in ("source", "export")]
        shape = (len(raw["texts"]), classes)
        if len(columns) != 1 + pairs or any(each.shape != shape for each in logits):
            raise ValueError("its texts and logits do not fit each other")
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise UserError(f"{path} is damaged: {error}") from error
    return Golden(columns, *logits)


def _scores(
    source: OpenClassifier, export: OpenClassifier, data: OwnData, max_drop: float, format: Format
) -> dict[str, dict[str, float]]:
    """Accuracy of source and export, by split. Validation decides; test is told."""
    scores = {}
    for split in ("validation", "test"):
        tokens = _some(data.splits[split])
        ours, theirs = (
            accuracy(logits_of_tokens(each, tokens), tokens.labels_N) for each in (source, export)
        )
        scores[split] = {"source": ours, "export": theirs, "sentences": len(tokens)}
        if split == "validation" and not ours - theirs <= max_drop:
            raise UserError(
                f"{format.name} loses {100 * (ours - theirs):.1f} points of accuracy on validation "
                f"({100 * ours:.1f}% -> {100 * theirs:.1f}%), more than --max-drop "
                f"{100 * max_drop:g}; nothing was kept"
            )
    return scores


def _some(tokens: TokenTable) -> TokenTable:
    if len(tokens) <= MOST_SENTENCES:
        return tokens
    return tokens.take(np.linspace(0, len(tokens) - 1, MOST_SENTENCES).astype(int))


def _tokens(opened: OpenClassifier, columns: Sequence[Sequence[str]]) -> TokenTable:
    texts, *more = columns
    file, length = opened.tokenizer_file, opened.max_length
    return tokenise_texts(texts, file, max_length=length, texts_b=more[0] if more else None)[0]
