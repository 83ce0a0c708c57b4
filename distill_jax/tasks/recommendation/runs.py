"""One run of a recommender: trained, asked about the test users once, written up."""

from __future__ import annotations

import functools
import json
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from distill_jax.core.distributed import is_lead, to_host
from distill_jax.core.files import write_atomic
from distill_jax.data.histories import Draws, HistoryTable
from distill_jax.data.interactions import Histories, Interactions, RankingSplit
from distill_jax.data.plan import choose_lengths
from distill_jax.engine.rows import ledger_row
from distill_jax.engine.work import Work
from distill_jax.evaluation.among import (
    at_items,
    metrics_among,
    others_of,
    ranks_among,
)
from distill_jax.evaluation.audience import Audience, save_audience
from distill_jax.evaluation.item_catalogue import Catalogue as ItemCatalogue
from distill_jax.evaluation.item_catalogue import save_catalogue
from distill_jax.evaluation.latency import call_latency, cpu_device, parameter_count
from distill_jax.evaluation.open_recommender import Neural, OpenRecommender, keep_encoder
from distill_jax.evaluation.ranking import METRICS, overlap
from distill_jax.evaluation.recommend import RankingReport, evaluate
from distill_jax.evaluation.score_histories import HistoryScorer
from distill_jax.evaluation.timing import Latency
from distill_jax.models.recommenders.build import Recommender
from distill_jax.models.recommenders.closed_forms import (
    CLOSED_FORMS,
    save_closed_form,
    size_of,
)
from distill_jax.models.recommenders.occurring_items import OccurringItems
from distill_jax.models.recommenders.save import (
    save_recommender,
)
from distill_jax.objectives.items import looks_at_named, negatives_of, trained_on
from distill_jax.objectives.resolve import ResolvedObjective
from distill_jax.tables.evidence import CASES, RANK, pack_numbers
from distill_jax.tables.ledger import LedgerRow
from distill_jax.tasks.recommendation.build import (
    ENCODER,
)
from distill_jax.tasks.recommendation.catalogue import CUTS, LIST, Catalogue
from distill_jax.tasks.recommendation.cells import RecommenderCell
from distill_jax.training.checkpoint import Identity
from distill_jax.training.loop import LoopConfig
from distill_jax.training.state import Params

TESTED_SLICES = ("tail", "cold")
"""Parts of the cases that tests over users may look at."""
TIMED_USERS = 30
LARGE, NAMED = 2**15, 4
"""Items of a catalogue that is trained by rows, where a batch names so many times fewer."""
MOST_KEPT = 2**31
"""Bytes of a closed form that is kept for use: EASE has more from 23,171 items on."""


@functools.lru_cache(maxsize=8)
def scorer_of(recommender: Recommender) -> HistoryScorer:
    """Compiled once a model, whatever it is asked about."""
    return HistoryScorer(recommender)


