"""New interactions arrive: what does a small recommender forget when it is distilled again?

    python experiments/recommendation_continual.py
    python experiments/recommendation_continual.py --data files:FOLDER     # with times

The student of the first moment stands on top, then four ways of bringing it up to date: labels of
the users with something new; the same with the teacher's word; that with as many other users
rehearsed, whose words lie in the old cache; and a student distilled anew from everything, which
costs most. Witnesses, who are never trained on, are asked for what they took before the moment
(what was forgotten) and after it.

Run time: two minutes of one CPU core. On MovieLens-100K nothing was forgotten in any of these ways;
what is new is learned best anew from everything, no difference is significant.
"""

import sys
from dataclasses import dataclass, replace
from pathlib import Path

from distill_jax.cli.experiment import TableFlags
from distill_jax.cli.run import parse_flags, run


@dataclass(frozen=True)
class Continual(TableFlags):
    """Distil a recommender again when new interactions have come."""

    data: str = "movielens-100k"
    """movielens-100k, files:FOLDER or tfds:movielens/NAME, with times."""
    teacher: str = "sasrec-2x64"
    student: str = "sasrec-1x16"
    seeds: tuple[int, ...] = (0, 1, 2)
    epochs: int = 30
    """Before the moment."""
    update_epochs: int = 10
    """Over what an update learns from."""
    output_dir: Path = Path("results/recommendation_continual")


KL = "0.5*full_softmax + 0.5*kl(T=2)"


def main(flags: Continual) -> None:
    """Run it, write and print the table."""
    from distill_jax.cli.results import conclude, open_console
    from distill_jax.data.load_interactions import load_interactions
    from distill_jax.engine.progress import Reporter
    from distill_jax.tasks.recommendation.continual import run_continual

    console = open_console()
    flags.use_plugin()
    data = load_interactions(flags.data)
    reporter = Reporter(console)
    spec, rows = run_continual(table(flags), data, flags.output_dir, reporter, **flags.carried_out)
    conclude(spec, rows, flags.output_dir, console, flags.options.share)


def table(flags: Continual):  # type: ignore[no-untyped-def]  # imports jax, which is slow
    """The run that the flags ask for: a ``ContinualSweep``."""
    from distill_jax.tasks.recommendation.cells import RecData, RecModel
    from distill_jax.tasks.recommendation.continual import ContinualSweep, Update
    from distill_jax.training.recommender import ADAM, FitConfig

    fast = replace(ADAM, learning_rate=3e-3, schedule="linear", warmup=0.05)
    training = FitConfig(epochs=flags.epochs, eval_every=3, batch_size=32, optimizer=fast)
    slower = replace(fast, learning_rate=1e-3)
    return ContinualSweep(
        RecData(flags.data),
        RecModel(flags.teacher, dropout=0.2, heads=2),
        RecModel(flags.student),
        (
            Update("labels, new users alone", "full_softmax"),
            Update("kl, new users alone", KL),
            Update("kl, rehearsal", KL, rehearse=1.0),
            Update("kl, anew from everything", KL, anew=True),
        ),
        KL,
        training,
        replace(training, epochs=flags.update_epochs, eval_every=2, optimizer=slower),
        seeds=flags.seeds,
        precision=flags.precision,
    )


if __name__ == "__main__":
    run(lambda: main(parse_flags(Continual, sys.argv[1:], "recommendation_continual.py")))
