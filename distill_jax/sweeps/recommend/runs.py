"""One run of a recommender: trained, asked about the test users once, written up."""

from __future__ import annotations

import dataclasses
import functools
import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import Array

from distill_jax.core.files import home, write_atomic
from distill_jax.core.ranking_types import HistoryBatch, scores_last
from distill_jax.data.interactions import RankingSplit
from distill_jax.evaluation.latency import Latency, cpu_latency
from distill_jax.evaluation.ranking import METRICS, overlap
from distill_jax.evaluation.recommend import RankingReport, Scorer, evaluate
from distill_jax.evaluation.score_histories import HistoryScorer
from distill_jax.evaluation.size import model_size
from distill_jax.models.recommenders.build import Recommender
from distill_jax.models.recommenders.save import save_recommender
from distill_jax.models.recommenders.text_items import ItemTexts
from distill_jax.objectives.ranking_objective import RankingObjective
from distill_jax.sweeps.evidence import CASES, RANK, pack_numbers
from distill_jax.sweeps.ledger import LedgerRow, provenance
from distill_jax.sweeps.progress import Reporter
from distill_jax.sweeps.recommend.build import ENCODER, item_vectors_of_texts
from distill_jax.sweeps.recommend.cells import RecCell
from distill_jax.teachers.item_texts import TextSpace
from distill_jax.training.checkpoint import Checkpoints, Identity
from distill_jax.training.feed import TeacherOutputs
from distill_jax.training.interrupt import StopRequest
from distill_jax.training.loop import TrainResult
from distill_jax.training.recommender import fit
from distill_jax.training.state import Params

CUTS = (10, 20)
LIST = 20
"""Items of a list in ``fidelity@20``."""
TIMED_USERS = 30
TESTED_SLICES = ("tail", "cold")
"""Parts of the cases that tests over users may look at."""


@dataclass(frozen=True, eq=False)
class Workshop:
    """What all runs of a table share.

    Attributes:
      folder: of the runs.
    """

    folder: Path
    split: RankingSplit
    reporter: Reporter
    stop: StopRequest

    @functools.cached_property
    def texts(self) -> tuple[ItemTexts, TextSpace]:
        """Vectors of the items' texts; made when a model wants them."""
        self.reporter.say("reading the items' texts")
        return item_vectors_of_texts(self.split.data.item_texts, home())

    def validate(self, recommender: Recommender) -> Callable[[Params], dict[str, float]]:
        """Validation metrics, the few that a learning curve shows."""
        scorer = scorer_of(recommender)

        def score(params: Params) -> dict[str, float]:
            found = evaluate(
                scorer.of(params), self.split, "validation", on_batch=self.stop.check
            ).metrics
            return {name: found[name] for name in ("ndcg@10", "hr@10")}

        return score

    def test(self, scorer: Scorer) -> RankingReport:
        """The test split, read once a run."""
        return evaluate(
            scorer, self.split, "test", ks=CUTS, list_length=LIST, on_batch=self.stop.check
        )


@functools.lru_cache(maxsize=8)
def scorer_of(recommender: Recommender) -> HistoryScorer:
    """Compiled once a model, whatever it is asked about."""
    return HistoryScorer(recommender)


def train_cell(
    shop: Workshop,
    cell: RecCell,
    recommender: Recommender,
    objective: RankingObjective,
    label: str,
    *,
    params: Params | None = None,
    teacher: TeacherOutputs | None = None,
) -> TrainResult:
    """Train a cell's model, going on from its checkpoint where there is one."""
    identity = Identity(cell.hash, json.loads(json.dumps(cell.config)))
    folder = shop.folder / cell.hash / "checkpoint"

    def on_log(done: int, values: dict[str, float]) -> None:
        if "train/loss" in values:
            stage.update(done, loss=values["train/loss"], batch_size=cell.training.batch_size)

    total = steps_of(shop.split, recommender, cell)
    with (
        Checkpoints(folder, identity, say=shop.reporter.say) as checkpoints,
        shop.reporter.stage(label, total) as stage,
    ):
        return fit(
            recommender,
            shop.split,
            objective,
            cell.training,
            seed=cell.seed,
            evaluate=shop.validate(recommender),
            params=params,
            teacher=teacher,
            on_log=on_log,
            stop=shop.stop,
            checkpoints=checkpoints,
            say=shop.reporter.say,
        )


