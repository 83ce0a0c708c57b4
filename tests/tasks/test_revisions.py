"""Runs whose numbers a correction changed have new hashes; all others keep theirs."""

import dataclasses
import json
from pathlib import Path

import pytest

from distill_jax.engine.cell import Cell, Train
from distill_jax.tasks.classification.cells import (
    ClassifierSetup,
    TrainingConfig,
)
from distill_jax.tasks.classification.yardsticks import Yardstick
from distill_jax.tasks.finished import rebuilt
from distill_jax.tasks.language.cells import LanguageSetup, LanguageTraining
from distill_jax.tasks.recommendation.cells import RecModel, RecommenderSetup
from distill_jax.tasks.revisions import has_experts
from distill_jax.tasks.search.cells import SearchSetup, SearchTraining
from distill_jax.training.optimizer import OptimizerConfig
from distill_jax.training.recommender import FitConfig

RESULTS = Path(__file__).resolve().parents[2] / "experiments/results"
TRAININGS = {
    ClassifierSetup: TrainingConfig,
    LanguageSetup: LanguageTraining,
    RecommenderSetup: FitConfig,
    SearchSetup: SearchTraining,
}
OTHERS = {
    "compare_losses-full",  # its cells had other fields
    "recommendation_anchor",  # a script of its own
}


def cell_of(config):
    if "recipe" in config and "objective" not in config:
        return rebuilt(Yardstick, config)
    if "asks" in config:
        kind = LanguageSetup
    elif "in_batch" in config:
        kind = SearchSetup
    else:
        kind = RecommenderSetup if "top" in config else ClassifierSetup
    before = config.get("intermediate") or []
    stages = [*(before if isinstance(before, list) else [before]), config]
    trained = [
        Train(stage["objective"], rebuilt(TRAININGS[kind], stage["training"])) for stage in stages
    ]
    fields = {f.name for f in dataclasses.fields(Cell)} & config.keys()
    own = {name: config[name] for name in fields}
    return Cell(rebuilt(kind, config), tuple(trained), **own)


@pytest.mark.parametrize(
    "ledger",
    [path for path in sorted(RESULTS.glob("*/ledger.jsonl")) if path.parent.name not in OTHERS],
    ids=lambda path: path.parent.name,
)
def test_committed_runs_keep_their_hashes(ledger):
    """But for experts, whose noise was that of seed 0 at every seed."""
    rows = [json.loads(line) for line in ledger.read_text().splitlines()]
    assert rows
    for row in rows:
        cell = cell_of(row["config"])
        if cell.hash != row["hash"]:
            assert (
                not isinstance(cell, Yardstick) and has_experts(cell.objective) and cell.seed > 0
            ), row["row"]


def text_cell(objective, before=()):
    stages = [Train(text, TrainingConfig()) for text in (*before, objective)]
    return Cell(ClassifierSetup(), tuple(stages), data_digest="d", teacher_digest="t")


def recommender_cell(objective, seed=0, decay=0.0):
    training = FitConfig(optimizer=OptimizerConfig(weight_decay=decay))
    return Cell(RecommenderSetup(), (Train(objective, training),), seed, data_digest="d")


def as_before(cell, monkeypatch):
    """The hash that the cell would have had before experts were revised."""
    with monkeypatch.context() as patch:
        for module in ("classification.cells", "recommendation.cells"):
            patch.setattr(f"distill_jax.tasks.{module}.EXPERTS_REVISED", {})
        patch.setattr("distill_jax.tasks.recommendation.cells.USERS_REVISED", {})
        return cell.hash


@pytest.mark.parametrize(
    ("cell", "changed"),
    [
        (text_cell("kl"), False),
        (text_cell("0.5*expert_hints(T=linear(1, 0.1)) + kl"), True),
        (text_cell("kl", before=["hierarchical_topology"]), True),
        (recommender_cell("full_softmax + 0.02*relaxed_ranking", seed=1), False),
        (recommender_cell("full_softmax + expert_hints"), False),
        (recommender_cell("full_softmax + expert_hints", seed=1), True),
        (recommender_cell("full_softmax + hierarchical_topology", decay=0.01), True),
    ],
)
def test_runs_with_experts_retire_where_they_would_come_out_differently(cell, changed, monkeypatch):
    assert (cell.hash != as_before(cell, monkeypatch)) == changed


@pytest.mark.parametrize(("model", "changed"), [("bpr_mf-8", True), ("sasrec-1x8", False)])
def test_runs_with_vectors_of_users_retire(model, changed, monkeypatch):
    """Those of users whom nobody trained on were asked as they lay there."""
    cell = recommender_cell("full_softmax").but(model=RecModel(model))
    assert (cell.hash != as_before(cell, monkeypatch)) == changed


@pytest.mark.parametrize(
    "cell",
    [
        text_cell("kl"),
        recommender_cell("full_softmax"),
        Cell(SearchSetup(), (Train("ce", SearchTraining()),), data_digest="d", teacher_digest="t"),
    ],
    ids=lambda cell: type(cell.setup).__name__,
)
def test_clipping_apart_is_another_run(cell):
    optimizer = dataclasses.replace(cell.training.optimizer, clip_apart=True)
    training = dataclasses.replace(cell.training, optimizer=optimizer)
    assert cell.but(training=training).hash != cell.hash
