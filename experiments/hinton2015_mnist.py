"""Soft targets on MNIST (Hinton, Vinyals and Dean 2015, section 3), on 10,000 of its digits.

    python experiments/hinton2015_mnist.py                      # shared/data/mnist10k
    python experiments/hinton2015_mnist.py --data images:tfds:mnist     # all of it, through TFDS
    python experiments/hinton2015_mnist.py --preset smoke       # scikit-learn's digits

Three tables. Two layers of 800 units, on hard targets and on those of a teacher of two layers of
1200, which had dropout and images moved by up to two pixels. Temperatures against the width of the
student. Students that never saw a 3, or anything but 7 and 8, and what the right bias makes of
them. 90 students and one teacher, trained in populations (``--strategy vmap``): 8 minutes on two
cores, beside other work.

What departs from the paper: about 8,000 training images in place of 60,000, and 1,000 each for
validation, which chooses the step and the bias, and for testing; a hash of each image decides.
AdamW without decay, a rate that falls to 0; no constraint on the norms of weights. Soft targets
come with the factor T^2. The students without a 3 are trained on soft targets alone and keep their
last step, so that no 3 has a say in it before the bias.
"""

import dataclasses

from distill_jax.cli.experiment import Flags, run_experiment
from distill_jax.engine.cell import Cell, Train
from distill_jax.engine.sweep import Sweep, axis, points
from distill_jax.tables.columns import ACCURACY, ERRORS, FIDELITY, Column
from distill_jax.tables.trends import Contrast, Pick, Trend, best_of, difference
from distill_jax.tasks.classification.cells import (
    ClassifierSetup,
    DataConfig,
    TeacherConfig,
    TrainingConfig,
)
from distill_jax.tasks.classification.left_out import (
    ALL_BIASED,
    BIAS,
    ERRORS_BIASED,
    ERRORS_LEFT_OUT,
    GAIN,
)
from distill_jax.training.optimizer import OptimizerConfig

DATA = "images:shared/data/mnist10k/mnist10k.npz"
SOFT = "soft targets, T=20"
TEMPERATURES = (1, 2.5, 4, 8, 20)
LEFT_OUT = {
    "all digits": (),
    "without 3": ("3",),
    "7 and 8 alone": tuple("01234569"),
}
PARAMETERS = Column("parameters", "parameters (M)", 1e-6, 2, kind="value")
SECONDS = Column("seconds/total", "run (s)", 1, 0, kind="mean")
NEVER_SEEN = (
    ACCURACY,
    ERRORS,
    Column(ERRORS_LEFT_OUT, "of them on digits left out", 1, 1, higher_is_better=False),
    Column(BIAS, "bias added", 1, 2),
    Column(ALL_BIASED, "errors with it", 1, 1, higher_is_better=False),
    Column(ERRORS_BIASED, "of them on digits left out, with it", 1, 1, higher_is_better=False),
)
PROTOCOL = (
    "A hash of each image decides its split: about 80% train, 10% validation, 10% test. Published "
    "errors are of 10,000 test images after 60,000 training ones: here fewer are trained on, so "
    "that every net makes more errors in a hundred.",
    "The teacher is trained with dropout (0.2 of the pixels, 0.5 of the units), its images moved "
    "by up to two pixels; students see them as they are, and have no regularisation.",
)


def declare(flags: Flags) -> tuple[Sweep, ...]:
    """Hard and soft targets, temperatures x widths, students that never saw a digit."""
    if flags.preset == "smoke":
        base = cell(flags.data or "digits", "mlp-32-32-drop", "mlp-16-16", 4.0, 4.0, rate=1e-2)
        return targets(base, (0, 1, 2)), widths(base, (8, 16), (0, 1, 2)), unseen(base, (0, 1, 2))
    base = cell(flags.data or DATA, "mlp-1200-1200-drop", "mlp-800-800", 60.0, 15.0, rate=1e-3)
    seeds = tuple(range(5))
    return targets(base, seeds), widths(base, (30, 300), seeds), unseen(base, seeds)


