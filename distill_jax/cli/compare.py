"""``compare-losses``: students x objectives x seeds from one teacher, as a table and a figure."""

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from distill_jax.cli.compare_flags import CompareLosses, parse_arguments
from distill_jax.cli.precision import half_precision
from distill_jax.cli.recipe_flags import recipe_protocol, with_recipe
from distill_jax.cli.results import conclude, open_console
from distill_jax.cli.student_start import told_start
from distill_jax.cli.task_flags import baseline_of, kind_of, selection
from distill_jax.cli.teacher_training import teacher_rates, teacher_training
from distill_jax.cli.teaching import (
    MODEL,
    data_of,
    said_of_peers,
    setup_of,
    teachers_of,
    weighing_teachers,
)
from distill_jax.core.errors import UserError
from distill_jax.engine.options import Pooling, Precision

if TYPE_CHECKING:
    from distill_jax.engine.sweep import Sweep
    from distill_jax.tables.columns import Column
    from distill_jax.tables.trends import Trend
    from distill_jax.tasks.classification.cells import ClassifierCell, DataConfig, TrainingConfig

EPOCHS, MIN_STEPS = 2.0, 600
COPIED_EPOCHS, COPIED_MIN_STEPS = 1.0, 300
"""Of students that start at random, and of those made of the teacher's layers."""
SHAPES, QUICK_SHAPES = 16, 5
"""Most batch lengths; of the default table, where a compilation costs more than padding."""


def output_folder(args: CompareLosses) -> Path:
    """Where the table, the figure, the ledger and the runs go."""
    if args.output_dir is not None:
        return args.output_dir
    suffix = "" if args.preset == "default" else f"-{args.preset}"
    return Path("results") / f"compare_losses{suffix}"


def main(arguments: Sequence[str], prog: str = "distill-jax compare-losses") -> None:
    """Parse, run, print the table and the paths of what was written."""
    args = parse_arguments(arguments, prog)
    folder = output_folder(args)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--output-dir {folder} is a file")

    console = open_console()
    from distill_jax.engine.progress import Reporter
    from distill_jax.engine.run import run_table
    from distill_jax.tasks.classification.table import Classification

    spec, rows = run_table(
        Classification(sweep_of(args)),
        folder,
        Reporter(console),
        track=args.track,
        strategy=args.strategy,
        options=args.options,
    )
    conclude(spec, rows, folder, console, args.options.share)


def _is_own(data: str) -> bool:
    """Whether a data set is the user's, so that no committed table rests on its defaults."""
    from distill_jax.tasks.classification.cells import is_own

    return is_own(data)


def _columns(data: str, columns: "tuple[Column, ...]") -> "tuple[Column, ...]":
    """What is shown: of images the count of errors too, as papers have it."""
    from distill_jax.data.load_images import is_images
    from distill_jax.tables.columns import ERRORS

    first, *others = columns
    return (first, ERRORS, *others) if is_images(data) else columns


def student_length(
    args: CompareLosses, epochs: float | None, usual: float, least: int
) -> dict[str, Any]:
    """How long students are trained, as fields of ``TrainingConfig``.

    Args:
      epochs: as given; ``usual`` where they were not.
      least: steps of data of the user's own where no length is given.
    """
    if args.steps:  # what does not count is not in a run's hash
        return {"epochs": 1.0}
    min_steps = args.min_steps
    if min_steps is None:
        min_steps = least if _is_own(args.data) and epochs is None else 0
    return {"epochs": usual if epochs is None else epochs, "min_steps": min_steps}


def _pooling(args: CompareLosses, student: str) -> Pooling:
    """What the head of a student reads, see ``--student-pooling``."""
    from distill_jax.models.build import student_family

    if args.student_pooling != "auto":
        return args.student_pooling
    family = student_family(student)
    own_head = family.pools and not family.copies(student) and kind_of(args).head == "pooled"
    return "pooler" if own_head and _is_own(args.data) else "teacher"