def recommender_work(
    split: RankingSplit,
    cell: RecommenderCell,
    recommender: Recommender,
    objective: ResolvedObjective,
) -> Work:
    """The training of a cell.

    Args:
      split: its training part is learnt from, its validation part decides which step is best.
    """
    training, config = cell.training, recommender.config
    objective = trained_on(objective, split.train_counts_I)
    table = HistoryTable(split, config.task, config.max_length, training.windows)
    lengths = choose_lengths(
        table.lengths_N, batch_size=training.batch_size, max_shapes=training.max_shapes
    )
    hiding = training.hiding if config.task == "hidden" else None
    steps_per_epoch = -(-len(table) // training.batch_size)

    def validate(params: Params, mesh: Mesh, on_batch: Callable[[], None]) -> dict[str, float]:
        scorer = scorer_of(recommender).of(to_host(params), mesh=mesh)
        found = evaluate(scorer, split, "validation", list_length=0, on_batch=on_batch).metrics
        return {name: found[name] for name in ("ndcg@10", "hr@10")}

    def validate_among(
        params: Params, mesh: Mesh, on_batch: Callable[[], None]
    ) -> dict[str, float]:
        scorer = scorer_of(recommender).at_items(to_host(params))
        others_UN = others_of(split, cell.setup.among, cell.seed)
        return metrics_among(ranks_among(scorer, split, split.validation, others_UN, on_batch))

    return Work(
        identity=Identity(cell.hash, json.loads(json.dumps(cell.config))),
        seed=cell.seed,
        config=config,
        build=recommender.computing_in,
        objective=objective,
        optimizer=training.optimizer,
        loop=LoopConfig(
            steps=training.epochs * steps_per_epoch,
            eval_every=training.eval_every * steps_per_epoch,
            select=training.select,
            patience=training.patience,
            watched=training.watched,
        ),
        batch_size=training.batch_size,
        lengths=lengths,
        table=table,
        data=split.digest,
        loss_params=lambda: objective.init_params(jax.random.fold_in(jax.random.key(cell.seed), 1)),
        evaluate=validate_among if cell.setup.among else validate,
        draws=Draws(table, hiding, negatives_of(objective), training.kind_weights),
        items=_named_items(recommender, objective, training.batch_size, max(lengths)),
        own_program=recommender.texts is not None,
        precision=cell.precision,
    )


def _named_items(
    recommender: Recommender, objective: ResolvedObjective, rows: int, length: int
) -> OccurringItems | None:
    """Those that a batch names, where they are a small part of a large catalogue and the only ones
    that the model and its losses look at."""
    config, drawn = recommender.config, negatives_of(objective)
    apart = recommender.in_use is recommender  # else a vector is made of all users' and items'
    if not (apart and config.items.only_own and looks_at_named(objective)):
        return None
    places = rows * length
    negatives = 0 if drawn is None else drawn.count * (places if drawn.per == "position" else rows)
    few = max(LARGE, NAMED * (2 * places + negatives)) <= config.num_items
    return OccurringItems(config.num_items) if few else None


def write_up(
    catalogue: Catalogue,
    experiment: str,
    cell: RecommenderCell,
    recommender: Recommender,
    params: Params,
    training: Mapping[str, Any],
    *,
    row: str,
    group: str,
    teacher_top_EK: np.ndarray | None,
) -> LedgerRow:
    """The ledger's row of a trained model, which is kept for use.

    Args:
      training: of ``rows.training_facts``.
      teacher_top_EK: what the teacher shows each test user; None for the teacher itself.
    """
    report = catalogue.test(scorer_of(recommender).of(params, mesh=catalogue.engine.mesh))
    metrics = test_metrics(report, teacher_top_EK)
    among = catalogue.test_among(cell, scorer_of(recommender).at_items(params))
    metrics |= among.metrics
    metrics[f"validation/{cell.training.select}"] = training["best_score"]
    metrics["parameters"] = parameter_count(params)
    timed = latency(catalogue, recommender, params)
    metrics |= {"latency/p50_ms": timed.p50_ms, "latency/p95_ms": timed.p95_ms}
    folder = catalogue.engine.run_folder(cell.hash)
    keep_model(catalogue, cell, recommender, params, folder / "model")
    heard = {"teacher": cell.teacher_digest} if cell.teacher_digest else {}
    return ledger_row(
        hash=cell.hash,
        experiment=experiment,
        row=row,
        group=group,
        seed=cell.seed,
        config=cell.config,
        metrics=metrics,
        fingerprints={"data": cell.data_digest, **heard},
        training=training,
        test_scores=evidence(report) | among.evidence,
        history=training["history"],
    )


def closed_form_row(
    catalogue: Catalogue,
    experiment: str,
    name: str,
    cell: RecommenderCell,
    teacher_top_EK: np.ndarray | None,
) -> LedgerRow:
    """The row of a recommender that needs no training."""
    started = time.perf_counter()
    model = CLOSED_FORMS[name].fit(catalogue.split, on_block=catalogue.engine.check_stop)
    fitted = time.perf_counter() - started
    report = catalogue.test(model.scores)
    among = catalogue.test_among(cell, at_items(model.scores))
    if is_lead():
        keep_closed_form(catalogue, name, cell, model)
    return ledger_row(
        hash=cell.hash,
        experiment=experiment,
        row=name,
        group="closed form",
        seed=0,
        config={**cell.config, "closed_form": name},
        metrics=test_metrics(report, teacher_top_EK) | among.metrics,
        fingerprints={"data": cell.data_digest},
        training={"seconds": {"train": fitted, "total": time.perf_counter() - started}},
        test_scores=evidence(report) | among.evidence,
    )


def keep_closed_form(catalogue: Catalogue, name: str, cell: RecommenderCell, model: Any) -> None:
    """Keep a recommender in closed form for use, unless it is large."""
    size = size_of(name, model)
    if size > MOST_KEPT:
        catalogue.engine.reporter.say(f"{name} is not kept for use: {size / 2**30:.1f} GiB")
        return
    folder, data = catalogue.engine.run_folder(cell.hash) / "model", catalogue.split.data
    shutil.rmtree(folder, ignore_errors=True)  # left by a run killed at this place
    save_closed_form(folder, name, model, data.item_names)
    save_catalogue(folder, ItemCatalogue(data.item_names, data.item_texts))
    counts_I = catalogue.split.target_counts_I
    save_audience(folder, Audience(counts_I, repeats=data.repeats, kinds=data.kind_names))
    keep_facts(catalogue, cell, folder, objective=name)


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


def latency(catalogue: Catalogue, recommender: Recommender, params: Params) -> Latency:
    """Of one user's list on the CPU through the door that people use, ``recommend`` of the opened
    model: names of items in, ten items with their titles out; item vectors are made before."""
    data, cases = catalogue.split.data, catalogue.split.test
    chosen = np.linspace(0, len(cases) - 1, min(TIMED_USERS, len(cases))).astype(int)
    histories = cases.take(chosen).histories(data)
    asked = [_words(data, histories.part(row, row + 1)) for row in range(len(histories))]
    with jax.default_device(cpu_device()):
        served = Neural(scorer_of(recommender), jax.device_get(params), Path())
        audience = Audience(kinds=data.kind_names)
        opened = OpenRecommender(served, ItemCatalogue(data.item_names, data.item_texts), audience)
        return call_latency(opened.recommend, asked, repeats=5, on_call=catalogue.engine.check_stop)


def _words(data: Interactions, history: Histories) -> list[str]:
    """A history as people give it."""
    names = [data.item_names[item] for item in history.items_S]
    if history.kinds_S is None:
        return names
    kinds = [data.kind_names[kind] for kind in history.kinds_S]
    return [f"{kind}:{name}" for kind, name in zip(kinds, names, strict=True)]


def keep_model(
    catalogue: Catalogue,
    cell: RecommenderCell,
    recommender: Recommender,
    params: Params,
    folder: Path,
) -> None:
    """Keep a finished model with all that ``distill-jax recommend`` needs to use it."""
    shutil.rmtree(folder, ignore_errors=True)  # left by a run killed at this place
    data = catalogue.split.data
    save_recommender(folder, recommender, params, data.item_names)
    save_catalogue(folder, ItemCatalogue(data.item_names, data.item_texts))
    save_audience(folder, audience_of(catalogue.split, recommender))
    if recommender.config.items.reads_texts:
        keep_encoder(folder, catalogue.texts[1], ENCODER)
    keep_facts(catalogue, cell, folder, objective=cell.objective)


def keep_facts(
    catalogue: Catalogue, cell: RecommenderCell, folder: Path, *, objective: str
) -> None:
    """Write beside a model what it was made of, for people."""
    facts = {
        "data": cell.setup.data.name,
        "protocol": catalogue.split.protocol,
        "objective": objective,
    }
    if catalogue.split.data.kind_names:
        facts["recommends"] = catalogue.split.data.kind_names[0]
    write_atomic(folder / "run.json", json.dumps(facts, indent=1, ensure_ascii=False) + "\n")


def audience_of(split: RankingSplit, recommender: Recommender) -> Audience:
    """What was popular in training; the users' names where the model has vectors of theirs."""
    names: tuple[str | None, ...] = ()
    if recommender.config.knows_users:
        users = zip(split.data.user_names, split.learned_U, strict=True)
        names = tuple(name if own else None for name, own in users)
    return Audience(split.target_counts_I, names, split.data.repeats, split.data.kind_names)
