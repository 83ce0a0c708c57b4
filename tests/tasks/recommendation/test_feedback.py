"""Feedback of several kinds, from a shop's file to a table, and from its run to lists."""

import csv
import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest
from feedbacks import KINDS, events, with_dwell, write_shop
from rich.console import Console
from scripts import ROOT, module_at

from distill_jax.cli.main import dispatch
from distill_jax.core.errors import UserError
from distill_jax.data.interactions import histories_of
from distill_jax.engine.progress import Reporter
from distill_jax.engine.run import run_table
from distill_jax.evaluation.open_recommender import Neural, open_recommender
from distill_jax.evaluation.recommend import evaluate
from distill_jax.export.vectors import export_vectors
from distill_jax.tasks.recommendation.runs import scorer_of
from distill_jax.tasks.recommendation.table import Recommendation

SCRIPT = module_at(ROOT / "experiments/recommendation.py")
WEIGHTS = "buy=1,cart=0.5,click=0.1"


def table_of(data, kinds, **flags):
    """The experiment's own table, as small as it can be."""
    tiny = SCRIPT.Recommendation(
        preset="smoke",
        data=data,
        kinds=kinds,
        teacher="sasrec-1x8-id+features+privileged",
        item_features=f"{data.removeprefix('files:')}/features.csv",
        privileged="dwell",
        students=("sasrec-1x4",),
        rows=("kl",),
        seeds=(0,),
        epochs=1,
        teacher_epochs=1,
        max_length=6,
        references="popularity",
    )
    return SCRIPT.table(dataclasses.replace(tiny, **flags))[0]


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shop")
    rows = [f"i{n},{n * 1.5},{'abc'[n % 3]}" for n in range(100)]
    (folder / "features.csv").write_text("item,price,brand\n" + "\n".join(rows) + "\n")
    header = "user_id,product_id,event_time,event_type,dwell"
    return write_shop(folder, with_dwell(events(num_users=50, num_items=106)), header)


@pytest.fixture(scope="module")
def finished(shop, tmp_path_factory):
    """The folder of a table, its task and its rows by name."""
    folder = tmp_path_factory.mktemp("feedback")
    task = Recommendation(table_of(shop, WEIGHTS))
    spec, rows = run_table(task, folder, Reporter(Console(quiet=True)))
    return folder, task, spec, {row.row: row for row in rows}


def test_what_is_recommended_stands_under_the_table(finished):
    _, _, spec, rows = finished
    assert set(rows) == {"teacher", "popularity", "kl"}
    told = "\n".join(spec.protocol)
    assert "Weights of the kinds of feedback in training: buy 1, cart 0.5, click 0.1." in told
    assert "the last item of the kind 'buy'" in told
    assert "those of the user's own history as 'buy' left out" in told


def test_bought_items_are_left_out_and_clicked_ones_compete(finished):
    _, task, _, _ = finished
    split, data = task.split, task.split.data
    report = evaluate(lambda asked: np.zeros((len(asked), data.num_items), np.float32), split)
    for row, end in enumerate(split.test.ends_E):
        start = data.offsets_U1[split.test.users_E[row]]
        bought = set(data.items_N[start:end][data.kinds_N[start:end] == 0])
        target = int(data.items_N[end])  # of equal scores all that compete stand before it
        assert report.ranked.ranks_E[row] == data.num_items - len(bought - {target})
        before = set(data.items_N[start:end])
        assert report.slices["touched"][row] == (target in before)
    assert "as 'buy' left out" in report.protocol
    touched, untouched = (report.metrics[f"cases/{name}"] for name in ("touched", "untouched"))
    assert touched + untouched == len(split.test) and min(touched, untouched) > 0


def test_popularity_counts_purchases(finished):
    folder, task, _, rows = finished
    counts = task.split.target_counts_I
    opened = open_recommender(folder / "runs" / rows["popularity"].hash)
    found = opened.recommend("click:i3", 3)
    assert found[0].score == counts.max()
    assert opened.audience.kinds == KINDS and opened.audience.counts_I.tolist() == counts.tolist()


def test_weights_are_of_the_cell_and_kinds_of_the_data(finished, shop):
    _, task, _, rows = finished
    hashes = {rows["kl"].hash}
    for kinds in ("buy,cart,click", "buy=1,cart=0.5,click=0.2", "cart=1,buy=0.5,click=0.1", "buy"):
        other = Recommendation(table_of(shop, kinds))
        entries = other.sweep.entries()
        other.prepare(task.engine, entries)
        (run,) = map(other.run, entries)
        hashes.add(run.hash)
        weights = run.cell.training.kind_weights
        assert run.together.get("kind_weights", ()) == weights
        assert other.setup.teacher.training.kind_weights == weights
        assert other.build(run.cell.setup.model).config.kinds == other.split.data.kind_names
    assert len(hashes) == 5


