"""Whether an exported folder is still what it was, and answers as its source."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from distill_jax.core.errors import UserError
from distill_jax.evaluation.open_classifier import OpenClassifier
from distill_jax.evaluation.stream import WINDOW, windows_of
from distill_jax.export.manifest import CLASSIFICATION, Manifest, tolerance_of
from distill_jax.export.opened import Export
from distill_jax.export.parity import (
    DRIFT,
    GOLDEN,
    Difference,
    at_tokens,
    compared,
    difference,
    logits_of_tokens,
    read_golden,
    tokens_of,
)
from distill_jax.export.runtime import as_classifier
from distill_jax.export.source import Source, open_source
from distill_jax.models.build import family_of

EXACT = 1e-4
"""By which a logit of a source that does not round may differ from what it was."""
AGREEMENT = 0.95
"""The least share of somebody's texts that such a format puts in the same class as its source."""


def find_source(export: Export, run: Path | None) -> Source | None:
    """The run an export was made of: the one that is named, or that it lies in; None without.

    Raises:
      UserError: the one that is named is another.
    """
    digest = export.manifest.source.get("model")
    if run is not None:
        source = open_source(run)
        if source.model.digest != digest:
            raise UserError(f"{run} is not what {export.folder} was made of: its model is another")
        return source
    parents = export.folder.resolve().parents
    beside = parents[1] if len(parents) > 1 else None  # RUN/export/FORMAT
    if beside is None or not (beside / "model").is_dir():
        return None
    source = open_source(beside)
    return source if source.model.digest == digest else None


def verified(
    export: Export, source: Source | None, rows: Iterable[Sequence[str]] | None
) -> Iterator[str]:
    """What is found, line by line.

    Args:
      rows: texts of the user's, one or two each, on which export and source are compared.

    Raises:
      UserError: the export answers otherwise than its source, or than it did.
    """
    manifest, opened = export.manifest, as_classifier(export)
    name, tolerance = manifest.format, tolerance_of(manifest)
    yield f"{len(manifest.files)} files are what they were"
    golden = read_golden(
        export.folder,
        len(manifest.label_names),
        pairs=manifest.pairs,
        per_token=manifest.per_token,
    )
    tokens = tokens_of(opened, golden.columns)
    now = logits_of_tokens(opened, tokens)
    if now.shape != golden.source_NC.shape:
        raise UserError(f"{export.folder / GOLDEN} does not fit what its tokeniser reads")
    own = compared(opened, now, golden.export_NC, tokens, tolerance or DRIFT)
    yield _checked(own, f"golden answers of this {name}", manifest)
    own = compared(opened, now, golden.source_NC, tokens, tolerance)
    yield _checked(own, "golden answers of its source", manifest)
    if rows is not None and source is None:
        raise UserError(
            f"{export.folder} does not lie in the run it was made of, with which it is to be "
            "compared: name it with --run RUN"
        )
    if source is None:
        return
    if rows is None:
        now = logits_of_tokens(source.opened, tokens)
        rounds = family_of(source.model.config).rounds(source.model.config)
        allowed = DRIFT if rounds else EXACT
        own = compared(source.opened, now, golden.source_NC, tokens, allowed)
        yield _checked(own, "the source, of its own answers", manifest)
        return
    found = _on_rows(opened, source.opened, tolerance, rows)
    yield _checked(found, f"the source, {source.folder}, on your texts", manifest)
    if tolerance is None and found.agreement < AGREEMENT:
        raise UserError(
            f"parity is broken: {name} gives {100 * (1 - found.agreement):.1f}% of your texts "
            f"another {_answer(manifest)} than its source, more than {100 * (1 - AGREEMENT):.0f}%"
        )


def _on_rows(
    ours: OpenClassifier,
    source: OpenClassifier,
    tolerance: float | None,
    rows: Iterable[Sequence[str]],
) -> Difference:
    """Of all windows of texts together; blank ones are left out."""
    logits: list[tuple[np.ndarray, ...]] = []
    width = 2 if ours.pairs else 1
    for some in windows_of((row for row in rows if any(x.strip() for x in row)), WINDOW):
        if len(some[0]) != width:
            raise UserError("the export reads " + ("pairs of texts" if width == 2 else "one text"))
        columns = list(zip(*some, strict=True))
        tokens = tokens_of(source, columns)
        said, expected = (logits_of_tokens(each, tokens) for each in (ours, source))
        same_N = source.answering.same(said, expected, tokens)
        logits.append((at_tokens(said, tokens), at_tokens(expected, tokens), same_N))
    if not logits:
        raise UserError("there is no text to compare on")
    ours_NC, source_NC, same_N = (np.concatenate(each) for each in zip(*logits, strict=True))
    return difference(ours_NC, source_NC, tolerance, same_N)


def _answer(manifest: Manifest) -> str:
    """What a text gets."""
    return "class" if manifest.task == CLASSIFICATION else "answer"


def _checked(found: Difference, what: str, manifest: Manifest) -> str:
    """A line for people.

    Raises:
      UserError: the difference is too large.
    """
    if not found.holds:
        raise UserError(
            f"parity is broken: {what}: a logit differs by {found.worst:.3g}, more than "
            f"{found.allowed:.3g}, on {found.sentences:,} sentences"
        )
    bound = f" (allowed: {found.allowed:.1e})" if np.isfinite(found.allowed) else ""
    same = f"; {100 * found.agreement:.1f}% get the same {_answer(manifest)}"
    return f"{what}: {found.sentences:,} sentences, logits within {found.worst:.1e}{bound}{same}"
