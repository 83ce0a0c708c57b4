"""``compare-losses``: students x objectives x seeds from one teacher, as a table and a figure."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from distill_jax.cli.results import conclude, open_console
from distill_jax.cli.run import parse_flags
from distill_jax.core.errors import UserError, unknown
from distill_jax.engine.options import DEFAULTS, Pooling, Precision, RunOptions, Select

if TYPE_CHECKING:
    from distill_jax.tables.trends import Trend
    from distill_jax.tasks.classification.cells import Cell, DataConfig, TrainingConfig
    from distill_jax.tasks.classification.sweep import Sweep

EPOCHS, MIN_STEPS = 2.0, 600
COPIED_EPOCHS, COPIED_MIN_STEPS = 1.0, 300
"""Of students that start at random, and of those made of the teacher's layers."""
FIRST_ROWS = ("ce", "kl", "mse_logits", "hidden_mse + kl")


@dataclass(frozen=True)
class CompareLosses:
    """Compare ways of distilling a teacher, on your data or on the reviews that come with it.

    The teacher is fine-tuned on the training examples whose labels are used; where a share of them
    is not (--label-fraction), those are the transfer set, on which only the teacher speaks. Every
    row of the table is an objective; all get the same number of optimiser steps. The step is
    chosen on the validation split, the test split is read once. What is finished is never trained
    again; after Ctrl-C the same command goes on.
    """

    preset: Literal["default", "full", "controls", "smoke"] = "default"
    """default: 4 objectives, tiny student, 3 seeds. full: 5 objectives, 2 students, 5 seeds.
    controls: ce, kl and the rows of --controls, tiny student, 5 seeds. smoke: the whole path, on
    little data, in a minute or two. Other flags change a preset."""

    data: str = "review_snippets/movie"
    """review_snippets/{movie,product,news,tweet}, shopping_reviews_zh, files:FOLDER, tfds:NAME."""
    text: str = "sentence"
    """Column of the text (files: and tfds: only)."""
    text_b: str | None = None
    """Column of the second text, for pairs (files: and tfds: only)."""
    label: str = "label"
    """Column of the label (files: and tfds: only)."""
    label_fraction: float | None = None
    """Share of the training labels that is used, in (0, 1]; default: 1 of files: and tfds:, 0.1 of
    what is built in."""
    max_length: int = 128
    """Tokens after which a text is cut."""

    teacher: str = "minilm-l6"
    """minilm-l6 (comes as a package), a folder with a BERT checkpoint, or a hub id."""
    fine_tune: bool = True
    """Fine-tune the teacher first; --no-fine-tune for one whose head is trained already."""
    teacher_pooling: Literal["auto", "pooler", "mean", "cls"] = "auto"
    """What the teacher's head reads; auto: what its checkpoint says. A pooler that the checkpoint
    lacks (one saved as a masked language model, say) is drawn at random and fine-tuned."""
    label_map: str | None = None
    """With --no-fine-tune: which class of the teacher (by name or number) is which of the data,
    'NEGATIVE=0,POSITIVE=1', or as a JSON object; classes not named are left out. By default the
    same names, whatever their case and order."""
    teacher_epochs: float | None = None
    """Passes of the teacher over the labelled examples; default: 3, and of data of your own
    (files:, tfds:) as many more as --teacher-min-steps ask for."""
    teacher_min_steps: int | None = None
    """The least steps of the teacher's fine-tuning, however few the labels; default: 300 of data of
    your own where --teacher-epochs is not given, else 0."""
    teacher_patience: int | None = None
    """The teacher's fine-tuning ends when so many evaluations in a row were no better; 0: never.
    Default: 3 (of 10) of data of your own, else 0."""
    teacher_batch_size: int = 32
    teacher_learning_rate: float | None = None
    """Default: 1e-4, or chosen as --teacher-rates says."""
    teacher_rates: tuple[float, ...] = ()
    """Learning rates that the teacher is fine-tuned at, each from the start; the one of the best
    score on validation teaches. Default: 1e-4 and 2e-4 of data of your own where that takes 1,000
    steps each at most, unless --teacher-learning-rate is given; else one."""

    students: tuple[str, ...] = ("tiny",)
    """tiny, l2, l3, LAYERSxWIDTHxHEADS such as 3x256x4, or one of your own (docs/students.md)."""
    student_pooling: Literal["auto", Pooling] = "auto"
    """What a student's head reads: pooler (BERT's own, on [CLS]), mean (of all tokens) or cls, or
    what the teacher's reads. auto: pooler for students that start at random on data of your own
    (files:, tfds:), so that transformers runs their folders as they are; else the teacher's."""
    objectives: tuple[str, ...] = FIRST_ROWS
    """Objectives as text, e.g. 'ce' '0.9*kl(T=4) + 0.1*ce'; each is a row."""
    controls: bool = False
    """Further rows that split what a teacher is worth: kl without the transfer set, hard
    pseudo-labels, a placebo, and ce with its rate and length chosen on validation."""
    yardsticks: bool = True
    """Rows of what the same labels give without a teacher: the commonest class, and logistic
    regression on TF-IDF (of digits, on the pixels)."""
    baseline: str | None = None
    """The row that the others are tested against; by default ce, or the first without ce."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Each changes initialisation, dropout and the order of the data."""
    teacher_seeds: tuple[int, ...] = ()
    """Seeds of the teacher's fine-tuning: the i-th of --seeds hears the i-th of these teachers,
    from the start again when they run out; by default one teacher (seed 0) for all seeds."""
    label_seeds: tuple[int, ...] = ()
    """The same for the draw of the labels that are used; by default one draw for all seeds."""

    epochs: float | None = None
    """Passes over all training sentences; decides the steps of every row, with labels or not.
    Default: 2, and of data of your own (files:, tfds:) as many more as --min-steps ask for."""
    copied_epochs: float | None = None
    """The same for students made of the teacher's layers (l2, l3): they know more at the start.
    Default: 1."""
    min_steps: int | None = None
    """The least steps of students, however few the sentences; default: 600 of data of your own (300
    for l2, l3) where neither --epochs nor --steps is given, else 0."""
    steps: int = 0
    """Optimiser steps of every row; 0 leaves it to --epochs."""
    batch_size: int = 64
    max_shapes: int = 16
    """The most lengths that batches are padded to (each is a compilation); as many are used as
    keep the padding under a tenth."""
    learning_rate: float = 1e-3
    """For students that start at random."""
    copied_learning_rate: float = 3e-4
    """For students made of the teacher's layers (l2, l3)."""
    clip_apart: bool = False
    """Clip the gradients of students and of the losses' own parameters by a norm each."""
    evaluations: int = 4
    """How often the validation split is looked at."""
    class_weights: str | None = None
    """How much a label of each class counts in the ce and focal terms of students: balanced (every
    class as much in all) or a JSON file, {"class": weight}. By hand:
    'ce(class_weights=[1, 19])'."""
    select: Select = "accuracy"
    """What decides on validation which step is kept, of the teacher and of students: accuracy,
    macro_f1 (where classes are unequal), or loss. On data of your own (files:, tfds:) the lower
    loss decides between steps that are equal in it; of what is built in, the earlier step."""
    teacher_outputs: Literal["cache", "live"] = "cache"
    """Ask the teacher once and keep its answers, or ask it at every step."""
    cache_dtype: Literal["bfloat16", "float16", "float32"] = "float16"
    """How token-level answers are kept; logits are always float32."""
    teacher_precision: Literal["f32", "bf16"] = "f32"
    """In which the teacher speaks; it is fine-tuned in f32."""
    precision: Precision = "f32"
    """f32. bf16: students compute in bfloat16. bf16-params: their parameters are bfloat16 too."""

    plugin: Path | None = None
    """A Python file of yours with more losses; it is run."""
    strategy: Literal["auto", "sequential", "vmap", "sharded"] = "sequential"
    """One after another, or many students in one step; auto times both, takes the faster."""
    track: Literal["none", "tensorboard", "wandb"] = "tensorboard"
    """Where learning curves go."""
    options: Annotated[RunOptions, tyro.conf.OmitArgPrefixes, tyro.conf.arg(name="run")] = DEFAULTS
    output_dir: Path | None = None
    """Default: results/compare_losses, with -PRESET behind it for the other presets."""