def test_weights_of_other_kinds_are_refused():
    with pytest.raises(UserError, match="2 weights of kinds for data with buy, cart, click"):
        table = table_of("files:nowhere", "buy=1,click=0.1")
        table.base.training.check_kinds(KINDS)
    with pytest.raises(UserError, match="the first kind is recommended"):
        table_of("files:nowhere", "buy=0,click=1")


def test_lists_of_a_run_are_its_tables(finished, shop, tmp_path, capsys):
    """By name from interactions, by history with kinds, from Python: the same; then as vectors."""
    folder, task, _, rows = finished
    run = folder / "runs" / rows["kl"].hash
    data = task.split.data
    opened = open_recommender(run)
    user = int(task.split.test.users_E[0])
    start, stop = data.offsets_U1[user : user + 2]
    items, kinds = data.items_N[start:stop], data.kinds_N[start:stop]
    history = histories_of([items.tolist()], data.num_items, kinds=[kinds.tolist()])
    scores = np.array(opened.model.scorer(history)[0])
    scores[items[kinds == 0]] = -np.inf
    expected = [data.item_names[item] for item in np.argsort(-scores, kind="stable")[:5]]
    words = [
        f"{data.kind_names[kind]}:{data.item_names[item]}"
        for item, kind in zip(items, kinds, strict=True)
    ]
    assert [each.name for each in opened.recommend(words, 5)] == expected
    place = Path(shop.removeprefix("files:"))
    asked = ["recommend", "--model", str(run), "-k", "5"]
    dispatch([*asked, "--history", "; ".join(words)])
    assert [line.split("\t")[2] for line in capsys.readouterr().out.splitlines()] == expected
    dispatch([*asked, "--interactions", str(place), "--output", str(tmp_path / "lists.csv")])
    with (tmp_path / "lists.csv").open(newline="") as file:
        lists = [
            row["item"] for row in csv.DictReader(file) if row["user"] == data.user_names[user]
        ]
    assert lists == expected
    people = tmp_path / "people.csv"
    people.write_text(f"user,history\nx,{'; '.join(words)}\n")
    dispatch([*asked, "--users", str(people), "--output", str(tmp_path / "one.csv")])
    with (tmp_path / "one.csv").open(newline="") as file:
        assert [row["item"] for row in csv.DictReader(file)] == expected
    manifest = export_vectors(run, tmp_path / "vectors")
    assert "kinds" in manifest.retrieval["programs"]["query"]["inputs"]
    assert manifest.parity["worst_difference"] < 1e-5
    (code,) = re.findall(r"```python\n(.*?)```", (tmp_path / "vectors/README.md").read_text(), re.S)
    loaded: dict = {}
    exec(code.replace("FOLDER", str(tmp_path / "vectors")), loaded)
    pairs = [tuple(word.split(":")) for word in words]
    assert [row[0] for row in loaded["recommend"](pairs, 5)] == expected
    audience = run / "model" / "audience.json"
    body = json.loads(audience.read_text())
    audience.write_text(json.dumps({**body, "kinds": ["cart", "buy", "click"]}))
    with pytest.raises(UserError, match="its kinds of feedback are not the model's"):
        open_recommender(run)
    audience.write_text(json.dumps({**body, "kinds": ["buy"]}))
    with pytest.raises(UserError, match="damaged"):
        open_recommender(run)
    audience.write_text(json.dumps(body))


def test_a_teacher_reads_fields_that_its_student_does_not(finished, shop):
    """Whose content is of its cell, not the name of their table."""
    folder, task, _, rows = finished
    model = task.taught.recommender
    with pytest.raises(UserError, match="reads fields of every item from a file"):
        Neural(scorer_of(model), task.taught.params, folder).with_new(("Up",))
    assert model.config.items.fields == (11, 4) and model.texts.fields_IC.shape[1] == 2
    assert rows["teacher"].config["model"]["features"] == task.catalogue.fields.digest
    assert rows["kl"].config["model"]["features"] == ""
    student = task.build(task.sweep.entries()[0].cell.setup.model)
    assert student.texts is None and student.config.items.only_own
    lost = Recommendation(table_of(shop, WEIGHTS, item_features=None))
    with pytest.raises(UserError, match="--item-features FILE"):
        lost.prepare(task.engine, lost.sweep.entries())


def test_a_teacher_of_privileged_fields_is_asked_by_its_students_alone(finished, shop):
    folder, task, spec, rows = finished
    assert task.taught.recommender.config.event_fields == (11,)
    assert task.build(task.sweep.entries()[0].cell.setup.model).config.event_fields == ()
    told = "\n".join(spec.protocol)
    assert (
        "sasrec-1x8-id+features+privileged reads privileged fields of every event: dwell." in told
    )
    with pytest.raises(UserError, match="it is a teacher; ask one of its students"):
        open_recommender(folder / "runs" / rows["teacher"].hash)
    lost = Recommendation(table_of(shop, WEIGHTS, privileged=None))
    with pytest.raises(UserError, match="name their columns \\(--privileged\\)"):
        lost.prepare(task.engine, lost.sweep.entries())