def cell(
    data: str, teacher: str, student: str, teacher_epochs: float, epochs: float, *, rate: float
) -> Cell:
    """What all entries change: the student on soft targets."""

    def training(epochs: float, **more: int) -> TrainingConfig:
        optimizer = OptimizerConfig(learning_rate=rate, weight_decay=0.0)
        return TrainingConfig(
            epochs=epochs, evaluations=4, batch_size=100, optimizer=optimizer, **more
        )

    return Cell(
        ClassifierSetup(
            DataConfig(data, label_fraction=1.0),
            TeacherConfig(teacher, training=training(teacher_epochs, jitter=2)),
            student=student,
        ),
        (Train("ce + kl(T=20)", training(epochs)),),
    )


def targets(base: Cell, seeds: tuple[int, ...]) -> Sweep:
    """Table 1: 146 and 74 errors."""
    student = base.setup.student
    return Sweep(
        name="hinton2015_mnist",
        title="MNIST: hard targets and soft ones",
        base=base,
        rows=axis(
            "objective",
            {"hard targets": "ce", SOFT: "ce + kl(T=20)", f"{SOFT}, alone": "kl(T=20)"},
        ),
        groups=axis("student", [student]),
        seeds=seeds,
        baseline="hard targets",
        columns=(ACCURACY, ERRORS, FIDELITY, PARAMETERS, SECONDS),
        published="hinton2015",
        trends=(
            difference(
                "soft targets at T = 20 beat hard ones", (SOFT, student), ("hard targets", student)
            ),
        ),
        protocol=PROTOCOL,
    )


def widths(base: Cell, units: tuple[int, int], seeds: tuple[int, ...]) -> Sweep:
    """Table 2: which temperature suits which width."""
    narrow, wide = (f"{count} units" for count in units)

    def at(temperatures: tuple[float, ...], group: str) -> Pick:
        return best_of([(f"T={T:g}", group) for T in temperatures])

    few = f"with {narrow} a layer temperatures from 2.5 to 4 beat"
    return Sweep(
        name="hinton2015_temperature",
        title="MNIST: temperatures against the width of the student's two layers",
        base=base,
        rows=axis(
            "objective",
            {"hard targets": "ce"} | {f"T={T:g}": f"ce + kl(T={T:g})" for T in TEMPERATURES},
        ),
        groups=axis(
            "student", {f"{count} units": f"mlp-{count}-{count}" for count in units}
        ),
        seeds=seeds,
        baseline="hard targets",
        columns=(ACCURACY,),
        layout="grid",
        group_title="units a layer",
        trends=(
            difference(f"{few} higher ones", at((2.5, 4), narrow), at((8, 20), narrow)),
            difference(f"{few} lower ones", at((2.5, 4), narrow), at((1,), narrow)),
            difference(
                f"with {wide} a layer T = 8 and T = 20 are alike (within half a point)",
                ("T=8", wide),
                ("T=20", wide),
                claim="within",
                margin=0.005,
            ),
        ),
        protocol=(*PROTOCOL, "Soft targets beside hard ones; the best temperature of several is "
                  "chosen on validation."),
    )  # fmt: skip


def unseen(base: Cell, seeds: tuple[int, ...]) -> Sweep:
    """Table 3: students that never saw a 3."""
    student = base.setup.student

    def mended(row: str) -> Trend:
        contrast = Contrast(f"errors mended by the bias ({row})", (Pick(((row, student),)),))
        return Trend(f"{row}: the right bias mends errors", (contrast,), metric=GAIN)

    return Sweep(
        name="hinton2015_without_3",
        title="MNIST: students that never saw a digit",
        base=base.but(objective="kl(T=20)", training=_last_step(base.training)),
        rows=points({label: {"data.left_out": digits} for label, digits in LEFT_OUT.items()}),
        groups=axis("student", [student]),
        seeds=seeds,
        baseline="all digits",
        columns=NEVER_SEEN,
        row_title="transfer set",
        published="hinton2015",
        trends=(
            mended("without 3"),
            mended("7 and 8 alone"),
            difference(
                "without a single 3 a student loses fewer than 5 points",
                ("without 3", student),
                ("all digits", student),
                claim="not_below",
                margin=0.05,
            ),
        ),
        protocol=(
            *PROTOCOL,
            "Soft targets alone, at T = 20; the last step is kept. The bias is added to the logits "
            "of all digits left out, and is the one that is best on validation, which has all "
            "digits.",
        ),
    )


def _last_step(training: TrainingConfig) -> TrainingConfig:
    """The same, evaluated at its end alone: nothing is chosen."""
    return dataclasses.replace(training, evaluations=1)


if __name__ == "__main__":
    run_experiment(declare)