PRESETS = {
    "default": CompareLosses(),
    "full": CompareLosses(
        preset="full",
        students=("tiny", "l2"),
        objectives=(*FIRST_ROWS, "attention_kl + kl"),
        seeds=(0, 1, 2, 3, 4),
    ),
    "controls": CompareLosses(
        preset="controls",
        objectives=("ce", "kl"),
        controls=True,
        seeds=(0, 1, 2, 3, 4),
        steps=266,  # of the default preset: two passes over the movie reviews
    ),
    "smoke": CompareLosses(
        preset="smoke",
        data="review_snippets/product",
        max_length=40,
        teacher_epochs=2,
        teacher_learning_rate=1e-4,
        objectives=("ce", "kl", "hidden_mse + kl"),
        steps=60,
        evaluations=2,
        max_shapes=2,
    ),
}


def parse_arguments(arguments: Sequence[str], prog: str) -> CompareLosses:
    """The preset that the arguments name, changed by the other arguments."""
    preset = _preset_of(arguments)
    return parse_flags(CompareLosses, arguments, prog, default=PRESETS[preset])


def _preset_of(arguments: Sequence[str]) -> str:
    preset = "default"
    for position, argument in enumerate(arguments):
        if argument.startswith("--preset="):
            preset = argument.removeprefix("--preset=")
        elif argument == "--preset" and position + 1 < len(arguments):
            preset = arguments[position + 1]
    if preset not in PRESETS:
        raise unknown("preset", preset, PRESETS)
    return preset


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
    from distill_jax.tasks.classification.table import run_sweep

    spec, rows = run_sweep(
        sweep_of(args),
        folder,
        Reporter(console),
        track=args.track,
        strategy=args.strategy,
        options=args.options,
    )
    conclude(spec, rows, folder, console, args.options.share)


