"""KL at temperatures and weights against MSE on logits (Kim et al., IJCAI 2021), on digits.

    python experiments/kim2021_kl_vs_mse.py                    # 8 minutes on two CPU cores
    python experiments/kim2021_kl_vs_mse.py --preset smoke     # 1 minute

"Comparing Kullback-Leibler Divergence and Mean Squared Error Loss in Knowledge Distillation":
L = (1 - alpha) * CE + alpha * T^2 KL(T), or MSE between logits. A CNN teacher and a small CNN
student on scikit-learn's digits, 8 x 8 pixels. The first table has temperatures x alpha; the second
has temperatures x label noise, at alpha = 1, where teacher and student see the same wrong labels.
345 students, trained in populations.

Result: here accuracy neither rises with alpha at T = 20 nor does MSE clearly match infinite
temperature; T = 3 to 5 is best with right labels, T <= 1 with 40% and 60% wrong ones.
"""

from distill_jax.cli.experiment import Flags, run_experiment
from distill_jax.engine.cell import Cell, Train, changed
from distill_jax.engine.sweep import Axis, Override, Point, Sweep, axis
from distill_jax.tables.columns import ACCURACY
from distill_jax.tables.trends import Trend, best_of, difference, slope
from distill_jax.tasks.classification.cells import (
    ClassifierSetup,
    DataConfig,
    TeacherConfig,
    TrainingConfig,
)
from distill_jax.training.optimizer import OptimizerConfig

ALPHAS = (0.1, 0.3, 0.5, 0.7, 0.9, 1.0)
LOSSES = {
    "KL, T=0.5": "kl(T=0.5)",
    "KL, T=1": "kl(T=1)",
    "KL, T=3": "kl(T=3)",
    "KL, T=5": "kl(T=5)",
    "KL, T=20": "kl(T=20)",
    "KL, T=∞": "kl_infinite_temperature",
    "MSE": "mse_logits",
}
NOISE = {"0%": 0.0, "20%": 0.2, "40%": 0.4, "60%": 0.6}
BASE = Cell(
    ClassifierSetup(
        DataConfig("digits", label_fraction=1.0),
        TeacherConfig(
            "cnn-16-32-64",
            training=TrainingConfig(
                steps=600,
                evaluations=6,
                batch_size=60,
                optimizer=OptimizerConfig(learning_rate=1e-2),
            ),
        ),
        student="cnn-2-4-16",
    ),
    stages=(
        Train(
            "ce",
            TrainingConfig(
                epochs=1.0,
                steps=2400,
                evaluations=8,
                batch_size=60,
                optimizer=OptimizerConfig(learning_rate=1e-2),
            ),
        ),
    ),
)
PROTOCOL = (
    "scikit-learn's digits, half for training, a fifth for validation, the rest for testing; every "
    "training example has its label.",
    "All students take 2,400 steps of 60 images; the step is chosen on validation, the test split "
    "is read once.",
)


def declare(flags: Flags) -> tuple[Sweep, Sweep]:
    """Temperatures x alpha, then temperatures x label noise."""
    if flags.preset == "smoke":
        quick = {"steps": 60, "evaluations": 2}
        changes = [(f"teacher.training.{name}", value) for name, value in quick.items()]
        base = changed(BASE, [*changes, ("training.steps", 40), ("training.evaluations", 2)])
        return weights(base, (0.5, 1.0), (0, 1, 2)), noise(base, ("0%", "40%"), (0, 1, 2))
    return weights(BASE, ALPHAS, tuple(range(5))), noise(BASE, tuple(NOISE), tuple(range(5)))


def weights(base: Cell, alphas: tuple[float, ...], seeds: tuple[int, ...]) -> Sweep:
    """Table 1: what temperature and alpha do."""
    rows = [name for name in LOSSES if name != "KL, T=0.5"]
    groups = [f"α={alpha:g}" for alpha in alphas]
    overrides = [
        Override((("objective", _mixed(LOSSES[row], alpha)),), row, group)
        for row in rows
        for alpha, group in zip(alphas, groups, strict=True)
    ]

    def along(row: str) -> list[tuple[str, str]]:
        return [(row, group) for group in groups]

    one = groups[-1]
    return Sweep(
        name="kim2021_kl_vs_mse",
        title="Digits: KL at temperatures and weights, and MSE on logits",
        base=base,
        rows=(Point("ce"), *(Point(row) for row in rows)),
        groups=tuple(Point(group) for group in groups),
        seeds=seeds,
        baseline="ce",
        columns=(ACCURACY,),
        layout="grid",
        group_title="weight",
        overrides=tuple(overrides),
        trends=(
            slope(
                "at T=1 accuracy is flat in alpha (within a point)",
                along("KL, T=1"),
                alphas,
                claim="within",
                margin=0.01,
            ),
            slope("at T=20 accuracy rises with alpha", along("KL, T=20"), alphas),
            difference(
                "MSE is no worse than KL at infinite temperature (half a point at most)",
                ("MSE", one),
                ("KL, T=∞", one),
                claim="not_below",
                margin=0.005,
            ),
        ),
        protocol=PROTOCOL,
    )


def noise(base: Cell, levels: tuple[str, ...], seeds: tuple[int, ...]) -> Sweep:
    """Table 2: what temperature does where labels are wrong."""
    low = ("KL, T=0.5", "KL, T=1")
    high = ("KL, T=3", "KL, T=5", "KL, T=20", "KL, T=∞")

    def best_is_low(level: str) -> Trend:
        return difference(
            f"with {level} wrong labels the best temperature is at most 1",
            best_of([(row, level) for row in low]),
            best_of([(row, level) for row in high]),
        )

    rows: Axis = (Point("ce"), *axis("objective", LOSSES))
    return Sweep(
        name="kim2021_label_noise",
        title="Digits with wrong labels: temperatures of KL, and MSE on logits (alpha = 1)",
        base=base,
        rows=rows,
        groups=axis("data.label_noise", {level: NOISE[level] for level in levels}),
        seeds=seeds,
        baseline="ce",
        columns=(ACCURACY,),
        layout="grid",
        group_title="wrong labels",
        trends=tuple(best_is_low(level) for level in levels if NOISE[level]),
        protocol=(
            *PROTOCOL,
            "Wrong labels are drawn once, uniformly among the other classes, for training only; "
            "the teacher is trained on them too. Validation and test labels are right.",
            "The best temperature of each side is chosen on validation.",
        ),
    )


def _mixed(loss: str, alpha: float) -> str:
    return loss if alpha == 1 else f"{1 - alpha:g}*ce + {alpha:g}*{loss}"


if __name__ == "__main__":
    run_experiment(declare)
