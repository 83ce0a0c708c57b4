"""From a finished run to an exported folder: whole, described, and asked before it is there."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from distill_jax.core.errors import UserError
from distill_jax.core.files import atomic_folder
from distill_jax.core.version import VERSION
from distill_jax.export.card import export_card
from distill_jax.export.formats import Format, format_named
from distill_jax.export.manifest import (
    CLASSIFICATION,
    TOKENIZER,
    Manifest,
    digests_of,
    write_manifest,
)
from distill_jax.export.own_data import NoData, OwnData
from distill_jax.export.parity import write_golden, written_parity
from distill_jax.export.runtime import ExportRuntime
from distill_jax.export.source import Source
from distill_jax.models.build import family_of
from distill_jax.models.loaded import check_free

CARD = "README.md"
_VERSIONS = ("jax", "flax", "onnx", "onnxruntime", "tokenizers", "safetensors", "faiss-cpu")


def export_model(
    source: Source, format: Format, folder: Path, *, data: OwnData | NoData, max_drop: float
) -> Manifest:
    """Write an export, whole or not at all, once it was seen to answer as its source does.

    Args:
      data: of the source, from ``own_data``.
      max_drop: the most of the main score on validation that may be lost where something rounds.

    Raises:
      UserError: the folder is not free, the format cannot hold the model, what was written
        answers otherwise, or the disk is full.
    """
    check_free(folder)
    with atomic_folder(folder) as scratch:
        format.write(source, scratch)
        size = sum(path.stat().st_size for path in scratch.rglob("*") if path.is_file())
        shutil.copyfile(source.opened.tokenizer_file, scratch / TOKENIZER)
        if source.opened.task is not None:
            source.kind.mark(scratch, source.opened.task.saved)
        plain = _manifest(source, format, {}, {})
        runtime = ExportRuntime(format.open(scratch, plain, None), format.compiles)
        written = dataclasses.replace(source.opened, runtime=runtime, model=None)
        rounds = family_of(source.model.config).rounds(source.model.config)
        parity = written_parity(
            source,
            written,
            format,
            data,
            tolerance=None if rounds else format.tolerance,
            max_drop=max_drop,
        )
        write_golden(source.opened, written, scratch)
        card = export_card(source, format, parity, size)
        (scratch / CARD).write_text(card, encoding="utf-8")
        manifest = _manifest(source, format, digests_of(scratch), parity)
        write_manifest(scratch, manifest)
    return manifest


def formats_asked(text: str) -> list[Format]:
    """The formats of ``onnx,hf``.

    Raises:
      UserError: for an unknown one, or none.
    """
    asked = [name.strip() for name in text.split(",") if name.strip()]
    if not asked:
        raise UserError("--format names no format")
    return [format_named(name, where=f"in --format {text}") for name in dict.fromkeys(asked)]


def places(run: Path, formats: Sequence[Format], output: Path | None) -> list[Path]:
    """Where each format goes: ``output`` for one alone, else a folder each."""
    if output is not None and len(formats) == 1:
        return [output]
    parent = run / "export" if output is None else output
    return [parent / format.name for format in formats]


def _manifest(
    source: Source, format: Format, files: dict[str, str], parity: dict[str, Any]
) -> Manifest:
    opened = source.opened
    return Manifest(
        format=format.name,
        task=opened.task.task if opened.task else CLASSIFICATION,
        label_names=opened.label_names,
        max_length=opened.max_length,
        pairs=source.pairs,
        temperature=opened.temperature,
        source=source.birth,
        files=files,
        versions={"distill_jax": VERSION, **installed_versions()},
        parity=parity,
        per_token=source.model.config.shape.per_token,
    )


def installed_versions() -> dict[str, str]:
    """Of the packages that an export hangs on, where they are there."""
    found = {}
    for name in _VERSIONS:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
