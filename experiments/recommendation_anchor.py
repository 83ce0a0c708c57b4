"""The anchor of recommendation: SASRec with the softmax over all items, on MovieLens-1M.

    python experiments/recommendation_anchor.py --data files:FOLDER   # MovieLens-1M, SASRec's form
    python experiments/recommendation_anchor.py --data files:FOLDER --epochs 1 --eval-every 1
    python experiments/recommendation_anchor.py --max-length 50 --epochs 40     # MovieLens-100K

2 blocks, width 64, the newest 200 items, batches of 128 users, dropout 0.2, Adam at 1e-3, the best
epoch by validation NDCG@10. Published for the whole catalogue, leave-one-out: NDCG@10 .178 to .182,
HR@10 .306 to .315 (Klenitskiy and Vasilev 2023, and others); for popularity .0178 and .0363.

Run time: 65 minutes for 90 epochs of MovieLens-1M on one CPU core; NDCG@10 .1774 and HR@10 .3094.
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

ML_1M = (6040, 3416)
"""Users and items of MovieLens-1M as SASRec's authors filter it."""
PUBLISHED = (
    "Published there for the whole catalogue, leave-one-out: a SASRec with the full softmax "
    "NDCG@10 .178 to .182 and HR@10 .306 to .315, popularity .0178 and .0363 "
    "(Klenitskiy and Vasilev 2023, and others)."
)
NAME = "recommendation_anchor"


@dataclass(frozen=True)
class Anchor(InteractionFlags):
    """Train a SASRec and print its figures over the whole catalogue."""

    output_dir: Path = Path("results") / NAME
    """Where checkpoints, the model, the ledger and the table go."""
    objective: str = "full_softmax"
    """Of the labels, e.g. sampled_softmax(n=256) or sampled_bce(n=1)."""
    epochs: int = 100
    eval_every: int = 2
    """Epochs between evaluations on the validation split."""
    batch_size: int = 128
    max_shapes: int = 1
    """Lengths of batches; more save padding and put users of like histories together."""
    width: int = 64
    layers: int = 2
    heads: int = 2
    max_length: int = 200
    windows: bool = False
    """Longer histories are learned from as a whole; the published figures take the newest items."""
    references: str = "popularity"
    """What stands beside it without training: popularity, item_knn, ease; "" for none."""
    dropout: float = 0.2
    learning_rate: float = 1e-3
    seeds: tuple[int, ...] = (0,)


def main(flags: Anchor) -> None:
    """Run the table, write and print it."""
    from distill_jax.cli.results import open_console
    from distill_jax.tasks.recommendation.table import Recommendation

    console = open_console()
    flags.use_plugin()
    split = flags.ranking_split()
    known = (split.data.num_users, split.data.num_items) == ML_1M
    sweep = table(flags, split.data.name, (PUBLISHED,) if known else ())
    flags.run(Recommendation(sweep, split), flags.output_dir, console)


def table(flags: Anchor, data: str, notes: tuple[str, ...]) -> "Sweep[RecommenderSetup]":
    """One row and popularity, without a teacher."""
    from distill_jax.data.kinds import kind_weights
    from distill_jax.engine.cell import Cell, Train
    from distill_jax.engine.sweep import Point, Sweep
    from distill_jax.models.recommenders.closed_forms import parse_references
    from distill_jax.tasks.recommendation.cells import RecModel, RecommenderSetup
    from distill_jax.tasks.recommendation.columns import COLUMNS
    from distill_jax.training.recommender import ADAM, FitConfig

    name = f"sasrec-{flags.layers}x{flags.width}"
    keys = ("test/ndcg@10", "test/hr@10", "test/ndcg@10/tail", "test/coverage@10", "seconds/total")
    model = RecModel(name, flags.max_length, flags.dropout, flags.heads)
    training = FitConfig(
        epochs=flags.epochs,
        eval_every=flags.eval_every,
        batch_size=flags.batch_size,
        max_shapes=flags.max_shapes,
        optimizer=replace(ADAM, learning_rate=flags.learning_rate),
        windows=flags.windows,
        kind_weights=kind_weights(flags.kinds),
    )
    return Sweep(
        name=NAME,
        title=f"The anchor of recommendation: SASRec on {data}",
        base=Cell(
            RecommenderSetup(flags.rec_data(), model),
            (Train(flags.objective, training),),
            precision=flags.precision,
        ),
        rows=(Point(flags.objective),),
        groups=(Point(name),),
        seeds=flags.seeds,
        references=parse_references(flags.references),
        columns=tuple(column for column in COLUMNS if column.key in keys),
        tested=(),
        row_title="training",
        protocol=notes,
    )


if __name__ == "__main__":
    run(lambda: main(parse_flags(Anchor, sys.argv[1:], "experiments/recommendation_anchor.py")))
