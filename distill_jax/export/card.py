"""README.md of an export: what it is, how good, of what it was made, and how it is loaded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from distill_jax.core.errors import printable
from distill_jax.data.assets import ASSETS
from distill_jax.export.formats import Format
from distill_jax.export.parity import scores_told
from distill_jax.export.source import Source, public_name
from distill_jax.tables.columns import Column
from distill_jax.tables.ledger import LedgerRow

_SCORES = {
    "test/accuracy": "accuracy",
    "test/macro_f1": "macro F1",
    "test/ece_calibrated": "calibration error (at the temperature below)",
    "test/fidelity": "agreement with the teacher",
}


def export_card(source: Source, format: Format, parity: Mapping[str, Any], size: int) -> str:
    """Markdown; the numbers are the ledger's.

    Args:
      parity: what was checked, see ``Manifest``.
      size: of the model's files, in bytes.
    """
    opened = source.opened
    reads = "pairs of texts" if source.pairs else "texts"
    made = "A text classifier" if opened.task is None else f"A model of task {opened.task.task}"
    parts = [
        f"# {made} made with distill_jax: {format.says}",
        f"{_outputs(source)}. It reads {reads} of at most {opened.max_length} tokens. "
        f"{opened.answering.reading}",
        "## Use",
        format.usage(source).strip(),
        f"Ask it: `distill-jax predict FOLDER {_asked(source)}`. Verify it: `distill-jax verify "
        "FOLDER`.",
        "## Numbers",
        "\n".join(_numbers(source, size)),
        _checked(parity),
        "## Made of",
        "\n".join(_made_of(source)),
    ]
    return "\n\n".join(parts) + "\n"


def _asked(source: Source) -> str:
    return '"a text"' + (' --second "its second text"' if source.pairs else "")


def _outputs(source: Source) -> str:
    """What the logits are of, in their order."""
    names = ", ".join(map(printable, source.opened.label_names))
    return f"{'Classes' if source.kind.has_classes else 'Outputs'}: {names}"


def _scores(source: Source) -> dict[str, Callable[[float], str]]:
    """Keys of the ledger's metrics, and what is shown of each."""
    if source.kind.has_classes:
        return {key: partial("{} | {:.1%}".format, says) for key, says in _SCORES.items()}
    own = (column for column in source.kind.columns if column.key.startswith("test/"))
    return {column.key: partial(_shown, column) for column in own}


def _shown(column: Column, value: float) -> str:
    return f"{column.title} | {column.scale * value:.{column.decimals}f}"


def data_terms(name: str) -> str:
    """Under which terms a data set, or a teacher, of this name is known to be given."""
    asset = ASSETS.get(name.split("/")[0].replace("_", "-"))
    if asset is not None:
        return asset.about + ("" if asset.terms is None else f" {asset.terms}")
    if name.startswith("tfds:"):
        return "as its page in the catalogue of TensorFlow Datasets says"
    return "not known here: ask who gave it"


def _numbers(source: Source, size: int) -> list[str]:
    rows = ["| | |", "|---|---|"]
    metrics = source.row.metrics if source.row is not None else {}
    for key, says in _scores(source).items():
        if key in metrics:
            rows.append(f"| test {says(metrics[key])} |")
    rows.append(f"| parameters | {source.birth['parameters']:,} |")
    rows.append(f"| model's files | {size / 1e6:.2f} MB |")
    if source.row is not None and "latency/p50_ms" in metrics:
        p50, p95 = metrics["latency/p50_ms"], metrics["latency/p95_ms"]
        rows.append(
            f"| latency of one text under JAX, p50 / p95 | {p50:.2f} / {p95:.2f} ms, on "
            f"{source.row.device} |"
        )
    return rows


def _checked(parity: Mapping[str, Any]) -> str:
    told = (
        f"Written when its logits were within {parity['worst_difference']:.1e} of the student's on "
        f"{parity['sentences']:,} sentences ({parity['texts']}); a text's logits differ by at most "
        f"{parity['alone_or_batched']:.1e} between being asked about alone and among others."
    )
    metric, scores = scores_told(parity)
    for split, score in scores.items():
        told += (
            f" {metric.capitalize()} on {score['sentences']:,} sentences of {split}: "
            f"{100 * score['source']:.1f}% before, {100 * score['export']:.1f}% in this format."
        )
    return told


def _made_of(source: Source) -> list[str]:
    lines = [f"- model `{source.model.digest}`, family {source.birth['family']}"]
    return lines if source.row is None else lines + _of_run(source.row)


def _of_run(row: LedgerRow) -> list[str]:
    data = public_name(row.config.get("data", {}).get("name")) or "not known"
    teacher = public_name(row.config.get("teacher", {}).get("name")) or "not known"
    prints = row.fingerprints
    return [
        f"- run `{row.hash}` of {row.experiment}: {row.group}, {row.row}, seed {row.seed}",
        f"- teacher {teacher} `{prints.get('teacher', '')}`; terms: {data_terms(teacher)}",
        f"- data {data} `{prints.get('data', '')}`; terms: {data_terms(data)}",
    ]
