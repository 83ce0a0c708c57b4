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

import json
import math
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from distill_jax.cli.run import parse_flags, run
from distill_jax.core.errors import UserError

ML_1M = (6040, 3416)
"""Users and items of MovieLens-1M as SASRec's authors filter it."""
PUBLISHED = ((".178 to .182", ".306 to .315"), (".0178", ".0363"))
"""NDCG@10 and HR@10 there, of a SASRec with the full softmax and of popularity."""
SHOWN = ("train/loss", "validation/ndcg@10", "validation/hr@10")


@dataclass(frozen=True)
class Anchor:
    """Train a SASRec and print its figures over the whole catalogue."""

    data: str = "movielens-100k"
    """movielens-100k, or files:FOLDER with interactions."""
    out: Path = Path("runs/recommendation_anchor")
    """Where checkpoints, the model and the figures go."""
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
    tell_and_keep(flags, split, scorer.of(result.params), settings, asdict(result.progress))
    if not (flags.out / "model").exists():
        save_recommender(flags.out / "model", recommender, result.params, split.data.item_names)


def tell_and_keep(
    flags: Anchor, split: Any, scores: Any, settings: dict[str, Any], progress: dict[str, Any]
) -> None:
    """Read the test split once; print the figures and keep them, as JSON and as a table."""
    from distill_jax.core.files import write_atomic
    from distill_jax.evaluation.recommend import evaluate
    from distill_jax.models.recommenders.popularity import fit_popularity
    from distill_jax.sweeps.provenance import provenance

    report = evaluate(scores, split, "test", ks=(1, 5, 10, 20))
    popular = evaluate(fit_popularity(split).scores, split, "test", ks=(10,))
    print(f"Best on validation after {progress['best_step']:,} steps, on test:")
    for name in ("hr@10", "ndcg@10", "mrr@10", "ndcg@10/tail", "coverage@10"):
        print(f"  {name:<13} {report.metrics.get(name, math.nan):.4f}")
    print(f"Protocol: {report.protocol}.")
    facts = {
        **settings,
        "test": report.metrics,
        "popularity": popular.metrics,
        "protocol": report.protocol,
        "progress": progress,
        **provenance(),
    }
    write_atomic(flags.out / "figures.json", json.dumps(facts, indent=1) + "\n")
    known = (split.data.num_users, split.data.num_items) == ML_1M
    title = f"{flags.layers} blocks, width {flags.width}, {flags.objective}"
    found = {title: report.metrics, "popularity": popular.metrics}
    minutes = progress["train_seconds"] / 60
    last = progress["history"][-1]["step"]
    notes = (
        f"{flags.epochs} epochs, {minutes:.0f} minutes on {facts['device']}; the best by "
        f"validation NDCG@10 ({progress['best_score']:.4f}) was after {progress['best_step']:,} "
        f"steps of {last:,}.",
        f"{report.protocol}.",
    )
    lines = [table(found, known), "", *(f"- {note}" for note in notes)]
    write_atomic(flags.out / "table.md", "\n".join(lines) + "\n")


def table(found: dict[str, dict[str, float]], known: bool) -> str:
    """The figures beside the published ones, as Markdown; those are of MovieLens-1M alone."""
    lines = [
        "| model | NDCG@10 | published | HR@10 | published |",
        "| ----- | ------: | --------: | ----: | --------: |",
    ]
    for (name, metrics), (ndcg, hit) in zip(found.items(), PUBLISHED, strict=True):
        own = (f"{metrics[key]:.4f}" for key in ("ndcg@10", "hr@10"))
        cells = zip(own, (ndcg, hit) if known else ("–", "–"), strict=True)
        lines.append(f"| {name} | " + " | ".join(f"{ours} | {theirs}" for ours, theirs in cells))
        lines[-1] += " |"
    return "\n".join(lines)


if __name__ == "__main__":
    run(lambda: main(parse_flags(Anchor, sys.argv[1:], "experiments/recommendation_anchor.py")))
