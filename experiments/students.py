"""Which student? Every family and size, from one teacher, on the movie snippets.

    python experiments/students.py
    python experiments/students.py --preset full
    python experiments/students.py --preset smoke

A tenth of the labels is known; every student hears the teacher (MiniLM-L6, fine-tuned) on all
sentences, by KL on the logits. Students made of the teacher's layers take one pass over them, those
that start by chance two, bags of embeddings six, as ``compare-losses`` and ``compression.py`` have
it. ``students/table.md`` has scores over seeds; ``students.md`` what the teacher's score is kept
of, and models exported to ONNX and timed together, of the first seed. ``full`` adds the large ones,
which take several times as long as all others together.
"""

import dataclasses
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from distill_jax.cli.measured import (
    AS_IS,
    TEACHER,
    SizeFlags,
    measured,
    students_in,
    students_of_one_teacher,
    trained,
    write_points,
)
from distill_jax.cli.run import parse_flags, run
from distill_jax.export.plan import BenchPlan

if TYPE_CHECKING:
    from distill_jax.engine.sweep import Sweep
    from distill_jax.tables.ledger import LedgerRow
    from distill_jax.tables.spec import TableSpec

NAME = "students"
STUDENTS = (
    *("static", "bilstm", "textcnn", "tiny", "mini", "mobilebert"),
    *("l2", "l3", "distilbert"),
)
LARGE = ("tinybert-4", "small", "medium", "tinybert-6", "minilm-6x384", "l6")
SMALL = ("static", "textcnn", "tiny", "mobilebert-1", "distilbert")
SETTINGS: dict[str, dict[str, Any]] = {
    "static": {"training.epochs": 6.0, "training.optimizer.learning_rate": 3e-3},
    "bilstm": {"training.epochs": 3.0, "training.optimizer.learning_rate": 1e-3},
    "textcnn": {"training.epochs": 3.0, "training.optimizer.learning_rate": 1e-3},
    **{
        name: {"training.optimizer.learning_rate": 5e-4}
        for name in ("mini", "tinybert-4", "mobilebert", "small", "minilm-6x384")
    },
    **{name: {"training.optimizer.learning_rate": 3e-4} for name in ("medium", "tinybert-6")},
}
"""Where a student is trained otherwise than ``compare-losses`` trains those of its kind."""
STARTS = {
    "its layers": ("l2", "l3", "l6", "distilbert"),
    "its words": ("static", "bilstm", "textcnn"),
}
"""Of the teacher, from which a student starts; the others start by chance."""
PLAN = BenchPlan(repeats=5)
SMOKE = BenchPlan(sentences=10, batches=2, batch_size=8, warmup=1, repeats=2)


@dataclasses.dataclass(frozen=True)
class Students(SizeFlags):
    """Every student: score, retention, size, latency, and the Pareto front."""

    preset: Literal["default", "full", "smoke"] = "default"
    """default: as committed. full: the large ones too. smoke: the whole path on little data."""
    seeds: tuple[int, ...] = (0, 1, 2)

    @property
    def chosen(self) -> tuple[str, ...]:
        sets = {"default": STUDENTS, "full": (*STUDENTS, *LARGE), "smoke": SMALL}
        return self.students or sets[self.preset]


def declare(flags: Students) -> "list[Sweep[Any]]":
    """The students of one teacher."""
    return [students_of_one_teacher(flags, NAME, flags.chosen, flags.seeds, SETTINGS)]


def main(flags: Students) -> None:
    """Train, export, ask, time, draw; what was done before is taken."""
    from distill_jax.export.variants import Variant
    from distill_jax.tables.outputs import load_results

    [sweep] = declare(flags)
    folder, reporter = trained(flags, sweep)
    variants = [
        Variant(name, start_of(name), run_, "onnx")
        for name, run_ in students_in(folder / "students").items()
    ]
    plan = SMOKE if flags.small else PLAN
    points = measured(sweep, variants, folder, plan, reporter, start_of(TEACHER))
    title = f"{sweep.title}: every student"
    kept = retention(*load_results(folder / "students"))
    write_points(points, plan, folder, title, "students.md", kept)
    for path in sorted(folder.glob("figure.*")):
        print(path)


def start_of(name: str) -> str:
    """What a student starts from, for the shape of its point in the figure."""
    if name == TEACHER:
        return AS_IS
    for start, families in STARTS.items():
        if name in families or name.split("-")[0] in families:
            return start
    return "chance"


def retention(spec: "TableSpec", rows: "Sequence[LedgerRow]") -> list[str]:
    """A line: what students keep of the teacher's accuracy, in the mean over seeds."""
    by_hash = {row.hash: row.metrics["test/accuracy"] for row in rows}
    teacher = [row.metrics["test/accuracy"] for row in rows if row.row == TEACHER][-1]
    groups: dict[str, list[float]] = {}
    for place in spec.places:
        groups.setdefault(place.group, []).append(by_hash[place.hash])
    told = [
        f"{name} {100 * sum(scores) / len(scores) / teacher:.1f}%"
        for name, scores in groups.items()
    ]
    seeds = max(len(scores) for scores in groups.values())
    return [f"Retention (accuracy over the teacher's, mean of {seeds} seeds): {', '.join(told)}."]


if __name__ == "__main__":
    run(lambda: main(parse_flags(Students, sys.argv[1:], "students.py")))
