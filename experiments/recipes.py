"""Recipes and augmentations, each against plain KL and against hard pseudo-labels.

    python experiments/recipes.py
    python experiments/recipes.py --preset smoke

Two tables on the movie snippets with a tenth of the labels, five seeds each, paired by seed. The
first has a small student that starts at random (2 layers, width 64): what is done beside the
objective, in which order objectives come, how much each example weighs, and copies of the texts.
The second has two copied layers of the teacher: freezing, slower lower layers, and few parameters.
Synonyms and paraphrases want files of yours, and `mlm` a checkpoint with such a head, which MiniLM
is not: they are not here.
"""

from distill_jax.cli.experiment import Flags, HalfPrecision, run_experiment
from distill_jax.engine.cell import Cell, Train
from distill_jax.engine.sweep import Point, Sweep, axis, points
from distill_jax.tables.columns import ACCURACY, FIDELITY, TRAINED_PARAMETERS, Column
from distill_jax.tables.trends import Trend, difference
from distill_jax.tasks.classification.cells import (
    ClassifierSetup,
    DataConfig,
    TeacherConfig,
    TrainingConfig,
)
from distill_jax.tasks.classification.staged import layer_by_layer
from distill_jax.training.optimizer import OptimizerConfig

PLAIN, PSEUDO = "kl", "pseudo-labels"
SECONDS = Column("seconds/train", "training (s)", 1, 1, kind="mean")
TEACHER = TeacherConfig(
    training=TrainingConfig(
        steps=120, evaluations=2, batch_size=32, optimizer=OptimizerConfig(learning_rate=1e-4)
    )
)
CONTROLS = {
    "labels only": {"objective": "ce"},
    "labels only, smoothed": {"objective": "ce(label_smoothing=0.1)"},
    PSEUDO: {"objective": "pseudo_ce"},
    PLAIN: {"objective": "kl"},
}
WEIGHED = {
    "kl by the teacher's confidence": {"objective": "kl(weigh='confidence')"},
    "kl by the teacher's certainty": {"objective": "kl(weigh='certainty')"},
}
STAGED = {
    "hidden states, then kl": {"objective": "hidden_mse for 0.5 -> kl"},
    "hidden states fading out": {"objective": "linear(1, 0)*hidden_mse + kl"},
    "layer by layer, then kl": {"objective": layer_by_layer([(1, 3), (2, 6)])},
}
BESIDE = {
    "R-Drop": {"training.recipe": "rdrop(1.0)"},
    "early stopping": {"training.patience": 2},
}
ATTACKS = {
    "FGM": ("fgm(0.01)", "fgm(0.03)", "fgm(0.1)"),
    "FreeLB": ("freelb(3, rate=0.015, epsilon=0.03)", "freelb(3, rate=0.05, epsilon=0.1)"),
}
"""The length of a shift is chosen on validation: one that is too long for embeddings that start at
random teaches a student to say the same of everything."""
COPIES = {
    "words left out": "delete(0.1)",
    "words swapped": "swap(0.1)",
    "neighbours": "neighbours(0.2)",
    "Tang's (mask, n-grams)": "mask(0.1) + ngram(0.25)",
}
TUNED = {
    PLAIN: {},
    "embeddings frozen": {"training.optimizer.rates": (("^embeddings/", 0.0),)},
    "layer decay 0.7": {"training.optimizer.layer_decay": 0.7},
    "BitFit": {"training.recipe": "bitfit", "training.optimizer.learning_rate": 3e-3},
    "LoRA": {"training.recipe": "lora(8)", "training.optimizer.learning_rate": 3e-3},
    "LoRA, all kernels": {
        "training.recipe": "lora(8, kernels='layer_')",
        "training.optimizer.learning_rate": 3e-3,
    },
}


def declare(flags: Flags) -> tuple[Sweep, ...]:
    """What is done beside the objective; what of a student is trained."""
    smoke = flags.preset == "smoke"
    data = DataConfig(
        flags.data or ("review_snippets/product" if smoke else "review_snippets/movie"),
        max_length=48,
    )
    return beside(data, smoke), tuned(data, smoke)


