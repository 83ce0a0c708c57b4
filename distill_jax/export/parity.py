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
from distill_jax.data.tokenise import Tokeniser, TokenTable
from distill_jax.evaluation.open_classifier import OpenClassifier
from distill_jax.evaluation.predict import of_one_length
from distill_jax.evaluation.stream import WindowPredictor
from distill_jax.export.formats import Format
from distill_jax.export.own_data import NoData, OwnData
from distill_jax.export.probes import probe_columns
from distill_jax.export.source import Source

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
      agreement: share of the texts that get the same answer.
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
    theirs_NC: np.ndarray,
    expected_NC: np.ndarray,
    tolerance: float | None,
    same_N: np.ndarray | None = None,
) -> Difference:
    """Of some logits from those they should be.

    Args:
      tolerance: for logits up to 10; of larger ones in proportion. None for any difference.
      same_N: bool, the texts that get the same answer; None where that is the likeliest class.
    """
    worst = float(np.abs(theirs_NC - expected_NC).max())
    allowed = math.inf if tolerance is None else tolerance
    if same_N is None:
        same_N = theirs_NC.argmax(axis=1) == expected_NC.argmax(axis=1)
    scale = max(1.0, float(np.abs(expected_NC).max()) / 10)
    return Difference(len(same_N), worst, allowed * scale, float(np.mean(same_N)))


def compared(
    opened: OpenClassifier,
    theirs: np.ndarray,
    expected: np.ndarray,
    tokens: TokenTable,
    tolerance: float | None,
) -> Difference:
    """``difference`` between what two models say of some tokens, see ``logits_of_tokens``.

    Args:
      opened: either of the two.
    """
    same_N = opened.answering.same(theirs, expected, tokens)
    return difference(at_tokens(theirs, tokens), at_tokens(expected, tokens), tolerance, same_N)


def at_tokens(said: np.ndarray, tokens: TokenTable) -> np.ndarray:
    """Logits [N, C] as they are, those [N, T, C] of every token of every text, [S, C]."""
    if said.ndim == 2:
        return said
    return said[np.arange(said.shape[1])[None, :] < tokens.lengths_N[:, None]]


def logits_of_tokens(opened: OpenClassifier, tokens: TokenTable) -> np.ndarray:
    """Logits [N, C] of whatever was opened; of a head that reads every token [N, T, C], T the most
    tokens of a text."""
    said = WindowPredictor(opened.runtime, longest=opened.max_length)(tokens)
    return said[:, : int(tokens.lengths_N.max())] if said.ndim == 3 else said


def logits_of_texts(opened: OpenClassifier, columns: Sequence[Sequence[str]]) -> np.ndarray:
    """``logits_of_tokens`` of texts, or of pairs in two columns, none of them blank."""
    return logits_of_tokens(opened, tokens_of(opened, columns))


