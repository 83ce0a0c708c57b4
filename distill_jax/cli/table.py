"""``distill-jax table``: every output of an experiment anew, from its ledger."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import tyro

from distill_jax.cli.results import results_folder
from distill_jax.cli.run import parse_flags
from distill_jax.core.errors import UserError


@dataclass(frozen=True)
class RebuildTable:
    """Rebuild table, figures and report of an experiment from its ledger; nothing is trained.

    Reads table.json and ledger.jsonl. A ledger without table.json is tabulated whole: a block a
    student, a line an objective, tested against ce.
    """

    name: Annotated[str, tyro.conf.Positional] = "compare_losses"
    """A folder, or an experiment under results/ or experiments/results/."""
    output_dir: Path | None = None
    """Where the outputs go; by default beside the ledger."""
    against: Literal["baseline", "best"] | None = None
    """best: rows stand against the best of their group, all pairs are tested and corrected for,
    and letters say which differ. By default as the table was."""


def main(arguments: Sequence[str]) -> None:
    """Read, write, print the table and the paths of what was written."""
    args = parse_flags(RebuildTable, arguments, "distill-jax table")
    source = results_folder(args.name)
    folder = args.output_dir or source
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--output-dir {folder} is a file")

    from rich.console import Console

    from distill_jax.tables.build import table_of
    from distill_jax.tables.outputs import load_results, show, write_outputs

    spec, rows = load_results(source)
    if args.against is not None:
        spec = replace(spec, against=args.against)
    table = table_of(spec, rows)
    paths = write_outputs(table, folder)
    show(table, Console())
    for path in paths:
        print(path)
    sys.stdout.flush()
