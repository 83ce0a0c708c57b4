"""The race: the table of ``compare-losses`` from the command on, ours against PyTorch's, and steps.

    make bench                                        # installs PyTorch when it is missing
    make bench ARGS="--repeats 3"
    make bench ARGS="--tiny"                          # a toy, to see that it works
    python tools/bench/race.py --competitors ours --no-steps

Ours is run twice in a row: from a home that holds nothing but the assets, then from one that holds
the compiled programs of the first run as well. PyTorch's is ``torch_table.py``, which reads tokens
and first weights from a file; the rest of the table (latencies, calibration, tests, yardsticks,
report) only ours makes, in its time. Writes ``race.json`` and ``race.md``.
"""

import dataclasses
import importlib.util
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import steps
import tyro
from race_page import Made, page, show
from rich.console import Console
from steps import BENCH, ROOT, environment
from tiny import HASTE, make_world

from distill_jax.cli.run import run
from distill_jax.core.errors import UserError
from distill_jax.core.files import home, write_atomic
from distill_jax.tables.ledger import Ledger
from distill_jax.tables.provenance import provenance

OURS = "ours"
TORCH = {
    "torch-f32": (),
    "torch-bf16": ("--precision", "bf16"),
    "torch-f32-cached": ("--teacher", "cached"),
    "torch-bf16-cached": ("--precision", "bf16", "--teacher", "cached"),
    "torch-bf16-compiled": ("--precision", "bf16", "--compile"),
}
"""Competitor -> flags of ``torch_table.py``."""
RESULTS = ROOT / "experiments/results/bench"
BUSY = 0.5
"""Load of the machine, before the race, above which that is said."""


@dataclass(frozen=True)
class Arguments:
    """Ours against PyTorch: a whole table, and steps side by side."""

    competitors: tuple[str, ...] = (OURS, *tuple(TORCH)[:4])
    """In the order of a turn: ours, torch-f32, torch-bf16 (the teacher asked in every step),
    torch-f32-cached, torch-bf16-cached (its logits kept), torch-bf16-compiled."""
    repeats: int = 1
    """Turns of the table."""
    flags: str = ""
    """Of compare-losses, for another table than the default one: --flags="--seeds 0 1"."""
    table: bool = True
    steps: bool = True
    rounds: int = 15
    """Of the steps."""
    step_competitors: tuple[str, ...] = (OURS, f"{OURS}-bf16", "torch-f32", "torch-bf16")
    """Of the steps, those of PyTorch where it is in the race."""
    tiny: bool = False
    """A toy table and toy sizes; nothing is fetched and no figure means anything."""
    output: Path = RESULTS
    """Folder of race.json and race.md."""


def main(args: Arguments) -> None:
    """Race, print, write."""
    check(args)
    if args.tiny:  # much is compiled and little computed
        os.environ.setdefault("XLA_FLAGS", HASTE)
    console, load = Console(), os.getloadavg()[0]
    if load > BUSY:
        console.print(f"warning: something else is running here (load {load:.1f})", style="yellow")
    with tempfile.TemporaryDirectory() as scratch:
        made = run_tables(args, Path(scratch)) if args.table else []
    seconds = steps.measure(step_arguments(args)) if args.steps else {}
    machine = {**provenance(), "load before": load, "torch": torch_version()}
    results = {
        "machine": machine,
        "arguments": {k: str(value) for k, value in vars(args).items() if k != "output"},
        "tables": [dataclasses.asdict(each) for each in made],
        "steps": seconds,
    }
    show(console, made, seconds)
    write_atomic(args.output / "race.json", json.dumps(results, indent=1) + "\n")
    write_atomic(args.output / "race.md", page(made, seconds, machine))
    print(args.output / "race.md")


def check(args: Arguments) -> None:
    """Raises ``UserError`` for unknown competitors, or for PyTorch's where there is none."""
    for name in args.competitors:
        if name not in (OURS, *TORCH):
            raise UserError(f"no competitor {name!r}; there are {', '.join((OURS, *TORCH))}")
    if set(args.competitors) & set(TORCH) and importlib.util.find_spec("torch") is None:
        raise UserError(
            "PyTorch is not installed: make bench installs it; or race alone, --competitors ours"
        )


