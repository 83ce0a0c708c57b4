"""Times steps side by side: ours, PyTorch's in float32 and under bf16 autocast.

    python tools/bench/steps.py
    python tools/bench/steps.py --rounds 3 --competitors ours torch-bf16 torch-bf16-compiled

Every competitor is a process that lives through all rounds; in each round each takes a few steps of
each kind, one process at a time, so that what the machine does meanwhile meets all alike. Figures
are medians over the rounds; ratios are PyTorch's time over ours, above 1 where we are faster.
"""

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro
from rich.progress import track

BENCH = Path(__file__).resolve().parent
ROOT = BENCH.parents[1]
COMMANDS = {
    "ours": ("steps_ours.py",),
    "ours-bf16": ("steps_ours.py", "--precision", "bf16"),
    "torch-f32": ("steps_torch.py",),
    "torch-bf16": ("steps_torch.py", "--precision", "bf16"),
    "torch-f32-compiled": ("steps_torch.py", "--compile"),
    "torch-bf16-compiled": ("steps_torch.py", "--precision", "bf16", "--compile"),
}
STEPS = {"student step, tiny": 20}
"""How many steps make a figure of a round; others are slower."""
FEW_STEPS = 4

Seconds = dict[str, dict[str, list[float]]]
"""Task -> competitor -> seconds of a step, a figure a round."""


@dataclass(frozen=True)
class Arguments:
    """Step times side by side."""

    competitors: tuple[str, ...] = ("ours", "torch-f32", "torch-bf16")
    """Of ours, ours-bf16, torch-f32, torch-bf16, torch-f32-compiled, torch-bf16-compiled."""
    rounds: int = 15
    tiny: bool = False
    """Sizes that only show that it works."""
    output: Path | None = None
    """A JSON file for the seconds."""


class Competitor:
    """A process that takes steps when it is asked to."""

    def __init__(self, name: str, tiny: bool) -> None:
        script, *flags = COMMANDS[name]
        self._process = subprocess.Popen(
            [sys.executable, str(BENCH / script), *flags, *(["--tiny"] if tiny else [])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment(),
        )
        self.name = name
        self.tasks = self._answer()

    def seconds(self, task: str, steps: int) -> float:
        """Of a step, over so many of them."""
        assert self._process.stdin is not None
        print(json.dumps([task, steps]), file=self._process.stdin, flush=True)
        return float(self._answer())

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _answer(self):
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name} ended with exit code {self._process.wait()}")
        return json.loads(line)


def environment(**more: str) -> dict[str, str]:
    """This process's, with our package to be found."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path, **more}


def measure(args: Arguments) -> Seconds:
    """All rounds; the first, in which programs are compiled, does not count."""
    competitors = [Competitor(name, args.tiny) for name in args.competitors]
    tasks = dict.fromkeys(task for each in competitors for task in each.tasks)
    seconds: Seconds = {task: {} for task in tasks}
    try:
        for number in track(range(args.rounds + 1), "rounds of steps"):
            for task, found in seconds.items():
                for each in competitors:
                    if task not in each.tasks:
                        continue
                    took = each.seconds(task, STEPS.get(task, FEW_STEPS))
                    if number:
                        found.setdefault(each.name, []).append(took)
    finally:
        for each in competitors:
            each.close()
    return seconds


def lines(seconds: Mapping[str, Mapping[str, Sequence[float]]]) -> list[list[str]]:
    """A table: milliseconds of a step by competitor, and every other's over ours."""
    names = list(dict.fromkeys(name for found in seconds.values() for name in found))
    others = [name for name in names if name != "ours"] if "ours" in names else []
    rows = [["step", *(f"{name}, ms" for name in names), *(f"{name} / ours" for name in others)]]
    for task, found in seconds.items():
        p50 = {name: statistics.median(values) for name, values in found.items()}
        times = [f"{1e3 * p50[name]:.1f}" if name in p50 else "–" for name in names]
        shared = [name if "ours" in p50 and name in p50 else None for name in others]
        ratios = [f"{p50[name] / p50['ours']:.2f}" if name else "–" for name in shared]
        rows.append([task, *times, *ratios])
    return rows


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """Rows as a Markdown table, the first one its heading."""
    heading, *rest = rows
    rule = ["---", *["---:"] * (len(heading) - 1)]
    return "\n".join("| " + " | ".join(row) + " |" for row in [heading, rule, *rest])


def main(args: Arguments) -> Seconds:
    """Measure, print, and keep the seconds."""
    seconds = measure(args)
    print(markdown(lines(seconds)))
    if args.output:
        args.output.write_text(json.dumps(seconds, indent=1) + "\n")
    return seconds


if __name__ == "__main__":
    main(tyro.cli(Arguments))
