"""Students of one teacher trained, exported, asked, timed together, and drawn: what experiments on
size share."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill_jax.cli.experiment import TableFlags
from distill_jax.cli.results import open_console
from distill_jax.core.errors import UserError
from distill_jax.core.files import write_atomic
from distill_jax.engine.options import Precision

if TYPE_CHECKING:
    from distill_jax.engine.progress import Reporter
    from distill_jax.engine.sweep import Sweep
    from distill_jax.export.plan import BenchPlan
    from distill_jax.export.variants import Exported, Variant
    from distill_jax.tables.pareto import Point

TEACHER, AS_IS = "teacher", "as is"
OBJECTIVE = "kl"


@dataclasses.dataclass(frozen=True)
class SizeFlags(TableFlags):
    """What every experiment on size may be given; ``preset`` ``smoke`` is its small form."""

    preset: str = "default"
    students: tuple[str, ...] = ()
    """Instead of those of the preset."""
    data: str = ""
    """Another data set: files:FOLDER, tfds:NAME ..."""
    teacher: str = "minilm-l6"
    max_length: int = 128
    precision: Precision = "bf16"
    """In which students are trained; as in the table of compare-losses."""
    output_dir: Path = Path("results")
    """Everything goes to a folder of the experiment's name under this one, with -PRESET behind it
    for other presets than the default."""

    @property
    def small(self) -> bool:
        """Whether a few steps on little data are enough."""
        return self.preset == "smoke"


def students_of_one_teacher(
    flags: SizeFlags,
    name: str,
    students: tuple[str, ...],
    seeds: tuple[int, ...],
    settings: Mapping[str, Mapping[str, Any]],
) -> Sweep[Any]:
    """The table of students who hear one teacher.

    Args:
      settings: of students who are trained otherwise than ``compare-losses`` trains their kind.
    """
    from distill_jax.cli.compare import CompareLosses, sweep_of
    from distill_jax.engine.sweep import Override

    usual = "review_snippets/product" if flags.small else "review_snippets/movie"
    quick: dict[str, Any] = {"steps": 20, "teacher_epochs": 1} if flags.small else {}
    sweep = sweep_of(
        CompareLosses(
            data=flags.data or usual,
            teacher=(flags.teacher,),
            max_length=flags.max_length,
            students=students,
            objectives=(OBJECTIVE,),
            seeds=seeds,
            evaluations=2 if flags.small else 4,
            max_shapes=2 if flags.small else 5,
            yardsticks=False,
            **quick,
        )
    )
    own = {} if flags.small else {each: settings[each] for each in students if each in settings}
    overrides = tuple(Override(tuple(changes.items()), group=each) for each, changes in own.items())
    base = dataclasses.replace(sweep.base, precision=flags.precision)
    return dataclasses.replace(sweep, name=name, base=base, overrides=overrides)


def trained(flags: SizeFlags, sweep: Sweep[Any]) -> tuple[Path, Reporter]:
    """Train the table, and say where everything goes: its runs are under ``students`` there.

    Raises:
      UserError: the folder is a file, or the table is to be made in parts.
    """
    suffix = "" if flags.preset == "default" else f"-{flags.preset}"
    folder = flags.output_dir / f"{sweep.name}{suffix}"
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file")
    console = open_console()

    from distill_jax.engine.progress import Reporter
    from distill_jax.tasks.classification.table import Classification

    if not flags.options.share.whole:
        raise UserError("models that are timed together have no parts: leave out --part")
    flags.use_plugin()
    flags.run(Classification(sweep), folder / "students", console)
    return folder, Reporter(console)


def students_in(folder: Path) -> dict[str, Path]:
    """The runs of a finished table by their students, the teacher's first; of several seeds the
    first."""
    from distill_jax.tables.outputs import load_results

    spec, rows = load_results(folder)
    placed: dict[str, str] = {}
    for place in sorted(spec.places, key=lambda each: each.seed):
        placed.setdefault(place.group, place.hash)
    placed = {place.group: placed[place.group] for place in spec.places}
    teachers = [row.hash for row in rows if row.row == TEACHER]
    hashes = {TEACHER: teachers[-1], **placed}
    return {name: folder / "runs" / hash_ for name, hash_ in hashes.items()}


def measured(
    sweep: Sweep[Any],
    variants: Sequence[Variant],
    folder: Path,
    plan: BenchPlan,
    reporter: Reporter,
    first: str = AS_IS,
) -> list[Point]:
    """Every variant exported, asked about the test split, and timed.

    Args:
      first: the variant of the teacher with which all are compared.
    """
    import numpy as np

    from distill_jax.export.variants import costs_of, export_variant, point_of
    from distill_jax.tasks.classification.splits import load_texts

    test = load_texts(sweep.base.setup.data).splits["test"]
    exports: list[Exported] = []
    with reporter.stage("export", len(variants)) as bar:
        for variant in variants:
            exports.append(export_variant(variant, folder / "exports", test))
            bar.update(len(exports))
    columns = (test.texts,) if test.texts_b is None else (test.texts, test.texts_b)
    passes = len(exports) * (plan.warmup + plan.repeats)
    with reporter.stage("timing", passes) as bar:
        costs = costs_of(
            exports,
            columns,
            plan,
            folder / "costs.json",
            lambda done, _: bar.update(done, batch_size=plan.texts),
        )
    teacher_N = next(
        each.classes_N
        for each in exports
        if (each.variant.model, each.variant.name) == (TEACHER, first)
    )
    labels_N = np.asarray(test.labels_N)
    return [
        point_of(each, cost, labels_N, teacher_N) for each, cost in zip(exports, costs, strict=True)
    ]


def write_points(
    points: Sequence[Point],
    plan: BenchPlan,
    folder: Path,
    title: str,
    table: str,
    more: Sequence[str] = (),
) -> None:
    """The table, the figure, and the points that both are made of; the table is printed.

    Args:
      table: the file's name, Markdown.
      more: lines of text below the table.
    """
    from distill_jax.tables.drawing import save_drawing
    from distill_jax.tables.pareto import pareto_markdown, to_json
    from distill_jax.tables.pareto_figure import draw_pareto
    from distill_jax.tables.provenance import cpu_description, provenance

    about = [
        f"{title}. Accuracy on the test split with the 95% interval over its examples "
        "(percentile bootstrap), of one seed; agreement: of how many of them the teacher says the "
        "same class.",
        f"ONNX Runtime on {cpu_description()}: p50 and p95 of {plan.sentences} test texts, one at "
        f"a time, texts/s in {plan.batches} batches of {plan.batch_size}; medians of "
        f"{plan.repeats} rounds over all models, after {plan.warmup} that do not count.",
        *more,
    ]
    facts = {"title": title, "about": about, "plan": dataclasses.asdict(plan), **provenance()}
    write_atomic(folder / "points.json", to_json(points, facts))
    write_atomic(folder / table, text := pareto_markdown(points, about))
    save_drawing(lambda: draw_pareto(points, title=title), folder / "figure")
    print(text)
