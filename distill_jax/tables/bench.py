"""What models cost, as a table: every figure, and beside it its share of the teacher's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Figure:
    """A column.

    Attributes:
      key: of a row.
      title: for people, with the unit.
      scale: from the row's number to that unit.
      digits: behind the point.
    """

    key: str
    title: str
    scale: float = 1.0
    digits: int = 0


MEGA = 1e-6
FIGURES = (
    Figure("parameters", "parameters, M", MEGA, 2),
    Figure("bytes_on_disk", "on disk, MB", MEGA, 1),
    Figure("peak_bytes", "peak memory, MB", MEGA),
    Figure("p50_ms", "p50, ms", digits=2),
    Figure("p95_ms", "p95, ms", digits=2),
    Figure("texts_per_second", "texts/s in batches"),
)


def bench_markdown(rows: Sequence[Mapping[str, Any]], about: Sequence[str]) -> str:
    """The table, and under it what was measured how.

    Args:
      rows: ``name``, ``runtime`` and a number for each figure; the first one is the teacher's.
      about: lines of text.
    """
    titles = ["model", "runtime", *(figure.title for figure in FIGURES)]
    lines = [titles, ["---", "---", *["---:"] * len(FIGURES)]]
    for row in rows:
        cells = [_shown(row, rows[0], figure) for figure in FIGURES]
        lines.append([str(row["name"]), str(row["runtime"]), *cells])
    table = "\n".join("| " + " | ".join(_escaped(cell) for cell in line) + " |" for line in lines)
    return f"{table}\n\n" + "\n".join(about) + "\n"


def _shown(row: Mapping[str, Any], first: Mapping[str, Any], figure: Figure) -> str:
    value, one = float(row[figure.key]), float(first[figure.key])
    shown = f"{value * figure.scale:,.{figure.digits}f}"
    return f"{shown} ({_times(value / one)})" if one else shown


def _times(ratio: float) -> str:
    """Two digits at least that tell something."""
    if ratio >= 100:
        return f"{ratio:,.0f}"
    return f"{ratio:.2f}" if ratio >= 0.1 else f"{ratio:.2g}"


def _escaped(cell: str) -> str:
    return cell if set(cell) <= {"-", ":"} else cell.replace("|", "\\|")
