"""Texts and labels that are there already, in Python: written down as files, and then a folder."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from distill_jax.core.digests import digest
from distill_jax.core.errors import UserError
from distill_jax.core.files import atomic_folder
from distill_jax.data.split_files import TRANSFER
from distill_jax.data.splits import held_out
from distill_jax.data.table import fold

Examples = tuple[Sequence[str], Sequence[Any]]
"""(texts, labels); a label is a word or a whole number, None where there is none."""
_Row = dict[str, Any]


def write_lists(
    parent: Path,
    train: Examples,
    *,
    validation: Examples | None = None,
    test: Examples | None = None,
    unlabelled: Sequence[str] = (),
) -> tuple[Path, tuple[str, ...]]:
    """A folder for ``files:`` (columns ``sentence`` and ``label``), named by its content.

    Without ``test`` a share of train is held out by a fixed hash of the texts; validation is held
    out when the folder is read.

    Args:
      parent: of the folder.
      unlabelled: texts of the transfer set.

    Returns:
      The folder, and what was decided, a sentence each.

    Raises:
      UserError: for what are not as many texts as labels, and where train is too small for a test
        split.
    """
    rows = {"train": _rows("data", train)}
    notes: tuple[str, ...] = ()
    if validation is not None:
        rows["validation"] = _rows("validation", validation)
    if test is not None:
        rows["test"] = _rows("test", test)
    else:
        rows["train"], rows["test"] = _hold_out(rows["train"])
        notes = (
            f"{len(rows['test'])} examples, chosen by a fixed hash of the text, serve as test",
        )
    if len(unlabelled):
        rows[TRANSFER] = [{"sentence": text} for text in _texts("unlabelled", unlabelled)]
    folder = parent / digest(rows)
    if not folder.is_dir():
        with atomic_folder(folder) as scratch:
            for split, each in rows.items():
                lines = "".join(json.dumps(row) + "\n" for row in each)
                (scratch / f"{split}.jsonl").write_text(lines, encoding="utf-8")
    return folder, notes


def _rows(what: str, examples: Examples) -> list[_Row]:
    if not isinstance(examples, tuple) or len(examples) != 2 or isinstance(examples[1], str):
        raise UserError(f"{what} must be (texts, labels), not {examples!r:.60}")
    texts, labels = _texts(what, examples[0]), list(examples[1])
    if len(texts) != len(labels):
        raise UserError(f"{what}: {len(texts)} texts and {len(labels)} labels; as many are due")
    return [
        {"sentence": text, "label": label.item() if hasattr(label, "item") else label}
        for text, label in zip(texts, labels, strict=True)
    ]


def _texts(what: str, texts: Sequence[str]) -> list[str]:
    if isinstance(texts, str):
        raise UserError(f"{what}: expected a list of texts, not one text, {texts!r:.60}")
    texts = list(texts)
    for number, text in enumerate(texts):
        if not isinstance(text, str) or not text.strip():
            raise UserError(f"{what}: expected text at position {number}, found {text!r:.60}")
    return texts


def _hold_out(rows: list[_Row]) -> tuple[list[_Row], list[_Row]]:
    """Train and test. An unlabelled copy of a test text is in neither."""
    keys = [fold(row["sentence"]) for row in rows]
    labelled = [row["label"] not in (None, "") for row in rows]
    chosen = held_out("test", keys, labelled)
    train = [row for row, key in zip(rows, keys, strict=True) if key not in chosen]
    test = [
        row for row, key, known in zip(rows, keys, labelled, strict=True) if key in chosen and known
    ]
    if not train or not test:
        raise UserError(
            f"data: {len(rows)} examples are too few to hold out a test split; give test="
        )
    return train, test
