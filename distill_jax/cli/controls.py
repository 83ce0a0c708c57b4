"""Control rows of ``compare-losses``: how much of a gain is a teacher, how much unlabelled text."""

from collections.abc import Sequence

from distill_jax.core.errors import UserError
from distill_jax.engine.sweep import Axis, Point, axis, product
from distill_jax.tables.trends import Trend, difference

LABELS, TEACHER = "ce", "kl"
CHOSEN = "ce, chosen"
LABELLED = "kl, no transfer set"
PLACEBO = "kl, placebo"
PSEUDO = "pseudo_ce"
RATES = (0.3, 1.0, 3.0)
"""Times a student's own learning rate."""
LENGTHS = (0.25, 1.0, 2.0)
"""Times the steps of the other rows."""


def check_controls(objectives: Sequence[str], steps: int) -> None:
    """Raises ``UserError`` where the controls have nothing to be held against."""
    missing = [name for name in (LABELS, TEACHER) if name not in objectives]
    if missing:
        raise UserError(f"--controls are held against ce and kl: {missing[0]} is no objective here")
    if PSEUDO in objectives:
        raise UserError(f"{PSEUDO} is among the controls: leave it out of --objectives")
    if not steps:
        raise UserError(
            "--controls compare training sets of several sizes over equally many steps: say how "
            "many with --steps"
        )


def control_rows(steps: int, rates: Sequence[float]) -> Axis:
    """The rows.

    Args:
      steps: of the other rows.
      rates: learning rates of the students.
    """
    tried = sorted({float(f"{factor * rate:.3g}") for rate in rates for factor in RATES})
    lengths = dict.fromkeys(max(1, round(factor * steps)) for factor in LENGTHS)
    settings = product(
        axis("training.optimizer.learning_rate", {f"rate {rate:g}": rate for rate in tried}),
        axis("training.steps", {f"{length} steps": length for length in lengths}),
    )
    return (
        Point(CHOSEN, (("objective", "ce"),), settings),
        Point(LABELLED, (("objective", "kl"), ("data.transfer", "none"))),
        Point(PSEUDO, (("objective", "pseudo_ce"),)),
        Point(PLACEBO, (("objective", "kl"), ("placebo", True))),
    )


def control_trends(students: Sequence[str]) -> tuple[Trend, ...]:
    """The differences that the rows are there for, each with an interval over the seeds."""
    statements = (
        ("a teacher helps on the labelled sentences alone", LABELLED, LABELS),
        ("unlabelled sentences help under the same teacher", TEACHER, LABELLED),
        ("the teacher's hard labels on unlabelled sentences help", PSEUDO, LABELS),
        ("soft labels beat hard ones on the same sentences", TEACHER, PSEUDO),
        ("what the teacher says of this very sentence counts", TEACHER, PLACEBO),
        ("the gain is more than a better rate and length for the labels", TEACHER, CHOSEN),
    )
    return tuple(
        difference(
            f"{statement} ({student})" if len(students) > 1 else statement,
            (better, student),
            (worse, student),
        )
        for student in students
        for statement, better, worse in statements
    )


PROTOCOL = (
    "`kl` less `ce` is the sum of two differences, both in trends.md: a teacher on the same "
    "labelled sentences (`kl, no transfer set` less `ce`) and unlabelled sentences under the same "
    "teacher (`kl` less `kl, no transfer set`).",
    "`pseudo_ce`: the labels where there are any, the teacher's likeliest class elsewhere. "
    "`kl, placebo`: every sentence gets what the teacher says of another one, drawn by the seed.",
    "`ce, chosen`: learning rate and length are chosen on validation; the other rows of a student "
    "take equally many steps at one rate.",
)
