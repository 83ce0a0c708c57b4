"""``distill-jax ledger``: what was run, and what came out."""

import csv
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from distill_jax.cli.run import parse_flags
from distill_jax.core.errors import UserError

if TYPE_CHECKING:
    from distill_jax.sweeps.ledger import LedgerRow


@dataclass(frozen=True)
class ListLedger:
    """List the rows of a ledger, filter them, show one whole, or export them as CSV."""

    path: Annotated[Path, tyro.conf.Positional] = Path("results/compare_losses/ledger.jsonl")
    """The ledger."""
    student: str | None = None
    """Only rows of this student."""
    objective: str | None = None
    """Only rows of this objective, as the table names it."""
    show: str | None = None
    """Print one row whole, by its hash or the beginning of it."""
    csv: bool = False
    """Print every row as CSV, all metrics included."""


def main(arguments: Sequence[str]) -> None:
    """Read and print; nothing is changed."""
    args = parse_flags(ListLedger, arguments, "distill-jax ledger")

    from distill_jax.sweeps.ledger import Ledger

    if not args.path.is_file():
        raise UserError(f"no ledger at {args.path}")
    rows = [
        row
        for row in Ledger(args.path).rows()
        if args.student in (None, row.group) and args.objective in (None, row.row)
    ]
    if args.show is not None:
        found = [row for row in rows if row.hash.startswith(args.show)]
        if len(found) != 1:
            raise UserError(f"{len(found)} rows of {args.path} have a hash like {args.show!r}")
        print(json.dumps(json.loads(found[0].to_json()), indent=1, ensure_ascii=False))
    elif args.csv:
        _print_csv(rows)
    else:

        def line(row: "LedgerRow") -> str:
            accuracy = row.metrics.get("test/accuracy", math.nan)
            return (
                f"{row.hash}  {row.finished_at}  {row.group:<10} {row.row:<28} "
                f"seed {row.seed:<3} test accuracy {100 * accuracy:5.1f}%"
            )

        for row in rows:
            print(line(row))
        print(f"{len(rows)} rows")


def _print_csv(rows: Sequence["LedgerRow"]) -> None:
    metrics = sorted({key for row in rows for key in row.metrics})
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(["hash", "student", "objective", "seed", "finished_at", *metrics])
    for row in rows:
        numbers = [row.metrics.get(key, "") for key in metrics]
        writer.writerow([row.hash, row.group, row.row, row.seed, row.finished_at, *numbers])
