"""Kills a small sweep at random moments, starts it again, and compares with the undisturbed one.

    python tools/kill_test.py --trials 100 --report docs/kill_report.md

The sweep fine-tunes a teacher (training), asks it about every example (cache building) and trains
a table of students with dropout, stages and losses that have parameters of their own (sweep), one
after another or in populations; in turn with it go a table of recommenders and one of search, which
ask their teachers in a moment. Each trial sends SIGKILL or SIGTERM at a moment drawn uniformly
from one of the phases; the table gets one in each phase and is then finished and compared:
tables byte for byte, every metric but latencies, every model and every test logit byte for byte.
After SIGTERM the process has to say that the state is saved, and to leave with 130.
"""

import itertools
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

if TYPE_CHECKING:
    from distill_jax.engine.interface import Task
    from distill_jax.engine.sweep import Sweep

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))
from haste import HASTE  # noqa: E402

PHASES = ("training", "cache building", "sweep")
TIMELESS = ("table.json", "table.md", "table.csv", "table.tex", "figure.png")
SAVED = "stopped as you asked; the state is saved"
BEGIN, END = "PHASE BEGINS: ", "PHASE ENDS: "


@dataclass(frozen=True)
class Arguments:
    """Kill a sweep at random moments and compare."""

    trials: int = 5
    """How many signals are sent."""
    seed: int = 0
    """Of the moments and the signals."""
    tables: tuple[str, ...] = ("classification", "recommendation", "search")
    """Which tables, in turn."""
    strategies: tuple[str, ...] = ("sequential", "vmap")
    """How the students are trained, in turn, of every table."""
    jobs: int = 1
    """Sweeps that are disturbed at a time."""
    report: Path | None = None
    """A Markdown file for the report."""
    child: tuple[str, ...] = ()
    """Used by the tool itself: table, strategy, world and output of what is to be killed."""


Kind = tuple[str, str]
"""Table and strategy."""


@dataclass
class Trial:
    """A signal and what came of it."""

    phase: str
    kind: Kind
    signal: str
    wait: float
    hit: str = ""
    code: int = 0
    wrong: list[str] = field(default_factory=list)


def main(args: Arguments) -> int:
    """Print trials and differences; 0 when there is no difference."""
    if args.child:
        from distill_jax.cli.run import run

        run(lambda: sweep_here(*args.child))
        return 0
    started = time.monotonic()
    kinds = list(itertools.product(args.tables, args.strategies))
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(args.jobs) as pool:
        world = make_world(Path(folder, "world"))
        planned: list[tuple[Kind, tuple[str, ...]]] = []
        whole: dict[Kind, Whole] = {}
        left = args.trials
        for kind in itertools.cycle(kinds):
            if left <= 0:
                break
            if kind not in whole:
                whole[kind] = undisturbed(world, kind)
            planned.append((kind, whole[kind].names[:left]))
            left -= len(planned[-1][1])

        def one_sweep(number: int) -> list[Trial]:
            kind, phases = planned[number]
            draw = random.Random(f"{args.seed}-{number}")
            return disturb(world, kind, phases, whole[kind], draw)

        sweeps = len(planned)
        trials = [trial for own in pool.map(one_sweep, range(sweeps)) for trial in own]
        seconds = time.monotonic() - started
    print(text := report(trials, sweeps, seconds, args))
    if args.report:
        args.report.write_text(text)
    return 1 if any(trial.wrong for trial in trials) else 0


