"""The anchor of recommendation: SASRec with the softmax over all items, on MovieLens-1M.

    python experiments/recommendation_anchor.py --data files:FOLDER   # MovieLens-1M, SASRec's form
    python experiments/recommendation_anchor.py --data files:FOLDER --epochs 1 --eval-every 1
    python experiments/recommendation_anchor.py --max-length 50 --epochs 40     # MovieLens-100K

2 blocks, width 64, the newest 200 items, batches of 128 users, dropout 0.2, Adam at 1e-3, the best
epoch by validation NDCG@10. An interrupted run goes on where it stopped, if it is given the same
--out. Published for the whole catalogue, leave-one-out: NDCG@10 .178 to .182, HR@10 .306 to .315
(Klenitskiy and Vasilev 2023, and others); for popularity .0178 and .0363.

Run time: 65 minutes for 90 epochs of MovieLens-1M on one CPU core; NDCG@10 .1774 and HR@10 .3094.
"""

import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill_jax.cli.run import parse_flags, run
from distill_jax.core.errors import UserError

if TYPE_CHECKING:
    from distill_jax.sweeps.ledger import LedgerRow
    from distill_jax.sweeps.spec import TableSpec

ML_1M = (6040, 3416)
"""Users and items of MovieLens-1M as SASRec's authors filter it."""
PUBLISHED = (
    "Published there for the whole catalogue, leave-one-out: a SASRec with the full softmax "
    "NDCG@10 .178 to .182 and HR@10 .306 to .315, popularity .0178 and .0363 "
    "(Klenitskiy and Vasilev 2023, and others)."
)
NAME = "recommendation_anchor"
SHOWN = ("train/loss", "validation/ndcg@10", "validation/hr@10")


@dataclass(frozen=True)
class Anchor:
    """Train a SASRec and print its figures over the whole catalogue."""

    data: str = "movielens-100k"
    """movielens-100k, or files:FOLDER with interactions."""
    out: Path = Path("runs/recommendation_anchor")
    """Where checkpoints, the model, the ledger and the table go."""
    objective: str = "full_softmax"
    """Of the labels, e.g. sampled_softmax(n=256) or bce(n=1)."""
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
    dropout: float = 0.2
    learning_rate: float = 1e-3
    seed: int = 0


def main(flags: Anchor) -> None:
    """Train, choose the epoch on validation, read the test split once."""
    from distill_jax.core.digests import digest
    from distill_jax.core.settings import plain
    from distill_jax.data.load_interactions import load_ranking_split
    from distill_jax.evaluation.recommend import evaluate
    from distill_jax.evaluation.score_histories import HistoryScorer
    from distill_jax.models.recommenders.build import Recommender
    from distill_jax.models.recommenders.sasrec import SasRecConfig
    from distill_jax.models.recommenders.save import save_recommender
    from distill_jax.models.recommenders.text_items import ItemConfig
    from distill_jax.objectives.ranking_objective import resolve_ranking
    from distill_jax.training.checkpoint import Checkpoints, Identity
    from distill_jax.training.ends import kept_or
    from distill_jax.training.interrupt import Interrupted, StopRequest
    from distill_jax.training.loop import TrainResult
    from distill_jax.training.recommender import ADAM, FitConfig, fit

    split = load_ranking_split(flags.data)
    print(f"{split.data.name}: {split.data.num_users:,} users, {split.data.num_items:,} items")
    config = SasRecConfig(
        ItemConfig(split.data.num_items, flags.width),
        num_layers=flags.layers,
        num_heads=flags.heads,
        max_length=flags.max_length,
        dropout=flags.dropout,
        attention_dropout=flags.dropout,
    )
    recommender = Recommender(config)
    objective = resolve_ranking(
        flags.objective, config.shape, positions=flags.batch_size * flags.max_length
    )
    training = FitConfig(
        epochs=flags.epochs,
        eval_every=flags.eval_every,
        batch_size=flags.batch_size,
        max_shapes=flags.max_shapes,
        optimizer=replace(ADAM, learning_rate=flags.learning_rate),
    )
    scorer, started = HistoryScorer(recommender), time.perf_counter()

    def validate(params: Any) -> dict[str, float]:
        return evaluate(scorer.of(params), split, "validation").metrics

    def tell(step: int, values: dict[str, float]) -> None:
        shown = {name: value for name, value in values.items() if name in SHOWN}
        text = "  ".join(f"{name} {value:.4f}" for name, value in shown.items())
        print(f"{time.perf_counter() - started:7.0f} s  step {step:6d}  {text}", flush=True)

    settings = plain({"flags": {**asdict(flags), "out": ""}, "data": split.digest})
    identity = Identity(digest(settings), settings)
    end = flags.out / f"end-{identity.hash}.safetensors"
    with StopRequest(print) as stop, Checkpoints(flags.out / "steps", identity) as checkpoints:

        def train() -> list[TrainResult]:
            return [
                fit(
                    recommender,
                    split,
                    objective,
                    training,
                    seed=flags.seed,
                    evaluate=validate,
                    on_log=tell,
                    stop=stop,
                    checkpoints=checkpoints,
                    say=print,
                )
            ]

        try:
            [result] = kept_or(end, train, say=print)
        except Interrupted:
            raise UserError("stopped; the same command goes on from here") from None
    assert not isinstance(result, UserError)
    if not (flags.out / "model").exists():
        save_recommender(flags.out / "model", recommender, result.params, split.data.item_names)
    rows = write_up(flags, split, scorer.of(result.params), settings, result.progress)
    publish(describe(flags, split, rows), rows, flags.out)