def steps_of(split: RankingSplit, recommender: Recommender, cell: RecCell) -> int:
    """Optimiser steps of a run."""
    from distill_jax.data.histories import HistoryTable

    config = recommender.config
    rows = len(HistoryTable(split, config.task, config.max_length))
    return cell.training.epochs * -(-rows // cell.training.batch_size)


def write_up(
    shop: Workshop,
    experiment: str,
    cell: RecCell,
    recommender: Recommender,
    result: TrainResult,
    *,
    row: str,
    group: str,
    teacher_top_EK: np.ndarray | None,
    seconds: float,
) -> LedgerRow:
    """The ledger's row of a trained model, which is kept for use.

    Args:
      teacher_top_EK: what the teacher shows each test user; None for the teacher itself.
    """
    report = shop.test(scorer_of(recommender).of(result.params))
    progress = result.progress
    metrics = test_metrics(report, teacher_top_EK)
    metrics["validation/ndcg@10"] = progress.best_score
    metrics["parameters"] = model_size(result.params).parameters
    timed = latency(shop, recommender, result.params)
    metrics |= {"latency/p50_ms": timed.p50_ms, "latency/p95_ms": timed.p95_ms}
    keep_model(shop, cell, recommender, result.params)
    fingerprints = {"data": cell.data_digest}
    if cell.teacher_digest:
        fingerprints["teacher"] = cell.teacher_digest
    return LedgerRow(
        hash=cell.hash,
        experiment=experiment,
        row=row,
        group=group,
        seed=cell.seed,
        config=json.loads(json.dumps(cell.config)),
        metrics=metrics,
        selected_step=progress.best_step,
        fingerprints=fingerprints,
        seconds={
            "train": progress.train_seconds,
            "compile": progress.compile_seconds,
            "total": seconds,
        },
        examples_per_second=result.examples_per_second,
        test_scores=evidence(report),
        history=progress.history,
        **provenance(),
    )


def closed_form_row(
    shop: Workshop, experiment: str, name: str, cell: RecCell, teacher_top_EK: np.ndarray
) -> LedgerRow:
    """The row of a recommender that needs no training."""
    from distill_jax.models.recommenders.ease import fit_ease
    from distill_jax.models.recommenders.item_knn import fit_item_knn
    from distill_jax.models.recommenders.popularity import fit_popularity

    fits: dict[str, Callable[[RankingSplit], Any]] = {
        "popularity": fit_popularity,
        "item_knn": fit_item_knn,
        "ease": fit_ease,
    }
    started = time.perf_counter()
    model = fits[name](shop.split)
    fitted = time.perf_counter() - started
    report = shop.test(model.scores)
    return LedgerRow(
        hash=cell.hash,
        experiment=experiment,
        row=name,
        group="closed form",
        seed=0,
        config=json.loads(json.dumps({**cell.config, "closed_form": name})),
        metrics=test_metrics(report, teacher_top_EK),
        selected_step=None,
        fingerprints={"data": cell.data_digest},
        seconds={"train": fitted, "total": time.perf_counter() - started},
        examples_per_second=None,
        test_scores=evidence(report),
        **provenance(),
    )


def test_metrics(report: RankingReport, teacher_top_EK: np.ndarray | None) -> dict[str, float]:
    """Figures under ``test/``, those of the lists too."""
    metrics = {f"test/{name}": float(value) for name, value in report.metrics.items()}
    if teacher_top_EK is not None:
        metrics[f"test/fidelity@{LIST}"] = overlap(
            report.ranked.top_EK[:, :LIST], teacher_top_EK[:, :LIST]
        )
    return metrics


def evidence(report: RankingReport) -> dict[str, str]:
    """What tests over users need: ranks where each user is asked once, else means and cases."""
    if len(np.unique(report.users_E)) == len(report.users_E):
        return {RANK: pack_numbers(report.ranked.ranks_E)}
    kept: dict[str, np.ndarray] = {}
    for slice_ in ("", *(f"/{name}" for name in report.slices if name in TESTED_SLICES)):
        for name in (f"{metric}@{k}{slice_}" for metric in METRICS for k in CUTS):
            _, kept[name], kept[CASES + slice_] = report.per_user(name)
    if not all(np.isfinite(values).all() for values in kept.values()):
        return {}
    return {name: pack_numbers(values) for name, values in kept.items() if len(values)}


def latency(shop: Workshop, recommender: Recommender, params: Params) -> Latency:
    """Of one user's list on the CPU: history in, ten items out; item vectors are made before."""
    histories = shop.split.test.histories(shop.split.data)
    scorer = scorer_of(recommender)
    chosen = np.linspace(0, len(histories) - 1, min(TIMED_USERS, len(histories))).astype(int)
    batches = [scorer.batch(histories.part(int(i), int(i) + 1)) for i in chosen]
    items_ID = np.asarray(recommender.item_vectors(jax.device_put(params)))
    return cpu_latency(
        _lists(recommender), (params, items_ID), batches, repeats=5, on_call=shop.stop.check
    )


@functools.lru_cache(maxsize=8)
def _lists(recommender: Recommender) -> Callable[[Any, HistoryBatch], Array]:
    """``apply((params, items), batch) -> the ten best items``; one object a model."""

    def apply(given: tuple[Params, Array], batch: HistoryBatch) -> Array:
        params, items_ID = given
        output = recommender.apply({"params": params}, batch, items_ID=items_ID, last_only=True)
        return jax.lax.top_k(scores_last(output), 10)[1]

    return apply


def keep_model(shop: Workshop, cell: RecCell, recommender: Recommender, params: Params) -> None:
    """Keep a finished model with all that ``distill-jax recommend`` needs to use it."""
    from distill_jax.evaluation.item_catalogue import Catalogue, save_catalogue
    from distill_jax.evaluation.open_recommender import keep_encoder

    folder = shop.folder / cell.hash / "model"
    shutil.rmtree(folder, ignore_errors=True)  # left by a run killed at this place
    data = shop.split.data
    save_recommender(folder, recommender, params, data.item_names)
    save_catalogue(folder, Catalogue(data.item_names, data.item_texts))
    if recommender.config.items.source != "id":
        keep_encoder(folder, shop.texts[1], ENCODER)
    facts = {"data": cell.data.name, "protocol": shop.split.protocol, "objective": cell.objective}
    write_atomic(folder / "run.json", json.dumps(facts, indent=1, ensure_ascii=False) + "\n")


def clear_checkpoint(folder: Path) -> None:
    """Drop what a run needed to go on, now that it stands in the ledger."""
    shutil.rmtree(folder / "checkpoint", ignore_errors=True)


def closed_form_cell(cell: RecCell, name: str) -> RecCell:
    """The identity of a closed form's row; its model's fields say nothing."""
    return dataclasses.replace(cell, objective=name, teacher_digest="", top=0, seed=0)
