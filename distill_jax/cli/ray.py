"""``distill-jax ray``: the parts of a table on a Ray cluster."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from distill_jax.cli.results import conclude
from distill_jax.cli.run import parse_flags
from distill_jax.core.errors import UserError


@dataclass(frozen=True)
class RunOnRay:
    """Run a command that trains a table in parts, on a Ray cluster or on this machine.

    distill-jax ray --parts 4 [flags] -- python experiments/label_fraction.py [its flags]

    A part that dies with its process, worker or machine is started again and goes on. The
    ledgers are joined as parts end, and the whole table is written and printed.
    """

    parts: int
    """Into how many parts the table is cut; Ray runs as many at once as there is room for."""
    output_dir: Path = Path("results")
    """The command's --output-dir."""
    cpus: float = 1.0
    """Cores, and threads, of a part."""
    gpus: float = 0.0
    """GPUs of a part; 0.5 puts two on one."""
    tpus: float = 0.0
    """TPU chips of a part."""
    retries: int = 3
    """How often a part that died is started again."""
    address: str | None = None
    """Of a Ray cluster; by default $RAY_ADDRESS, else a Ray of its own on this machine."""


def main(arguments: Sequence[str]) -> None:
    """Run, join, write and print."""
    own, command = list(arguments), []
    if "--" in own:
        cut = own.index("--")
        own, command = own[:cut], own[cut + 1 :]
    args = parse_flags(RunOnRay, own, "distill-jax ray")
    if not command:
        raise UserError("no command given: distill-jax ray --parts N -- COMMAND [ARGUMENT...]")
    if args.output_dir.exists() and not args.output_dir.is_dir():
        raise UserError(f"--output-dir {args.output_dir} is a file")

    from rich.console import Console

    from distill_jax.engine.ray_parts import Resources, run_parts
    from distill_jax.tables.outputs import load_results

    folders = run_parts(
        command,
        args.parts,
        args.output_dir,
        lambda line: print(line, flush=True),
        resources=Resources(args.cpus, args.gpus, args.tpus),
        retries=args.retries,
        address=args.address,
    )
    console = Console()
    for folder in folders:
        conclude(*load_results(folder), folder, console)
    sys.stdout.flush()