def step_arguments(args: Arguments) -> steps.Arguments:
    """What is timed step by step: the competitors that take steps of their own kind."""
    names = args.step_competitors
    if not set(args.competitors) & set(TORCH):
        names = tuple(name for name in names if name.startswith(OURS))
    return steps.Arguments(names, rounds=args.rounds, tiny=args.tiny)


def run_tables(args: Arguments, scratch: Path) -> list[Made]:
    """All turns of the table."""
    flags = [*(make_world(scratch / "world") if args.tiny else ()), *shlex.split(args.flags)]
    inputs = scratch / "inputs"
    command([sys.executable, str(BENCH / "export.py"), str(inputs), *flags])
    read_from_disk_once(args)
    made = []
    for turn in range(args.repeats):
        for name in args.competitors:
            print(f"turn {turn + 1} of {args.repeats}: {name}", flush=True)
            folder = scratch / f"{name}-{turn}"
            folder.mkdir()
            made += ours(folder, flags) if name == OURS else [torch(name, folder, inputs)]
            shutil.rmtree(folder)
    return made


def read_from_disk_once(args: Arguments) -> None:
    """Import what will be imported, so that no competitor waits for a cold disk."""
    modules = ["distill_jax.tasks.classification.table", "matplotlib.figure"]
    if set(args.competitors) & set(TORCH):
        modules += ["torch", "transformers.models.bert"]
    for module in modules:
        command([sys.executable, "-c", f"import {module}"])


def ours(folder: Path, flags: list[str]) -> list[Made]:
    """Our table twice: from the assets alone, and with the programs compiled by then."""
    cold, warm = folder / "cold", folder / "warm"
    made = [our_table(f"{OURS}, cold", cold, flags)]
    warm.mkdir()
    shutil.move(cold / "home/compiled", warm / "compiled")
    return [*made, our_table(f"{OURS}, warm", warm, flags, compiled=warm / "compiled")]


def our_table(name: str, folder: Path, flags: list[str], compiled: Path | None = None) -> Made:
    """The command's table, in a home of its own.

    Args:
      compiled: programs that the home holds beside the assets.
    """
    own = folder / "home"
    own.mkdir(parents=True)
    if (assets := home() / "assets").is_dir():
        (own / "assets").symlink_to(assets)
    if compiled:
        compiled.rename(own / "compiled")
    phases, results = folder / "phases.json", folder / "results"
    script = ROOT / "experiments/compare_losses.py"
    words = [str(BENCH / "phases.py"), str(phases), str(script), "--output-dir", str(results)]
    seconds = command([sys.executable, *words, *flags], DISTILL_JAX_HOME=str(own))
    told = json.loads(phases.read_text())
    accuracy: dict[str, dict[int, float]] = {}
    for row in Ledger(results / "ledger.jsonl").rows():
        if row.group != "yardstick":
            accuracy.setdefault(row.row, {})[row.seed] = row.metrics["test/accuracy"]
    return Made(name, seconds, told["seconds"], accuracy, told["counts"])


def torch(name: str, folder: Path, inputs: Path) -> Made:
    """PyTorch's table."""
    output = folder / "table.json"
    words = [str(BENCH / "torch_table.py"), "--inputs", str(inputs), "--output", str(output)]
    seconds = command([sys.executable, *words, *TORCH[name]])
    told: dict[str, Any] = json.loads(output.read_text())
    accuracy: dict[str, dict[int, float]] = {}
    for each in told["runs"]:
        accuracy.setdefault(each["objective"], {})[each["seed"]] = each["accuracy"]
    return Made(name, seconds, told["seconds"], accuracy, {"compile": told["compile"]})


def command(words: list[str], **variables: str) -> float:
    """Run a command to its end; the seconds it took.

    Raises:
      UserError: with the end of what it said, where it failed.
    """
    env = environment(**variables)
    env.pop("JAX_COMPILATION_CACHE_DIR", None)
    started = time.perf_counter()
    done = subprocess.run(
        words, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    seconds = time.perf_counter() - started
    if done.returncode:
        shown = " ".join(words)
        raise UserError(f"{shown} ended with {done.returncode}:\n{done.stdout[-2000:]}")
    return seconds


def torch_version() -> str:
    """Of PyTorch, where it is installed."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("torch")
    except PackageNotFoundError:
        return "not installed"


if __name__ == "__main__":
    run(lambda: main(tyro.cli(Arguments)))
