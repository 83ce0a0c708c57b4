"""``distill-jax export``: a finished student in the formats that other software runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from distill_jax.cli.run import parse_flags


@dataclass(frozen=True)
class Export:
    """Write a finished student for use elsewhere.

    Each format is a folder of its own: the model, its tokeniser, export.json, which says of what it
    was made and what its files must be, and README.md, which says how it is loaded. It is written
    when it was seen to answer as the student does, or not at all.
    """

    run: Annotated[Path, tyro.conf.Positional]
    """A run's folder (results/compare_losses/runs/HASH) or any folder with a text classifier."""
    format: str = "onnx"
    """hf, onnx, onnx-int8, stablehlo; several with commas between."""
    output: Path | None = None
    """Where to: the folder of one format, or the folder in which each of several gets its own; by
    default RUN/export."""


def main(arguments: Sequence[str]) -> None:
    """Open the run, write each format, say where it is."""
    args = parse_flags(Export, arguments, "distill-jax export")

    from distill_jax.export.source import open_source
    from distill_jax.export.write import export_model, formats_asked, places
    from distill_jax.models.loaded import check_free

    formats = formats_asked(args.format)
    source = open_source(args.run)
    targets = places(args.run, formats, args.output)
    for target in targets:
        check_free(target)
    for format, target in zip(formats, targets, strict=True):
        manifest = export_model(source, format, target)
        parity = manifest.parity
        print(
            f"{format.name}: {target}  (logits within {parity['worst_difference']:.1e} of the "
            f"student's on {parity['sentences']} sentences)"
        )
