"""A patient and consistent teacher (Beyer et al. 2022): 1x, 3x, 10x, 30x epochs.

    python experiments/patience.py
    python experiments/patience.py --preset smoke

"Knowledge distillation: A good teacher is patient and consistent": distillation goes on gaining for
far longer than training on labels does, as long as teacher and student look at the same input. Here
both see the same tokens of the same sentence: the teacher's outputs are kept by example.

36 students and a teacher: 49 minutes on one core. No statement on patience held: distillation gains
up to 10x and has lost it again at 30x (30x against 1x: -0.2 points [-5.9, +5.4]).
"""

from distill_jax.cli.experiment import Flags, run_experiment
from distill_jax.engine.cell import Cell, Train
from distill_jax.engine.sweep import Sweep, axis
from distill_jax.tables.columns import ACCURACY
from distill_jax.tables.trends import difference, gain_difference, slope
from distill_jax.tasks.classification.cells import (
    ClassifierSetup,
    DataConfig,
    TeacherConfig,
    TrainingConfig,
)
from distill_jax.training.optimizer import OptimizerConfig

EPOCHS = {"1x": 1.0, "3x": 3.0, "10x": 10.0, "30x": 30.0}


def declare(flags: Flags) -> tuple[Sweep, ...]:
    """Objectives x epochs x seeds."""
    smoke = flags.preset == "smoke"
    names = ("1x", "3x") if smoke else tuple(EPOCHS)
    first, last = names[0], names[-1]
    sweep = Sweep(
        name="patience",
        title="How long a teacher is worth listening to",
        base=Cell(
            ClassifierSetup(
                data=DataConfig(
                    flags.data or ("review_snippets/product" if smoke else "review_snippets/movie"),
                    max_length=48,
                ),
                teacher=TeacherConfig(),
                student="2x64x2",
            ),
            (
                Train(
                    "ce",
                    TrainingConfig(
                        evaluations=2 if smoke else 10,
                        max_shapes=3,
                        optimizer=OptimizerConfig(learning_rate=2e-3),
                    ),
                ),
            ),
        ),
        rows=axis("objective", {"ce": "ce", "kl": "kl", "kl(T=4)": "kl(T=4)"}),
        groups=axis("training.epochs", {name: EPOCHS[name] for name in names}),
        seeds=(0, 1) if smoke else (0, 1, 2),
        baseline="ce",
        columns=(ACCURACY,),
        layout="grid",
        group_title="epochs",
        trends=(
            slope(
                "distillation gains with every factor of three in epochs",
                [("kl", name) for name in names],
                range(len(names)),
            ),
            difference(f"{last} epochs of distillation beat {first}", ("kl", last), ("kl", first)),
            gain_difference(
                "patience gains more with a teacher than with labels alone",
                (("kl", last), ("kl", first)),
                (("ce", last), ("ce", first)),
            ),
        ),
        protocol=(
            "10% of the labels; the other training sentences are the transfer set. The student (2 "
            "layers, width 64) starts at random. 1x is one pass over all training sentences; rows "
            "of a group take the same steps, with a schedule of that length.",
            "The step is chosen on validation, ten looks a run; the test split is read once.",
            "Teacher and student see the same tokens of a sentence; nothing is augmented.",
        ),
    )
    return (sweep,)


if __name__ == "__main__":
    run_experiment(declare)
