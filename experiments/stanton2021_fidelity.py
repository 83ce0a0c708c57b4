"""Does a student come to say what its teacher says? (Stanton et al., NeurIPS 2021)

    python experiments/stanton2021_fidelity.py
    python experiments/stanton2021_fidelity.py --preset smoke

"Does Knowledge Distillation Really Work?": a student of its teacher's own architecture could match
it and does not; the paper names optimisation as a key reason, shown by students that start on the
line from chance to the teacher's weights. Here the same: KL on the logits, on the teacher's own
training examples; the start has a share of the teacher's weights, the rest is drawn. Two teachers:
a CNN on scikit-learn's digits, and a BERT of two layers (``tiny``) on the movie snippets, which is
trained on their labels first.

Departures: the paper's networks are ResNets and VGGs on CIFAR-100 and others, with augmentation;
here they are small, the data are few, AdamW takes the place of SGD, and there is none.
"""

import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from distill_jax.cli.experiment import TableFlags
from distill_jax.cli.measured import students_in
from distill_jax.cli.results import open_console
from distill_jax.cli.run import parse_flags, run
from distill_jax.engine.cell import Cell, Train
from distill_jax.engine.sweep import Axis, Point, Sweep, axis
from distill_jax.tables.columns import ACCURACY, FIDELITY, Column
from distill_jax.tables.trends import Trend, difference, slope
from distill_jax.tasks.classification.cells import (
    ClassifierSetup,
    DataConfig,
    TeacherConfig,
    TrainingConfig,
)
from distill_jax.training.optimizer import OptimizerConfig

if TYPE_CHECKING:
    from distill_jax.tasks.classification.table import Classification

SHARES = (0.0, 0.125, 0.25, 0.375, 0.5, 0.75, 1.0)
SMOKE_SHARES = (0.0, 0.5, 1.0)
KL = Column("test/kl_to_teacher", "KL to teacher", 1, 4, higher_is_better=False)
COLUMNS = (FIDELITY, KL, ACCURACY)
CNN, BERT = "cnn-8-16-32", "tiny"
FOUND = (
    "Published (abstract of arXiv:2106.05945): there often remains a surprisingly large "
    "discrepancy between the predictive distributions of teacher and student, even where the "
    "student has the capacity to match; difficulties in optimisation are a key reason.",
    "Departures: small networks and few data in place of ResNets and VGGs on CIFAR-100; AdamW in "
    "place of SGD; no augmentation; the share of the teacher in the start as it is named, the rest "
    "drawn anew by each seed.",
)


@dataclasses.dataclass(frozen=True)
class Fidelity(TableFlags):
    """Fidelity against the share of the teacher in the student's start."""

    preset: Literal["default", "smoke"] = "default"
    """default: as committed. smoke: the whole path in a minute or two."""
    seeds: tuple[int, ...] = ()
    """Instead of the tables' own."""
    data: str = "review_snippets/movie"
    """Of the second table."""
    max_length: int = 48
    first_teacher: str = "minilm-l6"
    """Whose tokeniser the second table's teacher has."""
    output_dir: Path = Path("results")
    """Tables go to folders under this one, NAME or NAME-smoke."""

    @property
    def small(self) -> bool:
        return self.preset == "smoke"

    @property
    def shares(self) -> tuple[float, ...]:
        return SMOKE_SHARES if self.small else SHARES


def digits(flags: Fidelity, shares: tuple[float, ...] = ()) -> Sweep[Any]:
    """Table 1: a CNN, its teacher a CNN of the same name."""
    teacher = TrainingConfig(
        steps=40 if flags.small else 600,
        evaluations=2 if flags.small else 6,
        batch_size=60,
        optimizer=OptimizerConfig(learning_rate=1e-2),
    )
    setup = ClassifierSetup(
        DataConfig("digits", label_fraction=1.0), TeacherConfig(CNN, training=teacher), student=CNN
    )
    training = dataclasses.replace(teacher, epochs=1.0, steps=40 if flags.small else 2400)
    seeds = (0, 1) if flags.small else tuple(range(5))
    return table(
        "stanton2021_fidelity_digits",
        f"Digits: {CNN} taught by {CNN}, by the share of the teacher in the start",
        setup,
        training,
        flags.seeds or seeds,
        shares or flags.shares,
    )


