"""The published recipes for SST-2, in small with MiniLM-L6 as the teacher; the originals' plan.

    python experiments/glue_published.py --data files:SST2       # a folder: train.tsv and dev.tsv
    python experiments/glue_published.py --preset smoke          # movie snippets, a few steps
    python experiments/glue_published.py --plan                  # half a minute at most
    python experiments/glue_published.py --plan --no-measure     # at once

The table has the losses of each recipe on students of three MiniLM layers, all with the same few
steps, beside the published numbers of the originals. ``--plan`` trains and downloads nothing: it
prints the originals' cells, steps, cost on this device, and which weights and data are missing.

Run time: 22 runs in two hours on one core beside other work. With so few steps no recipe beat the
labels alone (84.8%; KL 84.9, PKD 84.9, TinyBERT 84.1, DistilBERT 83.8, MiniLM 83.5, Turc 83.4; the
teacher 88.6), and no difference was significant.
"""

import sys

from distill_jax.cli.experiment import Flags, run_experiment
from distill_jax.cli.glue import main
from distill_jax.cli.run import run
from distill_jax.engine.cell import Cell, Train
from distill_jax.engine.sweep import Sweep, points
from distill_jax.tables.columns import ACCURACY, FIDELITY
from distill_jax.tasks.classification.cells import (
    ClassifierSetup,
    DataConfig,
    TeacherConfig,
    TrainingConfig,
)
from distill_jax.tasks.classification.recipes import RECIPES
from distill_jax.training.optimizer import OptimizerConfig

LABELS_ONLY, KL = "labels only", "KL, from the lowest layers"
ONE_STAGE = {  # row -> objective, layers of MiniLM that the student starts from
    LABELS_ONLY: ("ce", "first"),
    KL: ("0.8*ce + 0.1*kl(T=20)", "first"),
    "pkd-3": ("0.8*ce + 0.1*kl(T=20) + pkd(layers={1: -3, 2: -2})", "first"),
    "distilbert": ("0.5*kl(T=2) + 0.5*ce", "spread"),
    "turc-mini": ("soft_ce", "spread"),
}
TWO_STAGES = {  # row -> objectives of the stages; the student starts from spread layers
    "tinybert-4": (
        "3*attention_mse + 4*hidden_mse(embeddings=True)",
        "soft_ce(variant='as_released')",
    ),
    "minilm-6x384-released": ("minilm_v2(relation_heads=48)", "ce"),
}
PUBLISHED = {
    LABELS_ONLY: "3x768, labels only (PKD's code)",
    KL: "3x768, KL (PKD's code)",
    **{recipe.name: recipe.published for recipe in RECIPES if recipe.published},
    "minilm-6x384-released": "MiniLM 6x384",
}


def declare(flags: Flags) -> tuple[Sweep, ...]:
    """Recipes x seeds."""
    smoke = flags.preset == "smoke"
    steps = 4 if smoke else 200
    stage = TrainingConfig(
        steps=steps,
        evaluations=2,
        batch_size=32,
        max_shapes=2 if smoke else 4,
        optimizer=OptimizerConfig(learning_rate=3e-4),
    )
    rows = {
        name: {"objective": objective, "layers": layers, "training.steps": 2 * steps}
        for name, (objective, layers) in ONE_STAGE.items()
    } | {
        name: {"objective": last, "intermediate": Train(first, stage)}
        for name, (first, last) in TWO_STAGES.items()
    }
    teacher = TrainingConfig(
        epochs=1.0,
        steps=8 if smoke else 1200,
        evaluations=2,
        batch_size=32,
        optimizer=OptimizerConfig(learning_rate=1e-4),
    )
    name = flags.data or ("review_snippets/movie" if smoke else "tfds:glue/sst2")
    sweep = Sweep(
        name="glue_published",
        title="Published recipes on SST-2, in small",
        base=Cell(
            ClassifierSetup(
                data=DataConfig(name, label_fraction=1.0, max_length=64),
                teacher=TeacherConfig(training=teacher, outputs="live"),
                student="l3",
            ),
            (Train("ce", stage),),
        ),
        rows=points(rows),
        groups=points({"3 x 384": {}}),
        seeds=(0, 1) if smoke else (0, 1, 2),
        baseline=LABELS_ONLY,
        columns=(ACCURACY, FIDELITY),
        row_title="recipe",
        published=None if smoke else "glue_sst2",
        published_rows=tuple((row, PUBLISHED[row]) for row in rows if row in PUBLISHED),
        protocol=(
            "The losses, their weights, temperatures and layers are those of the recipes; the "
            "models and the training are not: the teacher is MiniLM-L6 (6 layers, width 384, "
            f"{teacher.steps} steps on all labels), students are three of its layers, and every "
            f"row takes {2 * steps} steps of 32 sentences at one learning rate that was not tuned; "
            "two stages share them. The published students are larger, their teacher is "
            "BERT-base, and they train for whole epochs: set beside each other, not compared.",
            "Rows are named after the recipes whose losses they have; none uses released weights.",
            "Rows of PKD start from the lowest layers as its code does, the others from layers "
            "2, 4 and 6, in place of the pre-trained students that are not at hand.",
            "GLUE's dev split is the test split here and is read once; steps are selected on a "
            "tenth of the training sentences.",
        ),
    )
    return (sweep,)


if __name__ == "__main__":
    if "--plan" in sys.argv:
        run(lambda: main(sys.argv[1:], prog="experiments/glue_published.py"))
    else:
        run_experiment(declare)