def _weighing(given: str | None, data: "DataConfig") -> "tuple[Callable[[str], str], list[str]]":
    """What ``--class-weights`` makes of an objective, and what is said of it below the table."""
    from distill_jax.cli.weights import class_weights, with_class_weights

    if given is None:
        return str, []
    weights = class_weights(given, data)
    shown = ", ".join(f"{weight:g}" for weight in weights)
    said = f"`ce` (and `focal`) of students weighs the classes: {shown}; the teacher's does not."
    return (lambda text: with_class_weights(text, weights)), [said]


def _copies_of_a_trained_teacher(args: CompareLosses) -> list[str]:
    """What is said below the table where students start from layers that are trained already."""
    from distill_jax.models.build import student_family
    from distill_jax.tasks.classification.cells import RUN

    copies = [f"`{name}`" for name in args.students if student_family(name).copies(name)]
    trained = not args.fine_tune or any(name.startswith(RUN) for name in args.teacher)
    if not (trained and copies):
        return []
    return [
        f"Layers of {', '.join(copies)} are copied from the teacher as it came, which is the "
        "trained one (`--no-fine-tune`): every row of theirs, `ce` too, starts from a trained "
        "teacher."
    ]


def _is_quick(args: CompareLosses) -> bool:
    """Whether this is the table that is to be there soonest: the default one, on its own texts."""
    return args.preset == "default" and args.data == CompareLosses.data


def _max_shapes(args: CompareLosses) -> int:
    """The most lengths that batches are padded to."""
    if args.max_shapes is not None:
        return args.max_shapes
    return QUICK_SHAPES if _is_quick(args) else SHAPES


def _precisions(
    args: CompareLosses,
) -> 'tuple[Precision, Literal["f32", "bf16"], Literal["f32", "bf16"]]':
    """In which students compute, the teacher speaks, and it is fine-tuned."""
    from distill_jax.models.build import student_family

    able = all(student_family(name).has_dtype for name in args.students)
    usual: Precision = "bf16" if _is_quick(args) and able else "f32"
    students = usual if args.precision == "auto" else args.precision
    rest: Literal["f32", "bf16"] = "f32" if students == "f32" else "bf16"
    speaks, tuned = (
        rest if given == "auto" else given
        for given in (args.teacher_precision, args.teacher_training_precision)
    )
    return students, speaks, tuned


def _trainings(args: CompareLosses) -> "tuple[TrainingConfig, TrainingConfig]":
    """Of students that start at random, and of those made of the teacher's layers."""
    from distill_jax.tasks.classification.cells import TrainingConfig
    from distill_jax.training.optimizer import OptimizerConfig

    random = TrainingConfig(
        **student_length(args, args.epochs, EPOCHS, MIN_STEPS),
        steps=args.steps,
        evaluations=args.evaluations,
        batch_size=args.batch_size,
        max_shapes=_max_shapes(args),
        optimizer=OptimizerConfig(learning_rate=args.learning_rate, clip_apart=args.clip_apart),
        patience=args.patience,
        **selection(args, _is_own(args.data)),
    )
    copied = dataclasses.replace(
        random,
        **student_length(args, args.copied_epochs, COPIED_EPOCHS, COPIED_MIN_STEPS),
        optimizer=dataclasses.replace(random.optimizer, learning_rate=args.copied_learning_rate),
    )
    return random, copied


def _base(
    args: CompareLosses, training: "TrainingConfig", copied: "TrainingConfig"
) -> "ClassifierCell":
    """The cell that every entry of the table changes: data and teacher.

    Args:
      training, copied: see ``_trainings``.
    """
    from distill_jax.engine.cell import Cell, Train
    from distill_jax.tasks.classification.cells import (
        ClassifierSetup,
        DataConfig,
        TeacherConfig,
        usual_fraction,
    )

    own = _is_own(args.data)
    precision, speaks, tuned = _precisions(args)
    chosen_from, within = teacher_rates(args, own)
    fraction = usual_fraction(args.data) if args.label_fraction is None else args.label_fraction
    if len(args.teacher) > 1 and args.label_map:
        raise UserError("--label-map is for one teacher; several have to name the data's classes")
    usual = TeacherConfig(
        MODEL,
        args.fine_tune,
        teacher_training(args, training, own),
        args.teacher_outputs,
        args.cache_dtype,
        speaks,
        pooling=args.teacher_pooling,
        rates=chosen_from,
        rates_within=within,
        training_precision=tuned,
    )
    first, *others = teachers_of(args, usual, training, copied, partial(_pooling, args))
    data = DataConfig(
        args.data,
        args.text,
        args.text_b,
        args.label,
        fraction,
        args.max_length,
        augment=args.augment,
        task=args.task,
        label_separator=args.label_separator,
    )
    setup = ClassifierSetup(
        data_of(args, data),
        first,
        more_teachers=tuple(others),
        start=args.student_start,
        **setup_of(args),
        vocabulary=args.student_vocab,
    )
    return Cell(setup, (Train(kind_of(args).alone, training),), precision=precision)


