"""A finished recommender goes on with new interactions: through the command line, in small."""

import csv
import dataclasses
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from feedbacks import KINDS, events
from feedbacks import write_shop as write_events
from killed import stopped_at
from rich.console import Console
from shop import KL, finished_shop, first_month, next_month, third_month, update, write_shop
from small_tables import FIT

from distill_jax.core.errors import UserError
from distill_jax.data.histories import HistoryTable
from distill_jax.data.load_interactions import load_interactions, load_ranking_split
from distill_jax.engine.engine import Engine
from distill_jax.engine.options import DEFAULTS
from distill_jax.engine.progress import Reporter
from distill_jax.evaluation.open_recommender import open_recommender
from distill_jax.evaluation.recommend import evaluate
from distill_jax.models.recommenders.save import load_recommender
from distill_jax.tables.ledger import Ledger
from distill_jax.tasks.recommendation.cells import RecData
from distill_jax.tasks.recommendation.continual import Continual
from distill_jax.tasks.recommendation.find_run import finished_run
from distill_jax.tasks.recommendation.going_on import update_of, with_new
from distill_jax.tasks.recommendation.updating import apart
from distill_jax.tasks.recommendation.words_since import of_known_targets
from distill_jax.teachers.recommender_speaker import RecommenderSpeaker
from distill_jax.training.interrupt import StopRequest
from distill_jax.training.step import CompiledStep


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return finished_shop(tmp_path_factory.mktemp("shop"))


@pytest.fixture(scope="module")
def newer(tmp_path_factory):
    return write_shop(tmp_path_factory.mktemp("newer") / "later", next_month())