def base(data: DataConfig, student: str, steps: int, rate: float, smoke: bool) -> Cell:
    """The cell that the rows change."""
    training = TrainingConfig(
        epochs=1.0,
        steps=steps,
        evaluations=2 if smoke else 6,
        max_shapes=2 if smoke else 3,
        optimizer=OptimizerConfig(learning_rate=rate),
    )
    cell = Cell(ClassifierSetup(data, TEACHER, student=student), (Train("kl", training),))
    return cell.but(**{"teacher.training.steps": 4}) if smoke else cell


def beside(data: DataConfig, smoke: bool) -> Sweep:
    """The first table."""
    plain = {"objective": "kl"}
    rows = (
        *points({**CONTROLS, **WEIGHED, **STAGED}),
        *points({name: {**plain, **own} for name, own in BESIDE.items()}),
        *(attack(name, texts[:2] if smoke else texts) for name, texts in ATTACKS.items()),
        *points({name: {**plain, "data.augment": text} for name, text in COPIES.items()}),
    )
    others = [row.label for row in rows if row.label not in CONTROLS]
    steps = 6 if smoke else 200
    return Sweep(
        name="recipes",
        title="What is done beside the objective, and on which texts",
        base=base(data, "2x64x2", steps, 2e-3, smoke),
        rows=rows,
        groups=points({"2x64x2": {}}),
        seeds=(0, 1) if smoke else (0, 1, 2, 3, 4),
        baseline=PLAIN,
        columns=(ACCURACY, FIDELITY, SECONDS),
        row_title="recipe",
        trends=() if smoke else against(others, "2x64x2"),
        protocol=(
            "10% of the labels; the other training sentences are the transfer set, on which only "
            f"the teacher speaks. Every row takes {steps} steps of 64 (stages share them; early "
            "stopping may take fewer) at one learning rate, with KL where its name says no other "
            "objective; nothing else was tuned. The step is chosen on validation, the test split "
            "is read once.",
            "The rows of copies have one of each training sentence beside it in the transfer set: "
            + ", ".join(f"{name}: `{text}`" for name, text in COPIES.items())
            + ". R-Drop and the adversarial rows read each batch several times in a step. How long "
            "the shifts of FGM and FreeLB are is chosen on validation.",
        ),
    )


def attack(name: str, recipes: tuple[str, ...]) -> Point:
    """A row of adversarial training; what is chosen from."""
    return Point(name, (("objective", "kl"),), axis("training.recipe", recipes))


def tuned(data: DataConfig, smoke: bool) -> Sweep:
    """The second table."""
    steps = 4 if smoke else 40
    return Sweep(
        name="recipes_tuning",
        title="What of a copied student is trained",
        base=base(data, "l2", steps, 3e-4, smoke),
        rows=points(TUNED),
        groups=points({"l2": {}}),
        seeds=(0, 1) if smoke else (0, 1, 2, 3, 4),
        baseline=PLAIN,
        columns=(ACCURACY, FIDELITY, TRAINED_PARAMETERS, SECONDS),
        row_title="what is trained",
        trends=()
        if smoke
        else tuple(
            difference(
                f"{name}: within a point of training everything",
                (name, "l2"),
                (PLAIN, "l2"),
                claim="not_below",
                margin=0.01,
            )
            for name in TUNED
            if name != PLAIN
        ),
        protocol=(
            "Two layers of MiniLM-L6 with a fresh head learn from it by KL on the logits. Every "
            f"row takes {steps} steps of 64, the rows of few parameters at ten times the learning "
            "rate; neither was tuned.",
        ),
    )


def against(rows: list[str], student: str) -> tuple[Trend, ...]:
    """Each row less the plain one, and less pseudo-labels, paired by seed."""
    return tuple(
        difference(f"{row} beats {other}", (row, student), (other, student))
        for row in rows
        for other in (PLAIN, PSEUDO)
    )


if __name__ == "__main__":
    run_experiment(declare, flags=HalfPrecision)