def teacher_of_texts(flags: Fidelity) -> Sweep[Any]:
    """The teacher of table 2, as a student of labels alone."""
    setup = ClassifierSetup(
        DataConfig(flags.data, label_fraction=1.0, max_length=flags.max_length),
        TeacherConfig(flags.first_teacher, training=TrainingConfig(steps=1, evaluations=1)),
        student=BERT,
        pooling="pooler",
    )
    return Sweep(
        name="teacher",
        title=f"{flags.data}: a teacher of the student's own size",
        base=Cell(setup, (Train("ce", text_training(flags)),)),
        rows=(Point("ce"),),
        groups=(Point(BERT),),
        seeds=(0,),
        columns=COLUMNS,
    )


def texts(flags: Fidelity, teacher: Path) -> Sweep[Any]:
    """Table 2: a BERT of two layers, its teacher one of the same size."""
    setup = ClassifierSetup(
        DataConfig(flags.data, label_fraction=1.0, max_length=flags.max_length),
        TeacherConfig(str(teacher), fine_tune=False),
        student="l2",
    )
    return table(
        "stanton2021_fidelity_texts",
        f"{flags.data}: {BERT} taught by {BERT}, by the share of the teacher in the start",
        setup,
        text_training(flags),
        flags.seeds or ((0, 1) if flags.small else (0, 1, 2)),
        flags.shares,
    )


def text_training(flags: Fidelity) -> TrainingConfig:
    """Of the second table's teacher and students."""
    return TrainingConfig(
        epochs=1.0,
        steps=20 if flags.small else 400,
        evaluations=2 if flags.small else 4,
        batch_size=32,
        max_shapes=2,
        optimizer=OptimizerConfig(learning_rate=1e-3),
    )


def table(
    name: str,
    title: str,
    setup: ClassifierSetup,
    training: TrainingConfig,
    seeds: tuple[int, ...],
    shares: tuple[float, ...],
) -> Sweep[Any]:
    """Shares x seeds, by KL at temperature 1."""
    starts = {f"{share:g}": f"{share:g}*teacher" for share in shares}
    rows: Axis = axis("start", starts)
    return Sweep(
        name=name,
        title=title,
        base=Cell(setup, (Train("kl", training),)),
        rows=rows,
        groups=(Point(setup.student),),
        seeds=seeds,
        baseline="0",
        columns=COLUMNS,
        row_title="share of the teacher",
        trends=trends(setup.student, shares),
        protocol=(
            "Students have their teacher's architecture and learn from KL (T=1) on the examples "
            "that it was trained on; share 0 is a start by chance.",
            "The step is chosen on validation, the test split is read once.",
            *FOUND,
        ),
    )


def trends(group: str, shares: tuple[float, ...]) -> tuple[Trend, ...]:
    """What the paper says, as contrasts of this table."""
    along = [(f"{share:g}", group) for share in shares]
    return (
        difference(
            "from chance a student agrees less with its teacher than from the teacher's weights",
            along[-1],
            along[0],
            metric="test/fidelity",
        ),
        slope(
            "agreement rises with the share of the teacher in the start",
            along,
            shares,
            metric="test/fidelity",
        ),
        slope(
            "KL to the teacher falls with the share of the teacher in the start",
            along,
            shares,
            claim="negative",
            metric="test/kl_to_teacher",
        ),
    )


def main(flags: Fidelity) -> None:
    """Both tables, and the second one's teacher; what was done before is taken."""
    console = open_console()
    flags.use_plugin()
    suffix = "-smoke" if flags.small else ""

    def done(sweep: Sweep[Any], folder: Path) -> Path:
        flags.run(_classification(sweep), folder, console)
        return folder

    first = digits(flags)
    done(first, flags.output_dir / f"{first.name}{suffix}")
    own = done(teacher_of_texts(flags), flags.output_dir / f"stanton2021_teacher{suffix}")
    second = texts(flags, students_in(own)[BERT] / "model")
    done(second, flags.output_dir / f"{second.name}{suffix}")


def _classification(sweep: Sweep[Any]) -> "Classification":
    from distill_jax.tasks.classification.table import Classification

    return Classification(sweep)


if __name__ == "__main__":
    run(lambda: main(parse_flags(Fidelity, sys.argv[1:], "stanton2021_fidelity.py")))
