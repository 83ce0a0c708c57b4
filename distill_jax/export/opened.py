"""An exported folder in use: verified, and asked for logits, whatever its format."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from distill_jax.core.errors import UserError
from distill_jax.export.formats import Logits, format_named
from distill_jax.export.manifest import (
    MANIFEST,
    TOKENIZER,
    Manifest,
    check_files,
    read_manifest,
)


@dataclasses.dataclass(frozen=True, eq=False)
class Export:
    """An export that was opened.

    Attributes:
      tokenizer_file: a ``tokenizer.json``.
      logits: (input_ids_BT, token_type_ids_BT, attention_mask_BT, all int64) -> logits_BC float32,
        or logits_BTC where ``manifest.per_token``; any number of rows from 1, any length up to
        ``manifest.max_length``; from any thread.
    """

    folder: Path
    manifest: Manifest
    tokenizer_file: Path
    logits: Logits


def open_export(folder: Path | str, *, threads: int | None = None) -> Export:
    """Open an exported folder, every file verified.

    Args:
      threads: of a call, where the format's runtime can be told; None for what it likes best.

    Raises:
      UserError: the folder is none, or a file is missing or has changed.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"no export at {folder}: expected a folder that distill-jax export wrote")
    if threads is not None and threads < 1:
        raise UserError(f"the number of threads must be at least 1, not {threads}")
    manifest = read_manifest(folder)
    format = format_named(manifest.format, where=f"in {folder / MANIFEST}")
    if TOKENIZER not in manifest.files:
        raise UserError(f"{folder / MANIFEST} lists no {TOKENIZER}")
    check_files(folder, manifest)
    logits = _fitting(format.open(folder, manifest, threads), manifest, folder)
    return Export(folder, manifest, folder / TOKENIZER, logits)


def _fitting(logits: Logits, manifest: Manifest, folder: Path) -> Logits:
    """The same, with as many logits as there are classes, or outputs of another name."""
    classes = len(manifest.label_names)

    def checked(ids_BT: np.ndarray, types_BT: np.ndarray, mask_BT: np.ndarray) -> np.ndarray:
        said = logits(ids_BT, types_BT, mask_BT)
        rows = ids_BT.shape if manifest.per_token else ids_BT.shape[:1]
        if said.shape != (*rows, classes):
            raise UserError(
                f"the model in {folder} gives {list(said.shape)} for {len(ids_BT)} texts of "
                f"{classes} classes: its files do not belong together"
            )
        return said

    return checked
