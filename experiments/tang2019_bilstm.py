"""BERT into a BiLSTM (Tang et al. 2019) on SST-2, with and without their augmentation.

    python experiments/tang2019_bilstm.py --data files:SST2      # a folder: train.tsv and dev.tsv
    python experiments/tang2019_bilstm.py --preset smoke         # movie snippets, a few steps

"Distilling Task-Specific Knowledge from BERT into Simple Neural Networks": a single-layer BiLSTM
learns the logits of a fine-tuned BERT by mean squared error, on the training sentences and on
copies of them in which words are masked and of which n-grams are kept. Here a twentieth of the
sentences is used, labelled, by teacher and students alike, so that a full run is short; what else
departs is said below the table.
"""

from dataclasses import replace

from distill_jax.cli.experiment import Flags, run_experiment
from distill_jax.engine.cell import Cell, Train
from distill_jax.engine.sweep import Sweep, points
from distill_jax.tables.columns import ACCURACY, COLUMNS, FIDELITY
from distill_jax.tables.trends import Trend, difference
from distill_jax.tasks.classification.cells import (
    ClassifierSetup,
    DataConfig,
    TeacherConfig,
    TrainingConfig,
)
from distill_jax.training.optimizer import OptimizerConfig

FRACTION, COPIES, STEPS = 0.05, 10, 500
AUGMENT = "mask(0.1) + ngram(0.25, copies={copies})"
LABELS, LOGITS, AUGMENTED = "BiLSTM, labels only", "BiLSTM, MSE on logits", "the same, augmented"
PUBLISHED = ((AUGMENTED, "BiLSTM distilled from BERT-large, with augmentation"),)
SIZES = tuple(column for column in COLUMNS if column.key in ("parameters", "latency/p50_ms"))


def declare(flags: Flags) -> tuple[Sweep, ...]:
    """Labels, logits, logits of copies too; seeds."""
    smoke = flags.preset == "smoke"
    copies, steps = (1, 6) if smoke else (COPIES, STEPS)
    training = TrainingConfig(
        epochs=1.0,
        steps=steps,
        evaluations=2 if smoke else 5,
        max_shapes=2 if smoke else 4,
        optimizer=OptimizerConfig(learning_rate=2e-3),
    )
    teacher = replace(
        training,
        steps=4 if smoke else 240,
        evaluations=2,
        batch_size=32,
        optimizer=OptimizerConfig(learning_rate=1e-4),
    )
    data = DataConfig(
        flags.data or ("review_snippets/product" if smoke else "tfds:glue/sst2"),
        label_fraction=FRACTION,
        max_length=64,
        transfer="none",
    )
    heard = TeacherConfig(training=teacher, precision="bf16", training_precision="bf16")
    augment = AUGMENT.format(copies=copies)
    sweep = Sweep(
        name="tang2019_bilstm",
        title="MiniLM-L6 into a BiLSTM on SST-2, with and without augmentation",
        base=Cell(
            ClassifierSetup(data, heard, student="bilstm"),
            (Train("ce", training),),
        ),
        rows=points(
            {
                LABELS: {"objective": "ce"},
                LOGITS: {"objective": "mse_logits"},
                AUGMENTED: {"objective": "mse_logits", "data.augment": augment},
            }
        ),
        groups=points({"bilstm": {}}),
        seeds=(0, 1) if smoke else (0, 1, 2, 3, 4),
        baseline=LABELS,
        columns=(ACCURACY, FIDELITY, *SIZES),
        row_title="how it learns",
        published=None if smoke else "tang2019",
        published_rows=() if smoke else PUBLISHED,
        trends=() if smoke else trends(),
        protocol=(
            f"{100 * FRACTION:g}% of the training sentences, with their labels, are all that "
            f"teacher and students see; the augmented row has up to {copies} copies of each too, "
            f"on which only the teacher speaks. Every student takes {steps} steps of 64; the step "
            "is chosen on validation, the test split (GLUE's dev) is read once.",
            "Departures from the paper: the teacher is MiniLM-L6 in place of BERT-large; a part of "
            f"the sentences and {copies} copies in place of all and 20; words are masked and "
            "n-grams kept as there (p = 0.1 and 0.25, n to 5), but none is replaced by another of "
            "its part of speech; the student reads the teacher's word pieces in one channel that "
            "starts from the teacher's embeddings, is 192 wide in each direction, has dropout of "
            "0.1 and is moved by AdamW; hidden sizes and rates were not searched over. The teacher "
            "computes in bfloat16.",
        ),
    )
    return (sweep,)


def trends() -> tuple[Trend, ...]:
    """What the paper says, as contrasts of this table."""
    return (
        difference("the teacher's logits beat the labels", (LOGITS, "bilstm"), (LABELS, "bilstm")),
        difference("augmentation helps", (AUGMENTED, "bilstm"), (LOGITS, "bilstm")),
        difference(
            "logits with augmentation beat the labels", (AUGMENTED, "bilstm"), (LABELS, "bilstm")
        ),
    )


if __name__ == "__main__":
    run_experiment(declare)
