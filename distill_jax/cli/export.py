"""``distill-jax export``: a finished student in the formats that other software runs."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from distill_jax.cli.run import parse_flags
from distill_jax.core.errors import UserError


@dataclass(frozen=True)
class Export:
    """Write a finished student for use elsewhere.

    Each format is a folder of its own: the model, its tokeniser, export.json, which says of what it
    was made and what its files must be, and README.md, which says how it is loaded. It is written
    when it was seen to answer as the student does, or not at all.
    """

    run: Annotated[Path, tyro.conf.Positional]
    """A run's folder (results/compare_losses/runs/HASH) or any folder with a model of texts, a
    recommender or towers."""
    format: str | None = None
    """hf, onnx, onnx-int8, stablehlo; several with commas between; by default onnx. Of recommenders
    and towers vectors: items.npy, an index of them and the programs that make more."""
    output: Path | None = None
    """Where to: the folder of one format, or the folder in which each of several gets its own; by
    default RUN/export."""
    max_drop: float = 0.02
    """The most accuracy on validation that 8 bits may cost, as a share; of other tasks the most of
    their main score. More is refused."""


def main(arguments: Sequence[str]) -> None:
    """Open the run, write each format, say where it is."""
    args = parse_flags(Export, arguments, "distill-jax export")

    from distill_jax.export.retrievers import is_retriever

    if is_retriever(args.run):
        _export_vectors(args)
    else:
        _export_classifier(args)


def _export_vectors(args: Export) -> None:
    from distill_jax.export.vectors import FORMAT, export_vectors

    if args.format not in (None, FORMAT):
        raise UserError(f"recommenders and towers are exported as {FORMAT}, not as {args.format}")
    target = args.output or args.run / "export" / FORMAT
    manifest = export_vectors(args.run, target)
    said, worst = manifest.retrieval, manifest.parity["worst_difference"]
    print(
        f"{FORMAT}: {target}  ({said['items']:,} items of {said['numbers']} numbers; scores within "
        f"{worst:.1e} of the student's for {manifest.parity['askers']} askers)"
    )


def _export_classifier(args: Export) -> None:
    from distill_jax.export.own_data import OwnData, own_data
    from distill_jax.export.probes import PROBES
    from distill_jax.export.source import open_source
    from distill_jax.export.write import export_model, formats_asked, places
    from distill_jax.models.loaded import check_free

    if args.format == "vectors":
        raise UserError("the format vectors is for recommenders and towers; a classifier has none")
    formats = formats_asked(args.format or "onnx")
    source = open_source(args.run)
    targets = places(args.run, formats, args.output)
    for target in targets:
        check_free(target)
    data = own_data(source)
    if not isinstance(data, OwnData):
        print(
            f"compared on {len(PROBES)} texts of ours: {data.reason}{data.detail}", file=sys.stderr
        )
    for format, target in zip(formats, targets, strict=True):
        manifest = export_model(source, format, target, data=data, max_drop=args.max_drop)
        print(f"{format.name}: {target} ({_told(manifest.parity)})")


def _told(parity: Mapping[str, Any]) -> str:
    """What was checked, in a line."""
    from distill_jax.export.parity import scores_told

    told = (
        f"logits within {parity['worst_difference']:.1e} of the student's on "
        f"{parity['sentences']:,} sentences"
    )
    metric, scores = scores_told(parity)
    for split, score in scores.items():
        before, after = 100 * score["source"], 100 * score["export"]
        told += f"; {split} {metric} {before:.1f}% -> {after:.1f}%"
    return told