def _students(
    args: CompareLosses, random: "TrainingConfig", copied: "TrainingConfig"
) -> dict[str, dict[str, Any]]:
    """Name of each student -> what of the base cell it changes.

    Raises:
      UserError: where one is named twice.
    """
    from distill_jax.models.build import student_family

    if len(set(args.students)) < len(args.students):
        raise UserError(f"the students repeat themselves: {', '.join(args.students)}")
    return {
        name: {
            "student": name,
            "training": copied if student_family(name).copies(name) else random,
            "pooling": _pooling(args, name),
        }
        for name in args.students
    }


def _used_labels(fraction: float) -> str:
    if fraction == 1:
        return "All training labels are used."
    return (
        f"{100 * fraction:g}% of the training labels are used; the rest of the training "
        "sentences is the transfer set."
    )


def sweep_of(args: CompareLosses) -> "Sweep":
    """The table that the arguments declare: objectives x students x seeds."""
    from distill_jax.cli.controls import PROTOCOL, check_controls, control_rows, control_trends
    from distill_jax.engine.sweep import Sweep, axis, points
    from distill_jax.tables.names import YARDSTICK
    from distill_jax.tables.outputs import share_of_labels
    from distill_jax.tasks.classification.staged import canonical, mapped

    if args.plugin is not None:
        from distill_jax.objectives.plugins import load_plugin

        load_plugin(args.plugin)
    random, copied = _trainings(args)
    base = _base(args, random, copied)
    random, copied = (with_recipe(args, each) for each in (random, copied))  # not the teacher
    students = _students(args, random, copied)
    kind = kind_of(args)
    objectives = [canonical(text, kind.parse) for text in args.objectives]
    baseline = baseline_of(args, objectives)
    weigh, weighing = _weighing(args.class_weights, base.setup.data)
    weighed = {
        text: mapped(text, lambda own: weigh(weighing_teachers(args, own)), kind.parse)
        for text in objectives
    }
    rows = axis("objective", weighed)
    if len(rows) < len(objectives):
        raise UserError(f"the objectives repeat themselves: {', '.join(objectives)}")
    trends: tuple[Trend, ...] = ()
    protocol: tuple[str, ...] = (
        _used_labels(base.setup.data.label_fraction),
        "All rows of a student take the same number of optimiser steps.",
        "The step is chosen on validation; the test split is read once.",
        *half_precision(base),
        *recipe_protocol(args, random.recipe),
        *weighing,
        *_copies_of_a_trained_teacher(args),
        *said_of_peers(args),
        *told_start(args.student_start),
    )
    if args.controls:
        check_controls(objectives, args.steps)
        if args.class_weights:
            raise UserError("--class-weights does not reach the rows of --controls; leave one out")
        if len(args.teacher) > 1:
            raise UserError("--controls are for one teacher: the placebo has the words of one")
        rates = [each["training"].optimizer.learning_rate for each in students.values()]
        rows += control_rows(args.steps, rates)
        trends = control_trends(args.students)
        protocol = (protocol[0], *PROTOCOL, *protocol[2:])
    return Sweep(
        name="compare_losses-controls" if args.controls else "compare_losses",
        title=f"{args.data}, {share_of_labels(base.setup.data.label_fraction)}",
        base=base,
        rows=rows,
        groups=points(students),
        seeds=args.seeds,
        teacher_seeds=args.teacher_seeds,
        label_seeds=args.label_seeds,
        baseline=baseline,
        columns=_columns(args.data, kind.columns),
        tested=kind.tested,
        references=(YARDSTICK,) if args.yardsticks else (),
        trends=trends,
        protocol=protocol,
    )
