"""How small can it be? Students of every kind, each pruned, in 8 bits, with a smaller vocabulary.

    python experiments/compression.py
    python experiments/compression.py --preset smoke

Every student is trained once on what the teacher says of the movie snippets, a tenth of whose
labels are known, and taken through the steps of ``distill-jax compress``. *pruned*: of transformers
half of the feed-forward neurons and a quarter of the heads are cut out of the arrays; of the others
half of the weights are zero, which makes no file and no product smaller here; then they are
distilled again. *vocabulary*: only the tokens of the training texts are left. *int8*: ONNX Runtime
computes in 8 bits. All are exported to ONNX, asked about the test split, and timed together as
``distill-jax bench`` does. ``l6`` is a student of the teacher's own size. One seed: the intervals
are over the test examples, and say nothing of another training.
"""

import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from distill_jax.cli.measured import (
    TEACHER,
    SizeFlags,
    measured,
    students_in,
    students_of_one_teacher,
    trained,
    write_points,
)
from distill_jax.cli.run import parse_flags, run
from distill_jax.engine.options import DEFAULTS, RunOptions
from distill_jax.export.plan import BenchPlan

if TYPE_CHECKING:
    from distill_jax.engine.progress import Reporter
    from distill_jax.engine.sweep import Sweep
    from distill_jax.export.variants import Variant

NAME = "compression"
STUDENTS = ("static", "bilstm", "tiny", "l2", "l3", "l6")
SETTINGS: dict[str, dict[str, Any]] = {
    "static": {"training.epochs": 6.0, "training.optimizer.learning_rate": 3e-3},
    "bilstm": {"training.epochs": 3.0, "training.optimizer.learning_rate": 1e-3},
}
"""Where a student is trained otherwise than ``compare-losses`` trains those of its kind."""
CUT = "drop(heads=0.25, ffn=0.5) -> distil"
ZEROS = "prune(0.5) -> distil"
ONNX, INT8 = "onnx", "onnx-int8"
PLAN = BenchPlan(repeats=5)
SMOKE = BenchPlan(sentences=10, batches=2, batch_size=8, warmup=1, repeats=2)


@dataclasses.dataclass(frozen=True)
class Compression(SizeFlags):
    """Students x variants: score against latency and size, with the Pareto front."""

    preset: Literal["default", "smoke"] = "default"
    """default: as committed. smoke: the whole path in a minute or two, on little data."""


def declare(flags: Compression) -> "list[Sweep[Any]]":
    """The students as they are, of one teacher and one seed."""
    students = flags.students or (STUDENTS[:3] if flags.small else STUDENTS)
    return [students_of_one_teacher(flags, NAME, students, (0,), SETTINGS)]


def main(flags: Compression) -> None:
    """Train, compress, export, ask, time, draw; what was done before is taken."""
    [sweep] = declare(flags)
    folder, reporter = trained(flags, sweep)
    variants = [
        variant
        for name, run_ in students_in(folder / "students").items()
        for variant in variants_of(name, run_, folder, reporter, flags.options)
    ]
    plan = SMOKE if flags.small else PLAN
    points = measured(sweep, variants, folder, plan, reporter)
    title = f"{sweep.title}: students of every kind, made smaller"
    write_points(points, plan, folder, title, "compression.md")
    for path in sorted(folder.glob("figure.*")):
        print(path)


def variants_of(
    name: str,
    run_: Path,
    folder: Path,
    reporter: "Reporter",
    options: RunOptions = DEFAULTS,
) -> "list[Variant]":
    """A student in all its variants; of the teacher those that need no training."""
    from distill_jax.compression.grammar import parse_steps
    from distill_jax.compression.pipeline import compress
    from distill_jax.export.variants import Variant

    found = [Variant(name, "as is", run_, ONNX), Variant(name, "int8", run_, INT8)]
    if name == TEACHER:
        return found
    pruning = ZEROS if name.split("-")[0] in ("static", "bilstm") else CUT

    def hops(steps: str) -> dict[str, Path]:
        reporter.say(f"{name}: {steps}")
        made = compress(
            run_,
            parse_steps(steps),
            folder / "steps" / name,
            reporter,
            max_drop=100.0,
            options=options,
        )
        return {hop.label.split("(")[0]: hop.folder for hop in made.hops}

    of_pruning = hops(f"{pruning} -> vocabulary")
    pruned = of_pruning["distil"]
    return [
        *found,
        Variant(name, "pruned", pruned, ONNX),
        Variant(name, "pruned, int8", pruned, INT8),
        Variant(name, "vocabulary", hops("vocabulary")["vocabulary"], ONNX),
        Variant(name, "all three", of_pruning["vocabulary"], INT8),
    ]


if __name__ == "__main__":
    run(lambda: main(parse_flags(Compression, sys.argv[1:], "compression.py")))
