"""What the experiment scripts share: flags, the run, the outputs."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from distill_jax.cli.precision import computing_in
from distill_jax.cli.results import conclude, open_console
from distill_jax.cli.run import parse_flags, run
from distill_jax.core.errors import UserError, unknown
from distill_jax.engine.options import DEFAULTS, Precision, RunOptions, Strategy, TrackTo

if TYPE_CHECKING:
    from rich.console import Console

    from distill_jax.engine.interface import Task
    from distill_jax.engine.sweep import Sweep
    from distill_jax.tables.ledger import LedgerRow
    from distill_jax.tables.spec import TableSpec


@dataclass(frozen=True)
class TableFlags:
    """Flags of every command that trains a table, whatever its task."""

    plugin: Path | None = None
    """A Python file of yours with more losses; it is run before the rows are named."""
    strategy: Strategy = "auto"
    """One after another, or many students in one step; auto times both, takes the faster."""
    precision: Precision = "f32"
    """f32. bf16: students compute in bfloat16. bf16-params: their parameters are bfloat16 too."""
    track: TrackTo = "none"
    """Where learning curves go, beside the ledger."""
    options: Annotated[RunOptions, tyro.conf.OmitArgPrefixes, tyro.conf.arg(name="run")] = DEFAULTS

    def use_plugin(self) -> None:
        """Run the user's file, so that the losses in it can be named."""
        if self.plugin is not None:
            from distill_jax.objectives.plugins import load_plugin

            load_plugin(self.plugin)

    def run(
        self, task: "Task[Any]", folder: Path, console: "Console"
    ) -> "tuple[TableSpec, list[LedgerRow]]":
        """Run a table, write and print it; what it shows, and its rows."""
        from distill_jax.engine.progress import Reporter
        from distill_jax.engine.run import run_table

        if folder.exists() and not folder.is_dir():
            raise UserError(f"{folder} is a file")
        reporter = Reporter(console)
        reporter.say(f"{task.sweep.name}: {task.sweep.title}")
        spec, rows = run_table(
            task, folder, reporter, track=self.track, strategy=self.strategy, options=self.options
        )
        conclude(spec, rows, folder, console, self.options.share)
        return spec, rows


@dataclass(frozen=True)
class Flags(TableFlags):
    """Flags of the experiments of texts; what is compared stands in the script itself."""

    preset: Literal["default", "smoke"] = "default"
    """default: as committed under experiments/results. smoke: the whole path in a few minutes."""
    seeds: tuple[int, ...] = ()
    """Instead of the experiment's own."""
    teacher_seeds: tuple[int, ...] = ()
    """Seeds of the teacher's fine-tuning: the i-th seed hears the i-th of these teachers, from the
    start again when they run out; by default one teacher for all seeds."""
    label_seeds: tuple[int, ...] = ()
    """The same for the draw of the labels that are used; by default one draw for all seeds."""
    data: str | None = None
    """Another data set: files:FOLDER, tfds:NAME ..."""
    precision: Precision = "f32"
    """f32. bf16: students and teacher compute in bfloat16. bf16-params: students' parameters are
    bfloat16 too."""
    tables: tuple[str, ...] = ()
    """Of a script that makes several: some of them, by their names; default: all."""
    output_dir: Path | None = None
    """Tables go to folders under this one, NAME or NAME-smoke; default: results."""


@dataclass(frozen=True)
class HalfPrecision(Flags):
    """The same for experiments whose committed tables were computed in bfloat16."""

    precision: Precision = "bf16"
    """bf16: students and teacher compute in bfloat16. bf16-params: students' parameters are
    bfloat16 too. f32: in float32."""


def run_experiment(
    declare: Callable[[Flags], "Sequence[Sweep[Any]]"],
    arguments: Sequence[str] | None = None,
    flags: type[Flags] = Flags,
) -> None:
    """Parse the flags, run the tables that the script declares, write and print them."""
    run(lambda: _main(declare, sys.argv[1:] if arguments is None else arguments, flags))


def _main(
    declare: Callable[[Flags], "Sequence[Sweep[Any]]"],
    arguments: Sequence[str],
    known: type[Flags],
) -> None:
    flags = parse_flags(known, arguments, Path(sys.argv[0]).name)
    flags.use_plugin()
    sweeps = chosen_tables(declare(flags), flags.tables)
    for name in ("seeds", "teacher_seeds", "label_seeds"):
        if given := getattr(flags, name):
            sweeps = [replace(sweep, **{name: given}) for sweep in sweeps]
    sweeps = [computing_in(sweep, flags.precision) for sweep in sweeps]

    console = open_console()
    for sweep in sweeps:
        _run(sweep, flags, console)


def chosen_tables(sweeps: "Sequence[Sweep[Any]]", names: Sequence[str]) -> "list[Sweep[Any]]":
    """Those of a script's tables that are named, in the script's order; all where none is.

    Raises:
      UserError: for a table that the script does not make.
    """
    known = [sweep.name for sweep in sweeps]
    for name in names:
        if name not in known:
            raise unknown("table", name, known)
    return [sweep for sweep in sweeps if not names or sweep.name in names]


def _run(sweep: "Sweep[Any]", flags: Flags, console: "Console") -> None:
    from distill_jax.tasks.classification.table import Classification

    suffix = "" if flags.preset == "default" else f"-{flags.preset}"
    folder = (flags.output_dir or Path("results")) / f"{sweep.name}{suffix}"
    flags.run(Classification(sweep), folder, console)