@pytest.fixture(scope="module")
def whole(run, newer, tmp_path_factory):
    """The output of an update that went through at once, and of whom the teacher was asked."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, updated(run, newer, folder)


@pytest.fixture(scope="module")
def newest(tmp_path_factory):
    return write_shop(tmp_path_factory.mktemp("newest") / "latest", third_month())


@pytest.fixture(scope="module")
def again(whole, newest, tmp_path_factory):
    """The same of an update of what came out of ``whole``."""
    folder = tmp_path_factory.mktemp("again")
    with pytest.MonkeyPatch.context() as patch:  # they have passed in ``whole``
        patch.setattr(Continual, "self_check", lambda *_: None)
        return folder, updated(came_out(whole[0]), newest, folder)


def updated(run, data, folder):
    """Update a run; returns the users whom the teacher was asked about."""
    asked, speak = [], RecommenderSpeaker.__call__

    def counted(self, batch):
        users = np.asarray(batch.example_ids_B)
        asked.extend(users[users >= 0].tolist())
        return speak(self, batch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RecommenderSpeaker, "__call__", counted)
        update(run, "--data", data, "--output", folder)
    return asked


def came_out(folder):
    """The folder of the student that an update left."""
    return Path(report_of(folder)["folder"])


def report_of(folder):
    return json.loads((folder / "update.json").read_text())


def shop_of(run):
    return run.parents[2] / "shop"


def test_before_is_what_the_run_scored_and_after_what_the_model_scores(run, whole):
    folder, _ = whole
    found = report_of(folder)
    at = found["metrics"]
    own = {row.hash: row for row in Ledger(run.parents[1] / "ledger.jsonl").rows()}[run.name]
    for name in ("ndcg@10", "hr@10"):
        assert at[f"before/old_{name}"] == pytest.approx(own.metrics[f"test/{name}"], rel=1e-5)
    opened = open_recommender(run.__class__(found["folder"]))
    split = load_ranking_split(f"files:{shop_of(run)}")
    known = split.data.num_items
    assert len(opened.catalogue) == known + 3

    def scorer(histories):
        grown = type(histories)(
            histories.users_E, histories.offsets_E1, histories.items_S, known + 3
        )
        return np.asarray(opened.model.scorer(grown))[:, :known]

    report = evaluate(scorer, split, ks=(10,))
    for name in ("ndcg@10", "hr@10"):
        assert at[f"test/old_{name}"] == pytest.approx(report.metrics[name], rel=1e-5)
    assert at["test/old_ndcg@10"] != at["before/old_ndcg@10"]
    gain = at["test/old_ndcg@10"] - at["before/old_ndcg@10"]
    assert at["old_ndcg@10/gain"] == pytest.approx(gain, abs=1e-6)
    assert at["test/forgotten"] == pytest.approx(-gain, abs=1e-6)
    changed = (at["old/learnt"] - at["old/forgotten"]) / at["old/tested"]
    hits = at["test/old_hr@10"] - at["before/old_hr@10"]
    assert changed == pytest.approx(hits, abs=1e-6) and at["old/tested"] == len(split.test)
    assert 0 <= at["old/forgotten_p"] <= 1 and "new/forgotten_p" not in at  # several cases a user


def test_the_distances_are_those_of_the_files(run, whole, newer):
    at = report_of(whole[0])["distances"]
    old, new = first_month(), next_month()
    items, users = {item for _, item, _ in old}, {user for user, _, _ in old}
    taken = {(user, item) for user, item, _ in old}
    kept = list(dict.fromkeys((u, i) for u, i, _ in new if (u, i) not in taken))
    assert (at["old/interactions"], at["new/interactions"]) == (len(old), len(kept))
    assert at["unknown_items"] == pytest.approx(np.mean([i not in items for _, i in kept]))
    assert at["unknown_users"] == pytest.approx(np.mean([u not in users for u, _ in kept]))
    assert at["names/unknown_items"] == pytest.approx(3 / len({i for _, i in kept}))
    assert at["names/unknown_users"] == pytest.approx(6 / 36)
    shares = {
        name: np.mean([i == name for _, i, _ in old]) - np.mean([i == name for _, i in kept])
        for name in {i for _, i in kept} | items
    }
    assert at["drift"] == pytest.approx(sum(map(abs, shares.values())) / 2)
    assert 0 < at["drift/by chance"] < 1


def test_the_old_teachers_words_come_from_the_runs_cache(run, whole, newer):
    """Asked are the users with something new, nobody who is rehearsed."""
    folder, asked = whole
    users = load_interactions(f"files:{shop_of(run)}").user_names
    grown = {f"u{n}" for n in range(30)} | {f"new{n}" for n in range(6)}
    told = report_of(folder)["notes"]
    learned = int(told[0].split(" users are")[0].split()[-1])
    assert len(set(asked)) == len(asked) == learned < len(grown)
    assert all(n >= len(users) or users[n] in grown for n in asked)
    assert "other users rehearsed" in told[0] and not any("asked again" in note for note in told)


def test_it_stands_in_a_ledger_and_a_report_and_is_not_done_again(
    run, whole, newer, tmp_path, monkeypatch
):
    folder, _ = whole
    rows = Ledger(folder / "ledger.jsonl").rows()
    assert [row.row for row in rows] == ["teacher", "student", "update(files:later)"]
    assert rows[1].hash == run.name and rows[2].config["update"]["data"] == f"files:{newer}"
    text = (folder / "update.md").read_text()
    at = rows[2].metrics
    for test in ("old", "new"):
        score = f"{at[f'before/{test}_ndcg@10']:.4f} | {at[f'test/{test}_ndcg@10']:.4f}"
        assert f"| {test} | NDCG@10 | {score} |" in text
    assert f"Model: `{folder}/runs/{rows[2].hash}/model`" in text
    assert f"The teacher's NDCG@10 is {at['teacher/old_ndcg@10/after']:.4f}" in text
    monkeypatch.setattr(CompiledStep, "__call__", lambda *_: pytest.fail("a step was taken"))
    elsewhere = shutil.copytree(newer, tmp_path / "elsewhere/later")
    update(run, "--data", f"files:{elsewhere}", "--output", folder)
    assert len(Ledger(folder / "ledger.jsonl").rows()) == 3


def test_the_student_that_came_out_recommends_what_is_new(run, whole, newer):
    folder = whole[0] / "runs" / Ledger(whole[0] / "ledger.jsonl").rows()[2].hash
    opened = open_recommender(folder)
    assert opened.catalogue.names[25:] == ("i25", "i26", "i27")
    shown = opened.recommend(["i25", "i24"], 26)
    assert {"i26", "i27"} < {each.name for each in shown}
    counts = opened.audience.counts_I
    split = load_ranking_split(f"files:{shop_of(run)}")
    assert (counts[:25] >= split.train_counts_I).all() and counts[25:].sum() > 0


def test_what_was_updated_is_updated_again(run, whole, newer, again):
    """Before is what came out of the first update, on all that has been asked for so far."""
    first, at = report_of(whole[0])["metrics"], report_of(again[0])["metrics"]
    assert at["old/tested"] == first["old/tested"] + first["new/tested"]
    opened = open_recommender(came_out(whole[0]))
    split = finished_run(came_out(whole[0])).split
    report = evaluate(opened.model.scorer, split, ks=(10,))
    _, scores, _ = report.per_user("ndcg@10")
    assert at["before/old_ndcg@10"] == pytest.approx(scores.mean(), rel=1e-5)
    labels = [row.row for row in Ledger(again[0] / "ledger.jsonl").rows()]
    assert labels == ["teacher", "student", "update(files:later)", "update(files:latest)"]
    assert report_of(again[0])["notes"][-1] == (
        f"{run.name} was brought up to date with files:{newer} before"
    )


def test_the_third_month_is_recommended_too(whole, again):
    known = open_recommender(came_out(whole[0])).catalogue.names
    opened = open_recommender(came_out(again[0]))
    latest = sorted({item for _, item, _ in third_month()} - set(known))
    assert latest and opened.catalogue.names == (*known, *latest)
    assert latest[0] in {each.name for each in opened.recommend(["i26", "i27"], 28)}


def test_of_the_whole_past_nobody_is_asked_again(run, whole, newest, again):
    """Of either month some are rehearsed, with what the teacher said then."""
    folder, asked = again
    found = finished_run(came_out(folder))
    went, before = found.went, found.before.went
    assert sorted(asked) == np.flatnonzero(went.grown_U).tolist()
    users = len(before.grown_U)
    rehearsed_U = went.rehearsed(int(went.grown_U.sum()), 0)[:users]
    assert (rehearsed_U & before.grown_U).any() and (rehearsed_U & ~before.grown_U).any()


def test_what_was_said_of_the_past_is_what_the_teacher_says(whole, newest, tmp_path):
    """Of those who come again every position is heard, from the cache of its time."""
    run = finished_run(came_out(whole[0]))
    update_ = dataclasses.replace(run.cell.setup.update, data=f"files:{newest}")
    split, _ = with_new(run, update_)
    task = update_of(run, run.cell.but(update=update_), split)
    (entry,) = task.sweep.entries()
    engine = Engine(tmp_path, Reporter(Console(quiet=True)), StopRequest(print), "none", DEFAULTS)
    task.open(engine, [entry])
    known = run.teacher(engine, task.teacher, Ledger(tmp_path / "ledger.jsonl"))
    idle_U = (split.new_ends_U > split.data.offsets_U1[:-1]) & ~split.grown_U
    table = HistoryTable(split.before(), "next", 8)
    batch = table.batch(np.flatnonzero(idle_U[table.users_R]), 8, 32)
    speaker = RecommenderSpeaker(task.teacher, known.params, 5, among=25)
    said = of_known_targets(speaker, 25)(batch)
    heard = known.words.listen(task.resolve(entry.cell).teacher_capture)(batch)
    np.testing.assert_array_equal(heard.where_BT, said.where_BT)
    where_BT = np.asarray(said.where_BT)
    assert known.among == 25 and (where_BT != np.asarray(batch.where_BT)).any()
    np.testing.assert_array_equal(heard.ids_BTK[where_BT], np.asarray(said.ids_BTK)[where_BT])
    np.testing.assert_allclose(
        heard.logits_BTK[where_BT], np.asarray(said.logits_BTK)[where_BT], atol=1e-2
    )
    assert not list(tmp_path.glob("teacher_outputs/*"))


def test_what_is_missing_of_the_past_is_named(run, whole, newer, tmp_path):
    place = tmp_path / "moved"
    shutil.copytree(run.parents[1], place / "table")
    first = came_out(whole[0])
    shutil.copytree(whole[0], place / "table/runs" / run.name / "updated")
    moved = place / "table/runs" / run.name / "updated/runs" / first.name
    ledger = moved.parents[1] / "ledger.jsonl"
    text = ledger.read_text()
    began = os.path.relpath(run, first.parent)

    def now(before, after):
        assert before in text
        ledger.write_text(text.replace(before, after))

    now(f'"began": "{began}"', f'"began": "../../../{run.name}"')
    assert finished_run(moved).before.folder == moved.parents[2]
    now(f'"began": "{began}"', '"began": "../../../nowhere"')
    with pytest.raises(UserError, match=rf"{moved} needs what it went on from: no finished run at"):
        finished_run(moved)
    now(f'"began": "{began}"', f'"began": "{moved.name}"')
    with pytest.raises(UserError, match="went on from itself"):
        finished_run(moved)
    now(f'"began": "{began}"', '"began": ""')
    with pytest.raises(UserError, match="did not write down what it began with"):
        finished_run(moved)
    other = write_shop(tmp_path / "other", next_month()[:-3])
    now(f'"files:{newer}"', f'"files:{other}"')
    ledger.write_text(ledger.read_text().replace(f'"{began}"', f'"../../../{run.name}"'))
    with pytest.raises(UserError, match=f"new data of {first.name}, .* are not what they were"):
        finished_run(moved)
    now(f'"files:{newer}"', f'"files:{tmp_path}/gone"')
    ledger.write_text(ledger.read_text().replace(f'"{began}"', f'"../../../{run.name}"'))
    with pytest.raises(UserError, match=f"new data of {first.name}, .* no .*gone"):
        finished_run(moved)


@pytest.mark.long
def test_a_teacher_that_knows_users_speaks_of_those_who_come_again(newer, newest, tmp_path):
    run = finished_shop(tmp_path, teacher="bpr_mf-8")
    lists = ("--objective", "full_softmax + relaxed_ranking(top=4, drawn=2, sampled=3)")
    with pytest.raises(UserError, match="teachers of two moments do not share"):
        update(run, "--data", newer, "--output", tmp_path / "o", *lists)
    update(run, "--data", newer, "--output", tmp_path / "o")
    again = ("--data", newest, "--output", tmp_path / "again", "--teacher-too")
    update(came_out(tmp_path / "o"), *again)
    at = report_of(tmp_path / "again")["metrics"]
    assert at["teacher/new_ndcg@10/after"] != at["teacher/new_ndcg@10/before"]


@pytest.mark.long
def test_steps_are_chosen_among_sampled_items_as_the_run_chose_them(newer, tmp_path):
    training = dataclasses.replace(FIT, select="sampled_ndcg@10")
    run = finished_shop(tmp_path, training=training, among=5)
    update(run, "--data", newer, "--output", tmp_path / "o", "--teacher-too")
    assert (came_out(tmp_path / "o") / "model").is_dir()


def test_drift_by_hand():
    assert apart(np.array([0, 0, 1, 1]), np.array([0, 1])) == 0
    assert apart(np.array([0, 0]), np.array([2, 2])) == 1
    assert apart(np.array([0, 1]), np.array([0, 0, 0, 1])) == pytest.approx(0.25)


def test_what_cannot_be_brought_up_to_date_is_named(run, whole, newer, tmp_path):
    def refused(match, *arguments, at=run):
        with pytest.raises(UserError, match=match):
            update(at, "--data", newer, "--output", tmp_path / "o", *arguments)

    refused("give --epochs, and no --steps", "--steps", 5)
    refused("give --epochs", "--epochs", 0.5)
    refused("of interactions --columns", "--label", "x")
    refused("share to rehearse must be from 0", "--rehearse", -1)
    refused("must not be negative", "--rate", -1)
    refused("unknown interactions 'nowhere'", "--data", "nowhere")
    rows = {row.row: row for row in Ledger(whole[0] / "ledger.jsonl").rows()}
    teacher = run.parent / rows["teacher"].hash
    refused("is of a teacher, not of a student", at=teacher)
    assert not (tmp_path / "o").exists()
    table = (run.parents[1] / "table.json").read_text()
    refused("holds the table of 'walks': name another folder", "--output", run.parents[1])
    assert (run.parents[1] / "table.json").read_text() == table


def test_data_that_changed_are_refused(tmp_path, run, newer):
    moved = shutil.copytree(run.parents[2], tmp_path / "moved")
    ledger = moved / "table/ledger.jsonl"
    ledger.write_text(ledger.read_text().replace(str(run.parents[2]), str(moved)))
    with open(moved / "shop/interactions.csv", "a", newline="") as file:
        csv.writer(file).writerow(("u1", "i20", 10**8))
    with pytest.raises(UserError, match="are not what they were"):
        update(moved / "table/runs" / run.name, "--data", newer, "--output", tmp_path / "o")


@pytest.mark.long
@pytest.mark.parametrize("which", ["once", "again"])
def test_one_that_is_stopped_goes_on_to_the_same_bits(which, request, tmp_path, capsys):
    of = {"once": ("run", "newer", "whole"), "again": ("whole", "newest", "again")}[which]
    start, data, (done, _) = map(request.getfixturevalue, of)
    start = came_out(start[0]) if which == "again" else start
    with stopped_at(3):
        update(start, "--data", data, "--output", tmp_path)
    assert not (tmp_path / "update.md").exists()
    update(start, "--data", data, "--output", tmp_path)
    assert "goes on from step" in capsys.readouterr().out
    models = [came_out(folder) / "model" for folder in (done, tmp_path)]
    weights = [(model / "model.safetensors").read_bytes() for model in models]
    assert weights[0] == weights[1]


@pytest.mark.long
def test_a_third_time_after_the_teacher_went_on(run, newer, newest, tmp_path, monkeypatch):
    """Of each moment its own teacher is heard; those that are gone are trained again, alike."""
    monkeypatch.setenv("DISTILL_JAX_HOME", str(tmp_path / "home"))
    update(run, "--data", newer, "--output", tmp_path / "a", "--teacher-too")
    update(came_out(tmp_path / "a"), "--data", newest, "--output", tmp_path / "b", "--rehearse", 5)
    at = report_of(tmp_path / "b")["metrics"]
    first = report_of(tmp_path / "a")["metrics"]
    assert at["teacher/new_ndcg@10/after"] == at["teacher/new_ndcg@10/before"] > 0
    last = write_shop(
        tmp_path / "last", next_month(users=range(40), before=[*next_month(), *third_month()])
    )
    third = ("--data", last, "--teacher-too")
    update(came_out(tmp_path / "b"), *third, "--output", tmp_path / "c")
    found = report_of(tmp_path / "c")
    tested = at["old/tested"] + at["new/tested"]
    assert found["metrics"]["old/tested"] == tested > first["old/tested"]
    shutil.rmtree(tmp_path / "home/recommenders")
    update(came_out(tmp_path / "b"), *third, "--output", tmp_path / "d")
    again = report_of(tmp_path / "d")
    assert sum("it was trained again" in note for note in again["notes"]) == 2
    assert Path(found["folder"]).name == Path(again["folder"]).name
    assert found["metrics"] == again["metrics"]


@pytest.mark.long
def test_the_teacher_goes_on_too_and_a_lost_cache_is_told(run, newer, tmp_path, capsys):
    moved = shutil.copytree(run.parents[1], tmp_path / "table")
    shutil.rmtree(moved / "runs/teacher_outputs")
    arguments = ("--data", newer, "--output", tmp_path / "o", "--teacher-too", "--rehearse", 0.5)
    update(moved / "runs" / run.name, *arguments)
    at = report_of(tmp_path / "o")
    assert at["metrics"]["teacher/new_ndcg@10/after"] > at["metrics"]["teacher/new_ndcg@10/before"]
    assert any("it was asked again" in note for note in at["notes"])
    assert "the teacher went on learning" in at["notes"][0]


OTHERS = "who,what,moment,did"


def kinds_of_months(folder):
    """Two months of clicks, carts and purchases, and a table of all items' fields."""
    first = events(num_users=40, num_items=24)
    second = [
        (user, item.replace("i3", "n3"), 1000 + time, kind)
        for user, item, time, kind in events(num_users=30, num_items=27, rounds=2, seed=1)
    ]
    items = sorted({item for _, item, *_ in (*first, *second)})
    rows = [f"{item},{n * 1.5},{'abc'[n % 3]}" for n, item in enumerate(items)]
    (folder / "features.csv").write_text("item,price,brand\n" + "\n".join(rows) + "\n")
    return write_events(folder / "first", first), write_events(folder / "second", second, OTHERS)


