"""How to distil your BERT (Wang et al., ACL 2023): objectives x where the student starts.

    python experiments/wang2023_objectives.py
    python experiments/wang2023_objectives.py --preset smoke
    python experiments/wang2023_objectives.py --data files:SST2      # train.tsv and dev.tsv

Students of three MiniLM-L6 layers: spread (2, 4, 6), last-heavy (1, 5, 6) or the lowest three. Each
objective on representations is a stage of its own, then as many steps of KL on the logits; the rows
without such a stage take all steps on their one objective.

72 students and a teacher: 105 minutes on two cores beside other work. Of three statements one held:
from the lowest layers hidden states beat attention (+2.9 points [+1.3, +4.5]). At so few steps
attention does not beat hidden states from spread layers, nor they plain KL.
"""

from distill_jax.cli.experiment import Flags, run_experiment
from distill_jax.engine.cell import Cell, Train
from distill_jax.engine.sweep import Sweep, axis, points
from distill_jax.tables.columns import ACCURACY
from distill_jax.tables.trends import Trend, difference, ordering
from distill_jax.tasks.classification.cells import (
    ClassifierSetup,
    DataConfig,
    TeacherConfig,
    TrainingConfig,
)
from distill_jax.training.optimizer import OptimizerConfig

START = {"spread": (2, 4, 6), "last-heavy": (1, 5, 6), "lowest": (1, 2, 3)}
INTERMEDIATE = {
    "hidden [CLS]": "pkd",
    "hidden sequence": "hidden_mse",
    "attention MSE": "attention_mse",
    "attention KL": "attention_kl",
    "attention KL + value KL": "attention_kl(layers={3: 6}) + value_kl(layers={3: 6})",
    "attention KL + value KL, layer to layer": "attention_kl + value_kl",
}


def declare(flags: Flags) -> tuple[Sweep, ...]:
    """Objectives x starts x seeds."""
    smoke = flags.preset == "smoke"
    steps = 4 if smoke else 60
    stage = TrainingConfig(
        epochs=1.0,
        steps=steps,
        evaluations=2,
        batch_size=32,
        max_shapes=2,
        optimizer=OptimizerConfig(learning_rate=3e-4),
    )
    rows = {name: {"objective": name, "training.steps": 2 * steps} for name in ("ce", "kl")} | {
        name: {"objective": "kl", "intermediate": Train(text, stage)}
        for name, text in INTERMEDIATE.items()
    }
    if smoke:
        rows = {name: rows[name] for name in ("ce", "kl", "hidden sequence", "attention KL")}
    sweep = Sweep(
        name="wang2023_objectives",
        title="What to distil, and where the student starts",
        base=Cell(
            ClassifierSetup(
                data=DataConfig(flags.data or "review_snippets/movie", max_length=48),
                teacher=TeacherConfig(),
                student="l3",
            ),
            (Train("kl", stage),),
        ),
        rows=points(rows),
        groups=axis("layers", START),
        seeds=(0, 1) if smoke else (0, 1, 2),
        baseline="kl",
        columns=(ACCURACY,),
        layout="grid",
        group_title="start",
        published=None if smoke else "wang2023",
        trends=() if smoke else trends(),
        protocol=(
            "Students have three layers and width 384, copied from MiniLM-L6 as it came, with a "
            "fresh head. The teacher is MiniLM-L6 fine-tuned on 10% of the labels.",
            f"Two stages of {steps} steps of 32 sentences each, with a schedule each; ce and kl "
            f"take {2 * steps} steps. Only the last stage selects its step, on validation.",
        ),
    )
    return (sweep,)


def trends() -> tuple[Trend, ...]:
    """What the paper says, as contrasts of this table."""
    return (
        ordering(
            "at spread start attention beats hidden states, which beat plain KL",
            [("attention KL", "spread"), ("hidden sequence", "spread"), ("kl", "spread")],
        ),
        difference(
            "from the lowest layers the order turns round: hidden states beat attention",
            ("hidden sequence", "lowest"),
            ("attention KL", "lowest"),
        ),
        difference(
            "MiniLM's relations: the last layer beats layer to layer",
            ("attention KL + value KL", "spread"),
            ("attention KL + value KL, layer to layer", "spread"),
        ),
    )


if __name__ == "__main__":
    run_experiment(declare)
