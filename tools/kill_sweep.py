"""Kills an experiment at random moments, starts it again, and compares with the undisturbed one.

    python tools/kill_sweep.py --kills 5
    python tools/kill_sweep.py --kills 5 --script experiments/label_fraction.py

The smoke preset of the script runs undisturbed, then once more with SIGKILLs after waits drawn so
that they fall all over its run time. Every output that holds no times has to be the same byte for
byte, and so has every metric of the ledger but latencies.
"""

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import tyro

from distill_jax.sweeps.ledger import Ledger

ROOT = Path(__file__).resolve().parent.parent
TIMELESS = ("table.json", "table.md", "table.csv", "table.tex", "trends.md", "figure.png")


@dataclass(frozen=True)
class Arguments:
    """Kill an experiment at random moments and compare."""

    kills: int = 5
    """How often."""
    script: Path = ROOT / "experiments/kim2021_kl_vs_mse.py"
    """Its tables have to be grids: other layouts show times."""
    strategy: str = "vmap"
    """How it trains."""
    seed: int = 0
    """Of the moments."""


def main(args: Arguments) -> int:
    """Print what differs; 0 when nothing does."""
    moments = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as folder:
        undisturbed, disturbed = Path(folder, "undisturbed"), Path(folder, "disturbed")
        started = time.monotonic()
        finish(start(args, undisturbed, Path(folder, "home")))
        whole = time.monotonic() - started
        print(f"undisturbed: {whole:.0f} s")
        home = Path(folder, "home_disturbed")
        if (assets := Path(folder, "home/assets")).is_dir():
            home.mkdir()
            (home / "assets").symlink_to(assets)
        done = 0
        while done < args.kills:
            process = start(args, disturbed, home)
            wait = moments.uniform(0, 2 * whole / args.kills)
            try:
                process.wait(timeout=wait)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                done += 1
                print(f"kill {done} after {wait:.1f} s: {count_rows(disturbed)} rows", flush=True)
            else:
                print("it finished before it was killed; a kill less", flush=True)
                break
        finish(start(args, disturbed, home))
        differences = compare(undisturbed, disturbed)
    print("\n".join(differences) or f"{done} kills, no difference")
    return 1 if differences or not done else 0


def start(args: Arguments, output: Path, home: Path) -> subprocess.Popen[str]:
    """The experiment in a process group of its own."""
    command = [sys.executable, str(args.script), "--preset", "smoke"]
    command += ["--strategy", args.strategy, "--output-dir", str(output)]
    environment = {**os.environ, "DISTILL_JAX_HOME": str(home)}
    return subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def finish(process: subprocess.Popen[str]) -> None:
    """Wait for the end; it has to be a good one."""
    said, _ = process.communicate()
    if process.returncode:
        raise SystemExit(f"the experiment ended with {process.returncode}:\n{said}")


def count_rows(output: Path) -> int:
    """Rows in all ledgers under a folder."""
    return sum(len(Ledger(path).rows()) for path in output.rglob("ledger.jsonl"))


def compare(undisturbed: Path, disturbed: Path) -> list[str]:
    """What differs between two folders of results, a line each."""
    differences = []
    for ledger in sorted(undisturbed.rglob("ledger.jsonl")):
        table = ledger.parent.relative_to(undisturbed)
        for name in TIMELESS:
            pair = [root / table / name for root in (undisturbed, disturbed)]
            if pair[0].is_file() and pair[0].read_bytes() != pair[1].read_bytes():
                differences.append(f"{table}/{name} differs")
        ours, theirs = (results(root / table / ledger.name) for root in (undisturbed, disturbed))
        differences += [
            f"{table}: run {run} differs"
            for run in sorted(ours.keys() | theirs.keys())
            if ours.get(run) != theirs.get(run)
        ]
    return differences


def results(ledger: Path) -> dict[str, object]:
    """Hash -> what a run has to reproduce: everything measured but times."""
    return {
        row.hash: (
            {k: v for k, v in row.metrics.items() if not k.startswith("latency/")},
            row.selected_step,
            row.test_correct,
            row.history,
        )
        for row in Ledger(ledger).rows()
    }


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Arguments)))
