"""New interactions arrive: what does a small recommender forget when it is distilled again?

    python experiments/recommendation_continual.py
    python experiments/recommendation_continual.py --data files:FOLDER     # with times
    python experiments/recommendation_continual.py --no-windows     # newest windows alone

The student of the first moment stands on top, then four ways of bringing it up to date: labels of
the users with something new; the same with the teacher's word; that with as many other users
rehearsed, whose words lie in the old cache; and a student distilled anew from everything, which
costs most. Witnesses, who are never trained on, are asked for what they took before the moment
(what was forgotten) and after it.

Run time: six minutes of one CPU core beside other work. On MovieLens-100K nothing was forgotten in
any of these ways; what is new is learned best anew from everything, no difference is significant.
"""

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from distill_jax.cli.interaction_flags import InteractionFlags
from distill_jax.cli.run import parse_flags, run

if TYPE_CHECKING:
    from distill_jax.engine.sweep import Sweep
    from distill_jax.tasks.recommendation.cells import RecommenderSetup
    from distill_jax.training.recommender import FitConfig


@dataclass(frozen=True)
class Continual(InteractionFlags):
    """Distil a recommender again when new interactions have come."""

    teacher: str = "sasrec-2x64"
    student: str = "sasrec-1x16"
    seeds: tuple[int, ...] = (0, 1, 2)
    epochs: int = 30
    """Before the moment."""
    update_epochs: int = 10
    """Over what an update learns from."""
    max_length: int = 50
    """How many items of a history the models look back."""
    windows: bool = True
    """Longer histories are learned from as a whole, in windows of that length."""
    output_dir: Path = Path("results/recommendation_continual")


KL = "0.5*full_softmax + 0.5*kl(T=2)"


def main(flags: Continual) -> None:
    """Run it, write and print the table."""
    from distill_jax.cli.results import open_console
    from distill_jax.data.column_names import parse_columns
    from distill_jax.data.continual_splits import ContinualRule, continual_split
    from distill_jax.data.load_interactions import load_interactions
    from distill_jax.tasks.recommendation import continual

    console = open_console()
    flags.use_plugin()
    own = flags.rec_data()
    data = load_interactions(
        own.name, preparation=own.preparation, columns=parse_columns(own.columns)
    )
    split, (_, update) = continual_split(data, ContinualRule()), trainings(flags)
    task = continual.Continual(table(flags, data.name), split, update)
    flags.run(task, flags.output_dir, console)


def trainings(flags: Continual) -> "tuple[FitConfig, FitConfig]":
    """Of teacher and student before the moment, and of every update."""
    from distill_jax.training.recommender import ADAM, FitConfig

    fast = replace(ADAM, learning_rate=3e-3, schedule="linear", warmup=0.05)
    first = FitConfig(
        epochs=flags.epochs, eval_every=3, batch_size=32, optimizer=fast, windows=flags.windows
    )
    slower = replace(fast, learning_rate=1e-3)
    return first, replace(first, epochs=flags.update_epochs, eval_every=2, optimizer=slower)


def table(flags: Continual, data: str) -> "Sweep[RecommenderSetup]":
    """The student as it was, and ways of bringing it up to date.

    Args:
      data: what the data are called.
    """
    from distill_jax.engine.cell import Cell, Train
    from distill_jax.engine.sweep import Sweep, axis, points
    from distill_jax.tasks.recommendation.cells import (
        RecModel,
        RecommenderSetup,
        RecTeacher,
        Update,
    )
    from distill_jax.tasks.recommendation.old_and_new import COLUMNS, NEW, OLD

    first, update = trainings(flags)
    teaching = RecModel(flags.teacher, flags.max_length, dropout=0.2, heads=2)
    teacher = RecTeacher(teaching, training=first)
    student = RecModel(flags.student, flags.max_length)
    labels = "labels, new users alone"
    return Sweep(
        name="recommendation_continual",
        title=f"A recommender brought up to date, {data}",
        base=Cell(
            RecommenderSetup(flags.rec_data(), student, teacher),
            (Train(KL, first),),
            precision=flags.precision,
        ),
        rows=points(
            {
                "as it was": {},
                labels: {"objective": "full_softmax", "training": update, "update": Update()},
                "kl, new users alone": {"training": update, "update": Update()},
                "kl, rehearsal": {"training": update, "update": Update(rehearse=1.0)},
                "kl, anew from everything": {"update": Update(anew=True)},
            }
        ),
        groups=axis("model", {student.name: student}),
        seeds=flags.seeds,
        baseline=labels,
        columns=COLUMNS,
        tested=(OLD, NEW),
        row_title="update",
    )


if __name__ == "__main__":
    run(lambda: main(parse_flags(Continual, sys.argv[1:], "recommendation_continual.py")))
