"""``distill-jax compress``: prune, distil again, trim, quantise a finished student, hop by hop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from distill_jax.cli.results import open_console
from distill_jax.cli.run import parse_flags
from distill_jax.core.errors import UserError
from distill_jax.engine.options import DEFAULTS, RunOptions

SHOWN = ("hop", "validation %", "lost", "test %", "MB", "p50 ms", "kept")
"""What of the report's columns fits a terminal."""


@dataclass(frozen=True)
class Compress:
    """Make a finished student smaller, step by step, and measure every hop.

    Steps: prune, distil, drop, vocabulary, int8; docs/compression.md has their options. Each hop's
    model is a folder that predict opens. Stopped or killed, the same command goes on.
    """

    run: Annotated[Path, tyro.conf.Positional]
    """A finished student's folder: results/compare_losses/runs/HASH."""
    steps: str
    """What to do, in order: "prune(0.5) -> distil -> int8"."""
    max_drop: float = 1.0
    """Points of accuracy on validation, or of the main score of another task, that a hop may lose
    against the run; of one that loses more no model is written. Where the last hop is one, the
    command fails (exit code 2)."""
    output: Path | None = None
    """Folder of the ledger, the report and the models; by default RUN/compressed."""
    plugin: Path | None = None
    """The file of your own losses, where the run was trained with some."""
    options: Annotated[RunOptions, tyro.conf.OmitArgPrefixes, tyro.conf.arg(name="how")] = DEFAULTS


def main(arguments: Sequence[str]) -> None:
    """Parse, run, print the table and the paths of what was written."""
    args = parse_flags(Compress, arguments, "distill-jax compress")
    if not args.max_drop >= 0:
        raise UserError(f"--max-drop must not be negative, not {args.max_drop:g}")
    if not args.options.share.whole:
        raise UserError("a pipeline has no parts: leave out --part")
    from distill_jax.compression.grammar import parse_steps

    steps = parse_steps(args.steps)
    output = args.output or args.run / "compressed"
    if output.exists() and not output.is_dir():
        raise UserError(f"--output {output} is a file")
    if not args.run.is_dir():
        raise UserError(f"no finished run at {args.run}")

    console = open_console()
    from rich.box import SIMPLE
    from rich.table import Table
    from rich.text import Text

    from distill_jax.compression.pipeline import compress, too_much
    from distill_jax.compression.report import HEAD, table_rows, write_report
    from distill_jax.engine.progress import Reporter

    if args.plugin is not None:
        from distill_jax.objectives.plugins import load_plugin

        load_plugin(args.plugin)
    result = compress(
        args.run,
        steps,
        output,
        Reporter(console),
        max_drop=args.max_drop,
        options=args.options,
    )
    places = [HEAD.index(name) for name in SHOWN]
    table = Table(*SHOWN, box=SIMPLE)
    for row in table_rows(result):
        table.add_row(*(Text(row[place].replace("`", "")) for place in places))
    console.print(table)
    for path in (*write_report(result, output), *(h.folder for h in result.hops[1:] if h.kept)):
        print(path)
    if (hop := result.refused) is not None:
        raise UserError(
            f"{hop.label} {too_much(hop, args.max_drop)}. Prune less, distil longer, or allow more "
            "with --max-drop"
        )
