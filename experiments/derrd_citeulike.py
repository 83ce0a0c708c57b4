"""A published table reproduced: DE-RRD (Kang et al. 2020) on the authors' split of citeULike.

    python experiments/derrd_citeulike.py --data files:FOLDER
    python experiments/derrd_citeulike.py --data files:FOLDER --rows labels --seeds 0
    python experiments/derrd_citeulike.py --data files:FOLDER --preset smoke
"""

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from distill_jax.cli.interaction_flags import InteractionFlags
from distill_jax.cli.run import parse_flags, run

if TYPE_CHECKING:
    from distill_jax.engine.sweep import Sweep
    from distill_jax.tasks.recommendation.cells import RecommenderSetup

NAME = "derrd_citeulike"
LABELS = "1024*bpr(n=1)"


@dataclass(frozen=True)
class Derrd(InteractionFlags):
    """Reproduce the table of DE-RRD."""

    preset: Literal["default", "smoke"] = "default"
    rows: tuple[str, ...] = ()
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    epochs: int = 1000
    teacher: str = ""
    output_dir: Path = Path("results") / NAME


def main(flags: Derrd) -> None:
    """Run the table, write and print it."""
    from distill_jax.cli.results import open_console
    from distill_jax.tasks.recommendation.table import Recommendation

    console = open_console()
    flags.run(Recommendation(table(flags)), flags.output_dir, console)


def table(flags: Derrd) -> "Sweep[RecommenderSetup]":
    """The table."""
    from distill_jax.engine.cell import Cell, Train
    from distill_jax.engine.sweep import Point, Sweep
    from distill_jax.tables.columns import Column
    from distill_jax.tasks.recommendation.cells import RecModel, RecommenderSetup
    from distill_jax.tasks.recommendation.columns import COLUMNS
    from distill_jax.training.recommender import ADAM, FitConfig

    student = RecModel("bpr_mf-20", 1, 0.0, item_bias=False, initial=0.01)
    training = FitConfig(
        epochs=flags.epochs,
        batch_size=1024,
        optimizer=replace(ADAM, l2=1e-3, clip_norm=1e9),
        select="sampled_hr@10",
        windows=True,
        patience=20,
        watched=("sampled_hr@5", "sampled_hr@20"),
    )
    HR = Column("test/sampled_hr@10", "H@10 of 500", 1, 4, higher_is_better=True)
    N = Column("test/sampled_ndcg@10", "N@10 of 500", 1, 4, higher_is_better=True)
    return Sweep(
        name=NAME,
        title="DE-RRD on citeULike",
        base=Cell(
            RecommenderSetup(flags.rec_data(), student, among=499),
            (Train(LABELS, training),),
            precision=flags.precision,
        ),
        rows=(Point("labels"),),
        groups=(Point("student"),),
        seeds=flags.seeds,
        references=("popularity",),
        columns=(HR, N, *COLUMNS),
        tested=(HR.key,),
        row_title="training",
    )


if __name__ == "__main__":
    run(lambda: main(parse_flags(Derrd, sys.argv[1:], "experiments/derrd_citeulike.py")))