@dataclass(frozen=True)
class Whole:
    """An undisturbed run: its output, and how long its phases took, ``(name, seconds)``."""

    output: Path
    phases: tuple[tuple[str, float], ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The phases that take any time."""
        there = {phase_of(stage) for stage, _ in self.phases}
        return tuple(name for name in PHASES if name in there)


def make_world(folder: Path) -> Path:
    """A random checkpoint, a tokeniser, reviews and products, as the tests have them."""
    from small_tables import write_pairs
    from toys import make_reviews, make_teacher

    write_pairs(folder / "pairs")

    make_teacher(folder / "teacher")
    make_reviews(folder / "reviews", {"train": 800, "dev": 48, "test": 60})
    (folder / "compiled").mkdir()
    return folder


def undisturbed(world: Path, kind: Kind) -> Whole:
    """The sweep without a signal."""
    name = "_".join(kind)
    output = world / f"whole_{name}"
    # Once more with programs that are compiled, for the times.
    for attempt in (world / f"first_{name}", output):
        child = Child(world, kind, attempt, attempt.with_suffix(".home"))
        if child.wait():
            raise SystemExit(f"the undisturbed sweep ended with {child.code}:\n{child.said}")
    print(f"undisturbed, {', '.join(kind)}: {child.seconds:.1f} s", flush=True)
    return Whole(output, tuple(child.finished))


def disturb(
    world: Path, kind: Kind, phases: Sequence[str], whole: Whole, draw: random.Random
) -> list[Trial]:
    """One sweep that gets a signal in each phase, and is then finished and compared."""
    output = Path(tempfile.mkdtemp(dir=world))
    home = output.with_suffix(".home")
    trials = []
    for phase in phases:
        trial = Trial(phase, kind, draw.choice(("SIGKILL", "SIGTERM")), 0.0)
        stages = [(name, took) for name, took in whole.phases if phase_of(name) == phase]
        name, took = draw.choice(stages)
        trial.wait = draw.uniform(0, took)
        child = Child(world, kind, output, home)
        if child.until(name, trial.wait):
            trial.hit = child.now or "between phases"
            child.send(trial.signal)
            trial.code = child.wait()
            trial.wrong += ends_wrongly(child, trial.signal)
        else:
            trial.wrong.append(f"{name} did not come: {child.said[-500:]}")
        trials.append(trial)
        where = f"{', '.join(kind)}, {trial.hit}, after {trial.wait:.2f} s"
        print(f"{trial.signal} in {phase} ({where}): exit {trial.code}", flush=True)
    last = Child(world, kind, output, home)
    last.wait()
    wrong = [f"ended with {last.code}: {last.said[-500:]}"] if last.code else []
    trials[-1].wrong += wrong or compare(whole.output, output)
    for line in trials[-1].wrong:
        print(f"DIFFERENCE: {line}", flush=True)
    if not trials[-1].wrong:
        shutil.rmtree(output)
        shutil.rmtree(home)
    return trials


def ends_wrongly(child: "Child", sent: str) -> list[str]:
    """What was wrong about how a process ended after a signal."""
    if child.code == 0:  # it was done
        return []
    if sent == "SIGKILL":
        return [] if child.code == -signal.SIGKILL else [f"exit {child.code}: {child.said[-500:]}"]
    if child.code == 130 and SAVED in child.said:
        return []
    return [f"SIGTERM: exit {child.code} without a word: {child.said[-500:]}"]


class Child:
    """The sweep in a process of its own; a thread reads what it says."""

    def __init__(self, world: Path, kind: Kind, output: Path, home: Path) -> None:
        home.mkdir(exist_ok=True)
        self._started = time.monotonic()
        self._changed = threading.Condition()
        self.now: str | None = None
        self.finished: list[tuple[str, float]] = []
        self._begun: dict[str, float] = {}
        self._lines: list[str] = []
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--child", *kind, str(world), str(output)],
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
                "DISTILL_JAX_HOME": str(home),
                "JAX_COMPILATION_CACHE_DIR": str(world / "compiled"),
                "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
                # Much is compiled and little computed: in haste.
                "XLA_FLAGS": HASTE,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def said(self) -> str:
        return "".join(self._lines)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._started

    @property
    def code(self) -> int:
        return self._process.wait()

    def until(self, phase: str, seconds: float) -> bool:
        """Wait so long into a phase; whether it has come and the process is there still."""
        with self._changed:
            self._changed.wait_for(lambda: phase in self._begun or not self._reader.is_alive())
        if phase not in self._begun:
            return False
        time.sleep(max(0.0, self._begun[phase] + seconds - time.monotonic()))
        return True

    def send(self, name: str) -> None:
        """Send a signal; the whole group where it cannot be caught."""
        number = signal.Signals[name]
        if self._process.poll() is None:
            kill = os.killpg if number == signal.SIGKILL else os.kill
            kill(self._process.pid, number)

    def wait(self) -> int:
        """Until it has ended; its exit code."""
        code = self._process.wait()
        self._reader.join()
        return code

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with self._changed:
                self._lines.append(line)
                if line.startswith(BEGIN):
                    self.now = line.removeprefix(BEGIN).strip()
                    self._begun[self.now] = time.monotonic()
                elif line.startswith(END) and self.now:
                    self.finished.append((self.now, time.monotonic() - self._begun[self.now]))
                    self.now = None
                self._changed.notify_all()
        with self._changed:
            self._changed.notify_all()


def phase_of(stage: str) -> str:
    """The phase of one of the sweep's stages."""
    if "teacher" in stage.split()[:1] or stage.startswith(("fine-tuning", "training")):
        return "training"
    return "cache building" if stage == "asking the teacher" else "sweep"


def sweep_here(table: str, strategy: str, world: str, output: str) -> None:
    """The sweep itself, in a child; announces its phases."""
    import jax

    from distill_jax.engine.options import RunOptions
    from distill_jax.engine.progress import ProgressBar, Reporter
    from distill_jax.engine.run import run_table
    from distill_jax.tables.build import table_of
    from distill_jax.tables.outputs import write_outputs

    jax.config.update("jax_platforms", "cpu")

    class Announcing(Reporter):
        @contextmanager
        def stage(self, name: str, total: int) -> Iterator[ProgressBar]:
            with super().stage(name, total) as stage:
                print(f"{BEGIN}{name}", flush=True)
                yield stage
                print(f"{END}{name}", flush=True)

    options = RunOptions(checkpoint_seconds=0.3)
    spec, rows = run_table(
        declare(table, Path(world)),
        Path(output),
        Announcing(),
        track="none",
        strategy=strategy,  # type: ignore[arg-type]
        options=options,
    )
    write_outputs(table_of(spec, rows), Path(output))


def declare(table: str, world: Path) -> "Task[Any]":
    """A table at work on its data."""
    from small_tables import FIT, LISTS, among_walks, pairs, walks

    from distill_jax.tasks.classification.table import Classification
    from distill_jax.tasks.search.table import Search

    if table == "recommendation":
        rows = {"labels": {}, "kl": {"objective": "0.5*full_softmax + 0.5*kl(top=5)"}}
        return among_walks(walks(rows, training=replace(FIT, epochs=10), dropout=0.1, seeds=(0, 1)))
    if table == "search":
        rows = {"labels": {}, "kl": {"objective": "ce + kl"}}
        training = replace(LISTS, steps=30, evaluations=2)
        teacher = world / "teacher/model"
        return Search(pairs(world / "pairs", teacher, rows, training=training, seeds=(0, 1)))
    return Classification(declare_classifiers(world))


def declare_classifiers(world: Path) -> "Sweep[Any]":
    """The table: three objectives, one of them after a stage on hidden states; two seeds."""
    from distill_jax.engine.cell import Cell, Train
    from distill_jax.engine.sweep import Sweep, axis, points
    from distill_jax.tables.columns import ACCURACY
    from distill_jax.tasks.classification.cells import (
        ClassifierSetup,
        DataConfig,
        TeacherConfig,
        TrainingConfig,
    )
    from distill_jax.training.optimizer import OptimizerConfig

    training = TrainingConfig(
        steps=30,
        evaluations=2,
        batch_size=16,
        max_shapes=1,
        optimizer=OptimizerConfig(learning_rate=1e-2),
    )
    objectives = ("ce", "hidden_mse + 0.5*kl(T=2)")
    staged = {"objective": "kl + ce", "intermediate": Train("hidden_mse", training)}
    return Sweep(
        name="killed",
        title="killed",
        base=Cell(
            ClassifierSetup(
                data=DataConfig(f"files:{world / 'reviews'}", label_fraction=0.5, max_length=16),
                teacher=TeacherConfig(
                    str(world / "teacher/model"), training=replace(training, steps=60)
                ),
                student="1x8x2",
            ),
            (Train("ce", training),),
        ),
        rows=(*axis("objective", objectives), *points({"hidden_mse, then kl + ce": staged})),
        groups=axis("student", ["1x8x2"]),
        seeds=(0, 1),
        baseline="ce",
        columns=(ACCURACY,),
        layout="grid",
    )


def compare(undisturbed: Path, disturbed: Path) -> list[str]:
    """What differs between two folders of results, a line each."""
    names = [Path(name) for name in TIMELESS]
    for pattern in ("runs/*/model/**/*", "runs/*/test_logits.npz", "runs/*/history.json"):
        found = sorted(path for path in undisturbed.glob(pattern) if path.is_file())
        names += [path.relative_to(undisturbed) for path in found]
    differences = []
    for name in names:
        ours, theirs = undisturbed / name, disturbed / name
        if not theirs.is_file():
            differences.append(f"{name} is missing")
        elif ours.read_bytes() != theirs.read_bytes():
            differences.append(f"{name} differs")
    ours, theirs = results(undisturbed), results(disturbed)
    differences += [
        f"ledger: run {run} differs"
        for run in sorted(ours.keys() | theirs.keys())
        if ours.get(run) != theirs.get(run)
    ]
    left_over = [path for path in (disturbed / "runs").rglob("digests.json")]
    return differences + [f"{path.relative_to(disturbed)} is left over" for path in left_over]


def results(output: Path) -> dict[str, object]:
    """Hash -> what a run has to reproduce: everything measured but times."""
    from distill_jax.tables.ledger import Ledger

    return {
        row.hash: (
            {k: v for k, v in row.metrics.items() if not k.startswith("latency/")},
            row.selected_step,
            row.test_correct,
            row.test_scores,
            row.history,
        )
        for row in Ledger(output / "ledger.jsonl").rows()
    }


def report(trials: Sequence[Trial], sweeps: int, seconds: float, args: Arguments) -> str:
    """All trials as Markdown."""
    wrong = [line for trial in trials for line in trial.wrong]
    counts = Counter((trial.phase, trial.signal) for trial in trials)
    lines = [
        "# Kill report",
        "",
        f"`python tools/kill_test.py --tables {' '.join(args.tables)} --trials {len(trials)} "
        f"--seed {args.seed}`: {len(trials)} signals over {sweeps} sweeps in "
        f"{seconds / 60:.0f} minutes, "
        f"**{len(wrong) or 'no'} difference{'s' * (len(wrong) > 1)}** from the undisturbed sweeps.",
        "",
        "| phase | SIGKILL | SIGTERM |",
        "|---|---:|---:|",
        *(
            f"| {phase} | {counts[phase, 'SIGKILL']} | {counts[phase, 'SIGTERM']} |"
            for phase in PHASES
        ),
        "",
        *(["Differences:", "", *(f"- {line}" for line in wrong), ""] if wrong else []),
        "| # | table | strategy | signal | phase | hit | after (s) | exit |",
        "|---:|---|---|---|---|---|---:|---:|",
        *(
            f"| {number} | {' | '.join(t.kind)} | {t.signal} | {t.phase} | {t.hit} | {t.wait:.2f} "
            f"| {t.code} |"
            for number, t in enumerate(trials, 1)
        ),
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Arguments)))
