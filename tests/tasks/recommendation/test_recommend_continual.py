"""A continual run in small: who is learned from, whose word is heard, what is reported."""

import dataclasses

import numpy as np
import pytest
from recsys import small_split
from rich.console import Console

from distill_jax.core.errors import UserError
from distill_jax.core.top_items import TopItems
from distill_jax.data.continual_splits import ContinualRule, continual_split
from distill_jax.data.histories import HistoryTable
from distill_jax.engine.cell import Cell, Train
from distill_jax.engine.progress import Reporter
from distill_jax.engine.run import run_table
from distill_jax.engine.sweep import Point, Sweep, points
from distill_jax.tables.build import table_of
from distill_jax.tables.evidence import unpack_numbers
from distill_jax.tables.markdown import to_markdown
from distill_jax.tasks.recommendation.cells import (
    RecData,
    RecModel,
    RecommenderSetup,
    RecTeacher,
    Update,
)
from distill_jax.tasks.recommendation.continual import Continual
from distill_jax.tasks.recommendation.old_and_new import COLUMNS, FORGOTTEN, NEW, OLD
from distill_jax.tasks.recommendation.words_since import by_user
from distill_jax.training.recommender import FitConfig

TRAINING = FitConfig(epochs=2, eval_every=1, batch_size=16)
KL = "0.5*full_softmax + 0.5*kl(top=5)"
RULE = ContinualRule(witnesses=0.4)
TEACHER = RecTeacher(RecModel("sasrec-1x8", max_length=8), training=TRAINING, top=8)
SETUP = RecommenderSetup(RecData("walks"), RecModel("sasrec-1x4", max_length=8), TEACHER)
SHORT = dataclasses.replace(TRAINING, epochs=1)
SWEEP = Sweep(
    name="continual",
    title="Walks go on",
    base=Cell(SETUP, (Train(KL, TRAINING),)),
    rows=points(
        {
            "as it was": {},
            "labels": {"objective": "full_softmax", "training": SHORT, "update": Update()},
            "rehearsal": {"training": SHORT, "update": Update(rehearse=1.0)},
            "anew": {"update": Update(anew=True)},
        }
    ),
    groups=(Point("sasrec-1x4"),),
    seeds=(0,),
    baseline="labels",
    columns=COLUMNS,
    tested=(OLD, NEW),
)


def run(sweep, data, folder):
    task = Continual(sweep, continual_split(data, RULE), SHORT)
    return run_table(task, folder, Reporter(Console(quiet=True)), strategy="sequential")


@pytest.fixture(scope="module")
def data():
    data = small_split(num_users=60, num_items=25).data
    starts = np.random.default_rng(1).random(data.num_users)
    times = [starts[u] + 0.05 * np.arange(n) for u, n in enumerate(data.lengths_U)]
    return dataclasses.replace(data, times_N=np.concatenate(times))


def word(batch, number):
    shape = np.asarray(batch.where_BT).shape
    where = np.asarray(batch.where_BT)
    return TopItems(
        np.full((*shape, 2), number, np.int32),
        np.full((*shape, 2), number, np.float32),
        np.zeros(shape, np.float32),
        np.zeros(shape, np.float32),
        where,
    )


def test_each_user_hears_the_cache_that_knows_him(data):
    split = continual_split(data, RULE)
    table = HistoryTable(split.after(), "next", 8)
    batch = table.batch(np.arange(12), 8, 16)
    heard = by_user(lambda b: word(b, 1), lambda b: word(b, 2), split.grown_U)(batch)
    users = batch.example_ids_B
    grown = (users >= 0) & split.grown_U[np.maximum(users, 0)]
    assert grown.any() and not grown.all()
    np.testing.assert_array_equal(heard.ids_BTK[:, 0, 0], np.where(grown, 2, 1))
    np.testing.assert_array_equal(heard.where_BT, batch.where_BT)


def test_a_run_reports_old_new_and_forgotten(data, tmp_path):
    spec, rows = run(SWEEP, data, tmp_path)
    by_row = {row.row: row for row in rows}
    assert set(by_row) == {"as it was", "labels", "rehearsal", "anew"}
    before = by_row["as it was"]
    assert FORGOTTEN not in before.metrics
    for label, row in by_row.items():
        for key in (OLD, NEW):
            values = unpack_numbers(row.test_scores[key.removeprefix("test/")])
            assert row.metrics[key] == pytest.approx(values.mean(), rel=1e-5)
        if label != "as it was":
            lost = before.metrics[OLD] - row.metrics[OLD]
            assert row.metrics[FORGOTTEN] == pytest.approx(lost)
    steps = {label: row.metrics["steps"] for label, row in by_row.items()}
    assert steps["labels"] < steps["rehearsal"] <= steps["anew"]
    assert [place.row for place in spec.places] == ["as it was", "labels", "rehearsal", "anew"]
    assert "forgotten" in to_markdown(table_of(spec, rows))
    again_spec, again = run(SWEEP, data, tmp_path)
    assert (again_spec, again) == (spec, rows)


def test_mistakes_are_told(data, tmp_path):
    with pytest.raises(UserError, match="without an update"):
        run(dataclasses.replace(SWEEP, rows=SWEEP.rows[1:]), data, tmp_path)
    strata = dataclasses.replace(SWEEP, base=SWEEP.base.but(objective="kl(top=5, strata=2)"))
    with pytest.raises(UserError, match="no strata in a continual run"):
        run(strata, data, tmp_path)
    graph = SWEEP.base.but(teacher=RecTeacher(RecModel("lightgcn-2x4", max_length=8), top=8))
    with pytest.raises(UserError, match="over the graph of one moment's interactions"):
        run(dataclasses.replace(SWEEP, base=graph), data, tmp_path)


@pytest.mark.long
def test_windows_reach_back_in_every_update(data, tmp_path):
    """The teacher's words lie in two caches, of which each is read where it was written."""
    windows = dataclasses.replace(TRAINING, epochs=1, windows=True)
    model = RecModel("sasrec-1x4", max_length=3)
    teacher = RecTeacher(RecModel("sasrec-1x8", max_length=3), training=windows, top=8)
    base = SWEEP.base.but(model=model, teacher=teacher, training=windows)
    rows = points({"as it was": {}, "rehearsal": {"update": Update(rehearse=1.0)}})
    sweep = dataclasses.replace(SWEEP, base=base, rows=rows, baseline="as it was")
    task = Continual(sweep, continual_split(data, RULE), windows)
    spec, made = run_table(task, tmp_path, Reporter(Console(quiet=True)), strategy="sequential")
    assert len(made) == 2
    told = "\n".join(spec.protocol)
    for name in ("sasrec-1x4", "sasrec-1x8"):
        assert f"{name} learns from 100% of the training targets, in windows of 3." in told