def _is_own(data: str) -> bool:
    """Whether a data set is the user's, so that no committed table rests on its defaults."""
    return data.startswith(("files:", "tfds:"))


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
    own_head = family.pools and not family.copies(student)
    return "pooler" if own_head and _is_own(args.data) else "teacher"


def _weighing(given: str | None, data: "DataConfig") -> "tuple[Callable[[str], str], list[str]]":
    """What ``--class-weights`` makes of an objective, and what is said of it below the table."""
    from distill_jax.cli.class_weights import class_weights, with_class_weights

    if given is None:
        return str, []
    weights = class_weights(given, data)
    shown = ", ".join(f"{weight:g}" for weight in weights)
    said = f"`ce` (and `focal`) of students weighs the classes: {shown}; the teacher's does not."
    return (lambda text: with_class_weights(text, weights)), [said]


def _copies_of_a_trained_teacher(args: CompareLosses) -> list[str]:
    """What is said below the table where students start from layers that are trained already."""
    from distill_jax.models.build import student_family

    copies = [f"`{name}`" for name in args.students if student_family(name).copies(name)]
    if args.fine_tune or not copies:
        return []
    return [
        f"Layers of {', '.join(copies)} are copied from the teacher as it came, which is the "
        "trained one (`--no-fine-tune`): every row of theirs, `ce` too, starts from a trained "
        "teacher."
    ]