@pytest.mark.long
def test_kinds_of_feedback_and_fields_of_items_go_on(tmp_path):
    first, second = kinds_of_months(tmp_path)
    fields = str(tmp_path / "features.csv")
    data = RecData(first, kinds="buy,cart,click", item_features=fields, asked=20, k_core=2)
    run = finished_shop(
        tmp_path, student="sasrec-1x4-id+features", teacher="sasrec-1x8-id+features", data=data
    )
    names = "user=who,item=what,time=moment,kind=did"
    update(run, "--data", second, "--output", tmp_path / "o", "--columns", names)
    found = report_of(tmp_path / "o")
    own = {row.hash: row for row in Ledger(run.parents[1] / "ledger.jsonl").rows()}[run.name]
    at = found["metrics"]
    assert at["old/tested"] == 20
    assert at["before/old_ndcg@10"] == pytest.approx(own.metrics["test/ndcg@10"], rel=1e-5)
    opened = open_recommender(came_out(tmp_path / "o"))
    assert "n3" in opened.catalogue.names and opened.audience.kinds == KINDS
    assert opened.recommend(["click:n3", "cart:n3"], 3) != opened.recommend(["n3"], 3)
    told = "\n".join(found["notes"])
    assert "the run's --k-core 2 is not applied to new interactions" in told
    assert "the run's --asked 20 holds for its own test alone" in told
    third = write_events(
        tmp_path / "third",
        [(u, i, 9000 + t, k) for u, i, t, k in events(num_users=35, num_items=27, seed=2)],
        OTHERS,
    )  # the columns are those named last
    update(came_out(tmp_path / "o"), "--data", third, "--output", tmp_path / "again")
    last = report_of(tmp_path / "again")["metrics"]
    assert last["old/tested"] == at["old/tested"] + at["new/tested"]


