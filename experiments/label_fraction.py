"""How much a teacher helps as labels get fewer (Tang et al. 2019; Jiao et al. 2020, TinyBERT).

    python experiments/label_fraction.py
    python experiments/label_fraction.py --preset smoke

Rows: labels only, KL and MSE on logits. Groups: the share of labels, and on what else the teacher
speaks: nothing, the sentences whose labels are not used, and those of another domain. The teacher
of a group is fine-tuned on the labels of that group. Every student takes the same steps.

Run time on two busy CPU cores: 51 minutes. Result: with 5% of the labels the unlabelled sentences
are worth twelve points, with all of them half a point; another domain adds nothing.
"""

from dataclasses import replace

from distill_jax.cli.experiment import Flags, run_experiment
from distill_jax.engine.cell import Cell, Train
from distill_jax.engine.sweep import Override, Sweep, axis, points, product
from distill_jax.tables.columns import ACCURACY
from distill_jax.tables.trends import Trend, difference, gain_difference
from distill_jax.tasks.classification.cells import (
    ClassifierSetup,
    DataConfig,
    TeacherConfig,
    TrainingConfig,
)
from distill_jax.training.optimizer import OptimizerConfig

FRACTIONS = {"5%": 0.05, "10%": 0.1, "25%": 0.25, "50%": 0.5, "100%": 1.0}
OTHER_DOMAIN = "review_snippets/product"
TRANSFER = {
    "labelled": {"data.transfer": "none", "data.more_texts": ()},
    "+ unlabelled": {"data.transfer": "rest", "data.more_texts": ()},
    "+ other domain": {"data.transfer": "rest", "data.more_texts": (OTHER_DOMAIN,)},
}
OBJECTIVES = {"ce": "ce", "kl": "kl", "mse_logits": "mse_logits"}
TEACHER = TeacherConfig(
    training=TrainingConfig(
        steps=120, evaluations=2, batch_size=32, optimizer=OptimizerConfig(learning_rate=1e-4)
    )
)


def declare(flags: Flags) -> tuple[Sweep, ...]:
    """Objectives x (fraction, transfer set) x seeds."""
    smoke = flags.preset == "smoke"
    fractions = {name: FRACTIONS[name] for name in (("10%", "100%") if smoke else FRACTIONS)}
    base = Cell(
        ClassifierSetup(
            data=DataConfig(flags.data or "review_snippets/movie", max_length=48),
            teacher=TEACHER,
            student="2x64x2",
        ),
        (
            Train(
                "ce",
                TrainingConfig(
                    epochs=1.0,
                    steps=20 if smoke else 200,
                    evaluations=2 if smoke else 5,
                    max_shapes=3,
                    optimizer=OptimizerConfig(learning_rate=2e-3),
                ),
            ),
        ),
    )
    if smoke:
        base = base.but(teacher=replace(TEACHER, training=replace(base.training, steps=4)))
    groups = product(axis("data.label_fraction", fractions), points(TRANSFER))
    labelled_only = tuple(TRANSFER["labelled"].items())
    few = "5%, + unlabelled"
    sweep = Sweep(
        name="label_fraction",
        title=f"{base.setup.data.name}: what a teacher is worth as labels get fewer",
        base=base,
        rows=axis("objective", OBJECTIVES),
        groups=groups,
        seeds=(0, 1) if smoke else (0, 1, 2),
        baseline="ce",
        columns=(ACCURACY,),
        layout="grid",
        group_title="labels, transfer set",
        overrides=(Override(labelled_only, row="ce"),),  # it hears no teacher: trained once
        trends=()
        if smoke
        else tuple(
            trend
            for row in ("kl", "mse_logits")
            for trend in (
                difference(
                    f"with 5% of the labels and the unlabelled sentences, {row} beats the labels",
                    (row, few),
                    ("ce", few),
                ),
                gain_grows(row, "+ unlabelled"),
                gain_grows(row, "+ other domain"),
            )
        ),
        protocol=(
            "Every student (2 layers, width 64) starts at random and takes the same 200 steps of "
            "64 examples; the step is chosen on validation, the test split is read once.",
            "The smaller label sets are parts of the larger ones and do not change with the seed.",
            "The teacher of a group is MiniLM-L6, fine-tuned for 120 steps of 32 on that group's "
            "labels.",
        ),
    )
    return (sweep,)


def gain_grows(row: str, transfer: str) -> Trend:
    """(row - ce) at 5% of the labels less (row - ce) at 100%."""
    return gain_difference(
        f"the gain of {row} over labels alone ({transfer}) is larger with 5% than with 100%",
        ((row, f"5%, {transfer}"), ("ce", f"5%, {transfer}")),
        ((row, f"100%, {transfer}"), ("ce", f"100%, {transfer}")),
    )


if __name__ == "__main__":
    run_experiment(declare)