def _trainings(args: CompareLosses) -> "tuple[TrainingConfig, TrainingConfig]":
    """Of students that start at random, and of those made of the teacher's layers."""
    from distill_jax.tasks.classification.cells import TrainingConfig
    from distill_jax.training.optimizer import OptimizerConfig

    random = TrainingConfig(
        **student_length(args, args.epochs, EPOCHS, MIN_STEPS),
        steps=args.steps,
        evaluations=args.evaluations,
        batch_size=args.batch_size,
        max_shapes=args.max_shapes,
        optimizer=OptimizerConfig(learning_rate=args.learning_rate, clip_apart=args.clip_apart),
        select=args.select,
        ties="loss" if _is_own(args.data) and args.select != "loss" else "earliest",
    )
    copied = dataclasses.replace(
        random,
        **student_length(args, args.copied_epochs, COPIED_EPOCHS, COPIED_MIN_STEPS),
        optimizer=dataclasses.replace(random.optimizer, learning_rate=args.copied_learning_rate),
    )
    return random, copied


def _base(args: CompareLosses, training: "TrainingConfig") -> "Cell":
    """The cell that every entry of the table changes: data and teacher.

    Args:
      training: of students that start at random.
    """
    from distill_jax.cli.teacher_training import teacher_rates, teacher_training
    from distill_jax.tasks.classification.cells import (
        Cell,
        DataConfig,
        TeacherConfig,
        usual_fraction,
    )
    from distill_jax.tasks.classification.label_map import parse_label_map

    own = _is_own(args.data)
    chosen_from, within = teacher_rates(args, own)
    fraction = usual_fraction(args.data) if args.label_fraction is None else args.label_fraction
    return Cell(
        data=DataConfig(args.data, args.text, args.text_b, args.label, fraction, args.max_length),
        teacher=TeacherConfig(
            args.teacher,
            args.fine_tune,
            teacher_training(args, training, own),
            args.teacher_outputs,
            args.cache_dtype,
            args.teacher_precision,
            pooling=args.teacher_pooling,
            label_map=parse_label_map(args.label_map),
            rates=chosen_from,
            rates_within=within,
        ),
        precision=args.precision,
        student="",
        objective="",
        training=training,
    )


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
    from distill_jax.objectives.grammar import parse
    from distill_jax.tables.columns import COLUMNS
    from distill_jax.tables.outputs import share_of_labels
    from distill_jax.tasks.classification.sweep import Sweep, axis, points

    if args.plugin is not None:
        from distill_jax.objectives.plugins import load_plugin

        load_plugin(args.plugin)
    random, copied = _trainings(args)
    base, students = _base(args, random), _students(args, random, copied)
    objectives = [str(parse(text)) for text in args.objectives]
    if args.baseline is not None:
        baseline = str(parse(args.baseline))
    else:
        baseline = "ce" if "ce" in objectives else (objectives or [""])[0]
    weigh, weighing = _weighing(args.class_weights, base.data)
    rows = axis("objective", {text: weigh(text) for text in objectives})
    if len(rows) < len(objectives):
        raise UserError(f"the objectives repeat themselves: {', '.join(objectives)}")
    trends: tuple[Trend, ...] = ()
    protocol: tuple[str, ...] = (
        _used_labels(base.data.label_fraction),
        "All rows of a student take the same number of optimiser steps.",
        "The step is chosen on validation; the test split is read once.",
        *weighing,
        *_copies_of_a_trained_teacher(args),
    )
    if args.controls:
        check_controls(objectives, args.steps)
        if args.class_weights:
            raise UserError("--class-weights does not reach the rows of --controls; leave one out")
        rates = [each["training"].optimizer.learning_rate for each in students.values()]
        rows += control_rows(args.steps, rates)
        trends = control_trends(args.students)
        protocol = (protocol[0], *PROTOCOL, *protocol[2:])
    return Sweep(
        name="compare_losses-controls" if args.controls else "compare_losses",
        title=f"{args.data}, {share_of_labels(base.data.label_fraction)}",
        base=base,
        rows=rows,
        groups=points(students),
        seeds=args.seeds,
        teacher_seeds=args.teacher_seeds,
        label_seeds=args.label_seeds,
        baseline=baseline,
        columns=COLUMNS,
        yardsticks=args.yardsticks,
        trends=trends,
        protocol=protocol,
    )
