"""What became of a student, hop by hop: a table for people, and the same as JSON."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from distill_jax.compression.pipeline import Hop, Result, lost
from distill_jax.tables.ledger import LedgerRow
from distill_jax.tables.pages import write_page
from distill_jax.tasks.classification.finished import kind_of
from distill_jax.tasks.kinds.kind import Kind

REPORT = "report.md"
HEAD = (
    "hop",
    "validation %",
    "lost",
    "test %",
    "gain on test",
    "parameters",
    "zeros %",
    "MB",
    "p50 ms",
    "as before %",
    "as teacher %",
    "kept",
)
EXPLAINED = """
{score} with the 95% interval over examples (percentile bootstrap); *lost*: points of it on
validation against the run as it is; *gain on test*: the same on test, with the interval of the
paired bootstrap over examples. *zeros*: share of the layers' weights that are 0. *MB*: of the
weights. *p50*: median time of one test example on the CPU. *as before*, *as teacher*: share of the
test examples of which the hop before, or the teacher, says the same. One seed: the intervals say
nothing of another training.
"""


def write_report(result: Result, folder: Path) -> list[Path]:
    """Write ``report.md`` and ``report.json``; returns their paths."""
    return write_page(folder / REPORT, to_markdown(result), to_data(result))


def to_markdown(result: Result) -> str:
    """The table, what its columns mean, and where the models are."""
    lines = [HEAD, tuple("---" for _ in HEAD), *table_rows(result)]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    kept = [f"- {hop.label}: `{hop.folder}`" for hop in result.hops if hop.kept]
    notes = [f"- {hop.label}: {note}" for hop in result.hops for note in hop.notes]
    limit = f"A hop that loses more than {result.max_drop:g} points on validation is not kept."
    return "\n".join(
        [
            f"# Compressed: {result.hops[0].row.group}, {result.hops[0].row.hash}",
            "",
            table,
            EXPLAINED.format(score=score_told(kind_of(result.hops[0].row))),
            limit,
            "",
            "Models:",
            *kept,
            *(["", "Notes:", *notes] if notes else []),
            "",
        ]
    )


def score_told(kind: Kind) -> str:
    """The main score, for people."""
    title = kind.columns[0].title
    told = title.removesuffix(" %") if title.endswith(" %") else f"{title}, times 100,"
    return told[0].upper() + told[1:]


def table_rows(result: Result) -> list[tuple[str, ...]]:
    """The cells of the table, a hop a row, the teacher last."""
    first = result.hops[0].row
    rows = [_cells(hop.label, hop.row, first, "yes" if hop.kept else "no") for hop in result.hops]
    if result.teacher is not None:
        rows.append(_cells("teacher", result.teacher, None, ""))
    return rows


def _cells(label: str, row: LedgerRow, first: LedgerRow | None, kept: str) -> tuple[str, ...]:
    at = {name: value for name, value in row.metrics.items() if not math.isnan(value)}
    score = kind_of(row).main

    def interval(name: str, low: str, high: str, form: str = ".1f") -> str:
        if name not in at:
            return ""
        ends = f" [{100 * at[low]:{form}}, {100 * at[high]:{form}}]" if low in at else ""
        return f"{100 * at[name]:{form}}{ends}"

    def number(name: str, form: str, factor: float = 1) -> str:
        return format(at[name] * factor, form) if name in at else ""

    drop = "" if first is None or first is row else f"{lost(row, first):+.1f}"
    return (
        f"`{label}`",
        interval(f"validation/{score}", "validation/low", "validation/high"),
        drop,
        interval(f"test/{score}", "test/low", "test/high"),
        interval("test/gain", "test/gain_low", "test/gain_high", "+.1f"),
        number("parameters", ",.0f"),
        number("sparsity", ".1f", 100),
        number("bytes", ".2f", 1e-6),
        number("latency/p50_ms", ".2f"),
        number("test/agreement", ".1f", 100),
        number("test/fidelity", ".1f", 100),
        kept,
    )


def to_data(result: Result) -> dict[str, Any]:
    """The same as plain JSON; NaN becomes null."""
    first = result.hops[0].row
    return {
        "run": first.hash,
        "max_drop": result.max_drop,
        "hops": [_hop_data(hop, first) for hop in result.hops],
        "teacher": None if result.teacher is None else _plain(result.teacher),
    }


def _hop_data(hop: Hop, first: LedgerRow) -> dict[str, Any]:
    return {
        "steps": hop.label,
        "hash": hop.row.hash,
        "folder": str(hop.folder),
        "kept": hop.kept,
        "lost": lost(hop.row, first),
        "notes": list(hop.notes),
        "metrics": _plain(hop.row),
    }


def _plain(row: LedgerRow) -> dict[str, float | None]:
    return {n: value if math.isfinite(value) else None for n, value in row.metrics.items()}
