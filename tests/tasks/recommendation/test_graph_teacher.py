"""A table in which a LightGCN teaches matrix factorisations: trained, asked, gone on from."""

import dataclasses

import pytest
from recsys import small_split
from rich.console import Console
from small_tables import walks

from distill_jax.data.people import Person
from distill_jax.engine.engine import Engine
from distill_jax.engine.progress import Reporter
from distill_jax.engine.run import run_table
from distill_jax.engine.sweep import axis
from distill_jax.evaluation.open_recommender import open_recommender
from distill_jax.evaluation.recommend import evaluate
from distill_jax.evaluation.recommend_users import UserLists, taken_from
from distill_jax.models.recommenders.save import load_recommender
from distill_jax.tasks.recommendation.cells import RecModel, RecTeacher
from distill_jax.tasks.recommendation.table import Recommendation
from distill_jax.training.recommender import ADAM, FitConfig

TEACHER, STUDENT = "lightgcn-2x8", "bpr_mf-4"
FAST = dataclasses.replace(ADAM, learning_rate=0.05)
TRAINING = FitConfig(epochs=1, eval_every=1, batch_size=16, optimizer=FAST)
LABELS = "bpr(n=1)"
STRANGER = 7
ROWS = {
    "labels": {"objective": LABELS},
    "kl": {"objective": f"0.5*{LABELS} + 0.5*kl(top=5)"},
    "relaxed_ranking": {"objective": "full_softmax + 0.02*relaxed_ranking(top=5)"},
}


def sweep_of(*rows):
    sweep = walks({label: ROWS[label] for label in rows}, training=TRAINING)
    teacher = RecTeacher(RecModel(TEACHER, max_length=8), LABELS, training=TRAINING)
    students = axis("model", {STUDENT: RecModel(STUDENT, max_length=8)})
    return dataclasses.replace(sweep, base=sweep.base.but(teacher=teacher), groups=students)


@pytest.fixture(scope="module")
def split():
    """There is a user of whom training has nothing."""
    whole = small_split(num_users=40, num_items=25)
    ends_U = whole.train_ends_U.copy()
    ends_U[STRANGER] = whole.data.offsets_U1[STRANGER]
    return dataclasses.replace(whole, train_ends_U=ends_U)


def run(sweep, folder, split):
    task = Recommendation(sweep, split)
    return run_table(task, folder, Reporter(Console(quiet=True)), strategy="sequential")


@pytest.fixture(scope="module")
def finished(tmp_path_factory, split):
    folder = tmp_path_factory.mktemp("graph")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DISTILL_JAX_HOME", str(folder / "home"))
        first = run(sweep_of("labels"), folder, split)
        names = []
        train = Engine.train

        def named(self, work, *args, label, **options):
            names.append(label)
            return train(self, work, *args, label=label, **options)

        patch.setattr(Engine, "train", named)
        return folder, first, *run(sweep_of(*ROWS), folder, split), names


def test_it_goes_on_from_what_is_there(finished):
    """Neither the teacher nor the first row is trained again, and both stay as they were."""
    _, (_, before), _, rows, names = finished
    assert [row.row for row in rows] == ["teacher", "labels", "kl", "relaxed_ranking"]
    assert [row for row in rows if row.row in ("teacher", "labels")] == before
    assert len(names) == 2 and all(STUDENT in name for name in names)


def test_the_teacher_is_heard(finished):
    """As a factorisation; of 25 items it names no hundred but all that are not the rest."""
    _, _, spec, rows, _ = finished
    assert "its lists of a user's or an item's likeliest are asked directly" in "\n".join(
        spec.protocol
    )
    digests = {row.row: row.fingerprints.get("teacher") for row in rows}
    assert digests["kl"] and digests["kl"] == digests["relaxed_ranking"]
    assert digests["labels"] is None and digests["teacher"] is None
    ranks = {row.row: row.test_scores["rank"] for row in rows}
    assert len(set(ranks.values())) == 4
    assert all(0 < row.metrics["test/fidelity@20"] <= 1 for row in rows[1:])


@pytest.mark.parametrize("label", ["teacher", "kl"])
def test_both_answer_in_use_as_they_were_measured(finished, split, label):
    folder, _, _, rows, _ = finished
    (row,) = (each for each in rows if each.row == label)
    folder = folder / "runs" / row.hash
    kind = "lightgcn" if label == "teacher" else "bpr_mf"
    assert type(load_recommender(folder / "model").recommender.config).__module__.endswith(kind)
    opened = open_recommender(folder)
    report = evaluate(opened.model.scorer, split, ks=(10,))
    assert report.metrics["ndcg@10"] == pytest.approx(row.metrics["test/ndcg@10"])


def test_whom_the_teacher_knows_and_whom_not(finished, split):
    """Known users by their vectors, others by what they took, the rest by what is popular."""
    folder, _, _, rows, _ = finished
    opened = open_recommender(folder / "runs" / rows[0].hash)
    lists = UserLists(opened, 5, taken=taken_from(split.data, opened.catalogue))
    names = ("user 5", f"user {STRANGER}", "nobody")
    people = [Person(row, name) for row, name in enumerate(names, start=1)]
    (window,) = lists.windows([*people, Person(4, "new", ("item 3", "item 4"))])
    assert list(window.by) == ["user", "history", "popularity", "history"]
    alone = [each.item for each in opened.recommend("item 3; item 4", k=5)]
    assert window.top_EK[3].tolist() == alone
