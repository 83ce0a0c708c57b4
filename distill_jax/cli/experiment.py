"""What the experiment scripts share: flags, the run, the outputs."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from distill_jax.cli.run import parse_flags, run
from distill_jax.core.errors import UserError

if TYPE_CHECKING:
    from distill_jax.sweeps.sweep import Sweep


@dataclass(frozen=True)
class Flags:
    """Flags of every experiment; what is compared stands in the script itself."""

    preset: Literal["default", "smoke"] = "default"
    """default: as committed under experiments/results. smoke: the whole path in a few minutes."""
    seeds: tuple[int, ...] = ()
    """Instead of the experiment's own."""
    data: str | None = None
    """Another data set: files:FOLDER, tfds:NAME ..."""
    strategy: Literal["auto", "sequential", "vmap", "sharded"] = "auto"
    """One after another, or many students in one step; auto times both, takes the faster."""
    track: Literal["none", "tensorboard", "wandb"] = "none"
    """Where learning curves go, beside the ledger."""
    output_dir: Path | None = None
    """Default: results/NAME, with -smoke behind it for the smoke preset."""


def run_experiment(
    declare: Callable[[Flags], "Sweep"], arguments: Sequence[str] | None = None
) -> None:
    """Parse the flags, run what the script declares, write and print the table."""
    run(lambda: _main(declare, sys.argv[1:] if arguments is None else arguments))


def _main(declare: Callable[[Flags], "Sweep"], arguments: Sequence[str]) -> None:
    flags = parse_flags(Flags, arguments, Path(sys.argv[0]).name)

    from rich.console import Console

    from distill_jax.core.compiled import keep_compiled_programs
    from distill_jax.sweeps.progress import Reporter
    from distill_jax.sweeps.run import run_sweep

    sweep = declare(flags)
    if flags.seeds:
        sweep = replace(sweep, seeds=flags.seeds)
    suffix = "" if flags.preset == "default" else f"-{flags.preset}"
    folder = flags.output_dir or Path("results") / f"{sweep.name}{suffix}"
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--output-dir {folder} is a file")
    keep_compiled_programs()
    console = Console()
    spec, rows = run_sweep(
        sweep, folder, Reporter(console), track=flags.track, strategy=flags.strategy
    )
    from distill_jax.sweeps.outputs import show, write_outputs

    paths = write_outputs(spec, rows, folder)
    show(spec, rows, console)
    for path in (*paths, folder / "ledger.jsonl"):
        print(path)
    sys.stdout.flush()
