"""``distill-jax update``: new data have come; a finished student goes on learning."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from distill_jax.cli.results import open_console
from distill_jax.cli.run import parse_flags
from distill_jax.core.errors import UserError
from distill_jax.engine.options import DEFAULTS, RunOptions

if TYPE_CHECKING:
    from distill_jax.engine.progress import Reporter


@dataclass(frozen=True)
class UpdateRun:
    """Let a finished student go on with new texts, images or interactions.

    It learns from the new examples and, again, from some of the old ones, with what its teacher
    said of those the first time; the teacher is asked about the new ones. The report has old and
    new scores, what was forgotten, and how far the new inputs are from the old. Stopped or killed,
    the same command goes on; docs/update.md.
    """

    run: Annotated[Path, tyro.conf.Positional]
    """A finished student's folder, results/compare_losses/runs/HASH, or one that was brought up to
    date before, RUN/updated/runs/HASH."""
    data: str
    """The new data: files:FOLDER (train, with labels or without, and test, or transfer alone),
    images:FILE.npz, or any other name that --data takes; of a recommender interactions, in any form
    that its --data takes, or one file."""
    text: str | None = None
    """Column of the text; by default as of the run."""
    text_b: str | None = None
    """Column of the second text, for pairs; by default as of the run."""
    label: str | None = None
    """Column of the label; by default as of the run."""
    columns: str | None = None
    """Of interactions: user=...,item=...,time=...,rating=...; by default as of the run."""
    teacher_too: bool = False
    """Fine-tune the teacher further on the new labels, and on those rehearsed, before it speaks; a
    recommender's goes on with all interactions."""
    rehearse: float = 1.0
    """Old training examples that come again, as a share of the new ones, of a recommender users; 0
    for none."""
    objective: str = ""
    """What it learns with; by default the run's own."""
    epochs: float = 0.0
    """Passes over new and rehearsed examples; by default as many as the run took."""
    steps: int = 0
    """Optimiser steps instead of passes; not of a recommender."""
    rate: float = 0.0
    """Peak learning rate; by default the run's."""
    output: Path | None = None
    """Folder of the ledger, the report and the student; by default RUN/updated."""
    plugin: Path | None = None
    """The file of your own losses, where the run was trained with some."""
    options: Annotated[RunOptions, tyro.conf.OmitArgPrefixes, tyro.conf.arg(name="how")] = DEFAULTS


Shown = tuple[Sequence[str], Iterable[Sequence[str]], Sequence[Path]]
"""Head and rows of the table, and what was written."""


def main(arguments: Sequence[str]) -> None:
    """Parse, run, print the table and the paths of what was written."""
    args = parse_flags(UpdateRun, arguments, "distill-jax update")
    if not args.options.share.whole:
        raise UserError("an update has no parts: leave out --part")
    output = args.output or args.run / "updated"
    if output.exists() and not output.is_dir():
        raise UserError(f"--output {output} is a file")
    if not args.run.is_dir():
        raise UserError(f"no finished run at {args.run}")

    console = open_console()
    from rich.box import SIMPLE
    from rich.table import Table
    from rich.text import Text

    from distill_jax.engine.progress import Reporter

    if args.plugin is not None:
        from distill_jax.objectives.plugins import load_plugin

        load_plugin(args.plugin)
    update = _recommender if _is_recommender(args.run) else _classifier
    head, rows, paths = update(args, output, Reporter(console))
    table = Table(*head, box=SIMPLE)
    for row in rows:
        table.add_row(*map(Text, row))
    console.print(table)
    for path in paths:
        print(path)


def _is_recommender(run: Path) -> bool:
    from distill_jax.models.recommenders.closed_forms import is_closed_form
    from distill_jax.models.recommenders.save import is_recommender
    from distill_jax.tables.names import MODEL

    return is_recommender(run / MODEL) or is_closed_form(run / MODEL)


def _classifier(args: UpdateRun, output: Path, reporter: Reporter) -> Shown:
    from distill_jax.compression.update_report import HEAD, score_rows, write_report
    from distill_jax.compression.updating import update_run

    if args.columns is not None:
        raise UserError("--columns is of interactions; a text's are --text, --text-b and --label")
    names = ("data", "teacher_too", "rehearse", "objective", "epochs", "steps", "rate")
    found = update_run(
        args.run,
        {name: getattr(args, name) for name in names},
        output,
        reporter,
        columns={"text": args.text, "text_b": args.text_b, "label": args.label},
        options=args.options,
    )
    return HEAD, score_rows(found), (*write_report(found, output), found.folder)


def _recommender(args: UpdateRun, output: Path, reporter: Reporter) -> Shown:
    from distill_jax.tasks.recommendation.update_report import HEAD, score_rows, write_report
    from distill_jax.tasks.recommendation.updating import NewInteractions, update_recommender

    if any(each is not None for each in (args.text, args.text_b, args.label)):
        raise UserError("--text, --text-b and --label are of texts; of interactions --columns")
    if args.steps or args.epochs % 1:
        raise UserError("a recommender takes whole passes: give --epochs, and no --steps")
    new = NewInteractions(
        args.data,
        args.columns,
        args.rehearse,
        args.teacher_too,
        args.objective,
        int(args.epochs),
        args.rate,
    )
    found = update_recommender(args.run, new, output, reporter, options=args.options)
    return HEAD, score_rows(found), (*write_report(found, output), found.folder)