def write_up(
    flags: Anchor, split: Any, scores: Any, settings: dict[str, Any], progress: Any
) -> "list[LedgerRow]":
    """Read the test split once, for the model and for popularity."""
    from distill_jax.core.digests import digest
    from distill_jax.evaluation.recommend import evaluate
    from distill_jax.models.recommenders.popularity import fit_popularity
    from distill_jax.sweeps.ledger import LedgerRow, provenance
    from distill_jax.sweeps.recommend.runs import evidence, test_metrics

    report = evaluate(scores, split, "test", ks=(10, 20))
    popular = evaluate(fit_popularity(split).scores, split, "test", ks=(10, 20))
    shared: dict[str, Any] = {
        "experiment": NAME,
        "seed": flags.seed,
        "fingerprints": {"data": split.digest},
        **provenance(),
    }
    history = [{name: at[name] for name in ("step", "ndcg@10", "hr@10")} for at in progress.history]
    return [
        LedgerRow(
            hash=digest({**settings, "model": "popularity"}),
            row="popularity",
            group="closed form",
            config={**settings, "model": "popularity"},
            metrics=test_metrics(popular, None),
            selected_step=None,
            seconds={},
            examples_per_second=None,
            test_scores=evidence(popular),
            **shared,
        ),
        LedgerRow(
            hash=digest(settings),
            row=flags.objective,
            group=f"sasrec-{flags.layers}x{flags.width}",
            config=settings,
            metrics={**test_metrics(report, None), "validation/ndcg@10": progress.best_score},
            selected_step=progress.best_step,
            seconds={"train": progress.train_seconds, "compile": progress.compile_seconds},
            examples_per_second=progress.examples / progress.train_seconds,
            test_scores=evidence(report),
            history=history,
            **shared,
        ),
    ]


def describe(flags: Anchor, split: Any, rows: "list[LedgerRow]") -> "TableSpec":
    """The table without its numbers."""
    from distill_jax.sweeps.recommend.columns import COLUMNS
    from distill_jax.sweeps.spec import Place, TableSpec

    popular, trained = rows
    minutes = trained.seconds["train"] / 60
    last = trained.history[-1]["step"]
    known = (split.data.num_users, split.data.num_items) == ML_1M
    keys = ("test/ndcg@10", "test/hr@10", "test/ndcg@10/tail", "test/coverage@10")
    return TableSpec(
        name=NAME,
        title=f"The anchor of recommendation: SASRec on {split.data.name}",
        layout="metrics",
        columns=tuple(column for column in COLUMNS if column.key in keys),
        baseline=trained.row,
        places=tuple(Place(r.row, r.group, r.seed, r.hash) for r in (trained, popular)),
        tested=(),
        group_title="model",
        row_title="training",
        protocol=(
            f"Split: {split.protocol}.",
            f"Ranks among all {split.data.num_items:,} items, those of the user's own history "
            "left out, ties against the model.",
            f"{flags.epochs} epochs, {minutes:.0f} minutes on {trained.device}; the best by "
            f"validation NDCG@10 ({trained.metrics['validation/ndcg@10']:.4f}) was after "
            f"{trained.selected_step:,} steps of {last:,.0f}.",
            *([PUBLISHED] if known else []),
        ),
    )


def publish(spec: "TableSpec", rows: "list[LedgerRow]", folder: Path) -> None:
    """Keep the rows, write the table from the ledger, print it."""
    from rich.console import Console

    from distill_jax.sweeps.ledger import Ledger
    from distill_jax.sweeps.outputs import show, write_outputs

    ledger = Ledger(folder / "ledger.jsonl")
    for row in rows:
        ledger.append(row)
    paths = write_outputs(spec, ledger.rows(), folder)
    show(spec, ledger.rows(), Console())
    for path in (*paths, ledger.path):
        print(path)


if __name__ == "__main__":
    run(lambda: main(parse_flags(Anchor, sys.argv[1:], "experiments/recommendation_anchor.py")))