def written_parity(
    source: Source,
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
      max_drop: the most of the main score on validation that may be lost where something rounds.

    Raises:
      UserError: the export answers otherwise, or loses more.
    """
    tokens = data.splits["test"] if isinstance(data, OwnData) else None
    if tokens is None:
        tokens = tokens_of(source.opened, probe_columns(source.pairs))
    tokens = _some(tokens)
    expected, theirs = (logits_of_tokens(each, tokens) for each in (source.opened, export))
    found = compared(export, theirs, expected, tokens, tolerance)
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
        parity["metric"] = source.kind.main
        parity[source.kind.main] = _scores(source, export, data, max_drop, format)
    return parity


def scores_told(parity: Mapping[str, Any]) -> tuple[str, Mapping[str, Mapping[str, float]]]:
    """The main score's name, and split -> ``source``, ``export`` and ``sentences``; no splits where
    nothing rounds."""
    metric = parity.get("metric", "accuracy")
    return metric.replace("_", " "), parity.get(metric, {})


def alone_or_batched(opened: OpenClassifier, tolerance: float) -> Difference:
    """Between texts asked about alone, and among others with the padding that they bring."""
    tokens = tokens_of(opened, probe_columns(bool(opened.pairs)))
    rows = np.arange(len(tokens))
    together = opened.runtime(tokens.batch(rows, int(tokens.lengths_N.max()), len(rows)))
    alone = [
        np.asarray(opened.runtime(tokens.batch(rows[n : n + 1], int(tokens.lengths_N[n]), 1)))
        for n in rows
    ]
    apart = np.concatenate(of_one_length(alone, 1))
    return compared(opened, np.asarray(together), apart, tokens, tolerance)


def write_golden(source: OpenClassifier, export: OpenClassifier, folder: Path) -> None:
    """Keep what source and export say of the probes, in an ``atomic_folder``: of as many as fit
    in ``_MOST_BYTES``, where there are very many outputs."""
    columns = probe_columns(bool(source.pairs))
    while len(text := _golden(source, export, columns)) > _MOST_BYTES and len(columns[0]) > 1:
        columns = tuple(column[: len(column) // 2] for column in columns)
    (folder / GOLDEN).write_text(text + "\n", encoding="utf-8")


def _golden(
    source: OpenClassifier, export: OpenClassifier, columns: Sequence[Sequence[str]]
) -> str:
    tokens = tokens_of(source, columns)
    golden: dict[str, Any] = {"texts": [list(texts) for texts in zip(*columns, strict=True)]}
    for name, opened in (("source", source), ("export", export)):
        said = logits_of_tokens(opened, tokens)
        rows = zip(said, tokens.lengths_N, strict=True)
        golden[name] = said.tolist() if said.ndim == 2 else [row[:n].tolist() for row, n in rows]
    return json.dumps(golden, indent=1, ensure_ascii=False)


@dataclasses.dataclass(frozen=True, eq=False)
class Golden:
    """Answers kept in an export.

    Attributes:
      columns: the texts, or the two of each pair.
      source_NC, export_NC: what its source and it itself said of them; [N, T, C] of a head that
        reads every token, with 0 behind the last one.
    """

    columns: tuple[tuple[str, ...], ...]
    source_NC: np.ndarray
    export_NC: np.ndarray


def read_golden(folder: Path, classes: int, *, pairs: bool, per_token: bool = False) -> Golden:
    """Read what ``write_golden`` kept.

    Args:
      classes, pairs, per_token: of the export.

    Raises:
      UserError: it is missing or damaged.
    """
    path = folder / GOLDEN
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise ValueError(f"it is larger than {_MOST_BYTES} bytes")
        raw: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        columns = tuple(tuple(map(str, column)) for column in zip(*raw["texts"], strict=True))
        kept = [raw[name] for name in ("source", "export")]
        if per_token:
            logits = [_ragged(rows) for rows in kept]
            fits = logits[0].shape == logits[1].shape and logits[0].shape[2:] == (classes,)
        else:
            logits = [np.asarray(rows, np.float32) for rows in kept]
            fits = all(each.shape == (len(raw["texts"]), classes) for each in logits)
        if len(columns) != 1 + pairs or not fits:
            raise ValueError("its texts and logits do not fit each other")
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise UserError(f"{path} is damaged: {error}") from error
    return Golden(columns, *logits)


def _ragged(rows: Sequence[Any]) -> np.ndarray:
    """Arrays [T, C] of any T, as one [N, T, C]."""
    return np.concatenate(of_one_length([np.asarray([row], np.float32) for row in rows], 1))


def _scores(
    source: Source, export: OpenClassifier, data: OwnData, max_drop: float, format: Format
) -> dict[str, dict[str, float]]:
    """The main score of source and export, by split. Validation decides; test is told."""
    scores = {}
    for split in ("validation", "test"):
        tokens = _some(data.splits[split])
        ours, theirs = (
            source.score(logits_of_tokens(each, tokens), tokens) for each in (source.opened, export)
        )
        scores[split] = {"source": ours, "export": theirs, "sentences": len(tokens)}
        if split == "validation" and not ours - theirs <= max_drop:
            metric = source.kind.main.replace("_", " ")
            raise UserError(
                f"{format.name} loses {100 * (ours - theirs):.1f} points of {metric} on validation "
                f"({100 * ours:.1f}% -> {100 * theirs:.1f}%), more than --max-drop "
                f"{100 * max_drop:g}; nothing was kept"
            )
    return scores


def _some(tokens: TokenTable) -> TokenTable:
    if len(tokens) <= MOST_SENTENCES:
        return tokens
    return tokens.take(np.linspace(0, len(tokens) - 1, MOST_SENTENCES).astype(int))


def tokens_of(opened: OpenClassifier, columns: Sequence[Sequence[str]]) -> TokenTable:
    """What a model is asked about some texts, or pairs in two columns, none of them blank."""
    ids = [str(number) for number in range(len(columns[0]))]
    tokeniser = Tokeniser(opened.tokenizer_file, opened.max_length)
    return opened.answering.read(tokeniser, columns, ids).tokens