@pytest.mark.long
@pytest.mark.parametrize("student", ["bpr_mf-4", "gru4rec-1x4"])
def test_labels_alone_without_a_teacher(student, newer, newest, tmp_path):
    run = finished_shop(tmp_path, student=student, objective="full_softmax", teacher=False)
    with pytest.raises(UserError, match="has no teacher that could go on"):
        update(run, "--data", newer, "--output", tmp_path / "o", "--teacher-too")
    update(run, "--data", newer, "--output", tmp_path / "o", "--epochs", 3, "--rate", 0.02)
    at = report_of(tmp_path / "o")
    assert at["metrics"]["steps"] > 0 and "teacher/old_ndcg@10/after" not in at["metrics"]
    saved = load_recommender(run.__class__(at["folder"]) / "model")
    if student.startswith("bpr"):
        assert saved.params["user_embedding"].shape[0] == 46
    update(came_out(tmp_path / "o"), "--data", newest, "--output", tmp_path / "again")
    saved = load_recommender(came_out(tmp_path / "again") / "model")
    if student.startswith("bpr"):
        assert saved.params["user_embedding"].shape[0] == 49
    with pytest.raises(UserError, match="has no teacher that could go on"):
        update(came_out(tmp_path / "o"), "--data", newest, "--teacher-too")


@pytest.mark.long
def test_a_teacher_who_was_not_heard_is_heard_the_next_time(run, newer, newest, tmp_path):
    update(run, "--data", newer, "--output", tmp_path / "a", "--objective", "full_softmax")
    assert "teacher/old_ndcg@10/after" not in report_of(tmp_path / "a")["metrics"]
    arguments = ("--data", newest, "--output", tmp_path / "b")
    update(came_out(tmp_path / "a"), *arguments, "--objective", KL)
    at = report_of(tmp_path / "b")
    assert at["metrics"]["teacher/old_ndcg@10/after"] > 0
    assert any(f"{tmp_path}/a/runs/teacher_outputs has no cache" in note for note in at["notes"])
