"""Yardsticks as rows of the ledger and of the table, from end to end in small."""

import csv
import dataclasses
import io
from functools import partial

import jax
import numpy as np
import pytest
from rich.console import Console
from sklearn.dummy import DummyClassifier

from distill_jax.cli import ledger as ledger_command
from distill_jax.cli.compare import parse_arguments, sweep_of
from distill_jax.core.errors import UserError
from distill_jax.core.mesh import make_mesh
from distill_jax.data.table import TextTable
from distill_jax.engine.engine import Engine
from distill_jax.engine.merge import merge_ledgers
from distill_jax.engine.options import RunOptions
from distill_jax.engine.progress import Reporter
from distill_jax.engine.run import run_table
from distill_jax.evaluation.yardsticks import Regression
from distill_jax.tables.build import table_of
from distill_jax.tables.csv import to_csv
from distill_jax.tables.evidence import unpack_correct
from distill_jax.tables.markdown import to_markdown
from distill_jax.tables.outputs import load_results, write_outputs
from distill_jax.tables.spec import TableSpec
from distill_jax.tasks.classification import yardsticks as module
from distill_jax.tasks.classification.cells import DataConfig
from distill_jax.tasks.classification.splits import load_texts, prepare_images
from distill_jax.tasks.classification.table import Classification
from distill_jax.tasks.classification.yardsticks import Placed, Yardstick

ONE_DEVICE = partial(Engine, mesh=make_mesh(jax.devices()[:1]))
ROWS = ["majority", "tfidf+logreg"]


@pytest.fixture
def world(small_table):
    """(changes) -> arguments of a small table, see ``small_table``."""
    return partial(small_table, steps=2, evaluations=1, yardsticks=True)


def run(args, folder, **options):
    out = io.StringIO()
    reporter = Reporter(Console(file=out, width=200))
    spec, rows = run_table(
        Classification(sweep_of(args)),
        folder,
        reporter,
        track="none",
        options=RunOptions(**options),
    )
    return spec, rows, out.getvalue()


@pytest.mark.long
def test_they_are_measured_on_the_students_own_labels_and_stand_beside_the_teacher(
    world, tmp_path, toy_reviews
):
    folder = tmp_path / "table"
    spec, rows, said = run(world(), folder)
    assert [(p.row, p.group, p.seed) for p in spec.yardsticks] == [
        (name, "yardstick", 0) for name in ROWS
    ]
    assert "yardstick majority: test accuracy" in said
    table = table_of(spec, rows)
    assert [row.row for row in table.yardsticks] == ROWS
    assert [row.row for row in table.rows][:3] == ["teacher", *ROWS]
    assert [row.row for row in table.students] == ["ce", "kl"]

    data = load_texts(DataConfig(f"files:{toy_reviews}"))
    train, test = data.splits["train"], data.splits["test"]
    by_row = {row.row: row for row in rows}
    assert by_row["tfidf+logreg"].metrics["train/labelled"] == len(train) // 2
    assert by_row["tfidf+logreg"].metrics["test/accuracy"] > 0.9  # a word tells the class
    dummy = DummyClassifier(strategy="most_frequent").fit(train.texts, train.labels_N)
    right_N = unpack_correct(by_row["majority"].test_correct)
    assert right_N.mean() == by_row["majority"].metrics["test/accuracy"]
    np.testing.assert_array_equal(right_N, dummy.predict(test.texts) == test.labels_N)
    assert by_row["majority"].metrics["test/classes_predicted"] == 1
    for row in rows:
        assert 1 <= row.metrics["test/classes_predicted"] <= 2
        assert {"test/macro_f1", "test/ece_calibrated", "validation/accuracy"} <= set(row.metrics)

    lines = list(csv.DictReader(io.StringIO(to_csv(table))))
    roles = {line["row"]: line["role"] for line in lines}
    assert roles["majority"] == roles["tfidf+logreg"] == "yardstick"
    assert all(not line["against"] for line in lines if line["role"] == "yardstick")
    write_outputs(table_of(spec, rows), folder)
    for name in ("table.md", "table.tex", "report.html"):
        assert "tfidf+logreg" in (folder / name).read_text(encoding="utf-8"), name
    assert "tfidf+logreg" in (folder / "figure.svg").read_text(encoding="utf-8")
    assert to_markdown(table_of(*load_results(folder))) == to_markdown(table)
    (folder / "table.json").unlink()  # the ledger alone knows which rows they are
    alone = table_of(*load_results(folder))
    assert [row.row for row in alone.yardsticks] == ROWS and "yardstick" not in alone.groups


def test_they_are_fitted_once_and_the_ledger_lists_them(world, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "table"
    spec, rows, _ = run(world(seeds=(0,)), folder)
    monkeypatch.setattr(module, "_measured", None)  # whoever calls it fails
    again, same, said = run(world(seeds=(0,)), folder)
    assert again == spec and len(same) == len(rows)
    assert "yardstick tfidf+logreg: test accuracy" in said
    ledger_command.list_rows([str(folder), "--student", "yardstick"])
    assert "2 rows" in capsys.readouterr().out


def test_one_part_has_each_row_and_all_parts_have_the_same_table(world, tmp_path):
    folder = tmp_path / "parts"
    args = world(seeds=(0,))
    for part in ("1/2", "2/2"):
        run(args, folder, part=part)
    own = {p.hash for p in load_spec(folder).yardsticks}
    held = [line for path in folder.glob("ledger-*") for line in path.read_text().splitlines()]
    assert sum(any(hash_ in line for line in held) for hash_ in own) == 2
    merge_ledgers([folder], folder)
    spec, rows = load_results(folder)
    assert len(held) == len(rows) == len(spec.hashes) == 5
    assert table_of(spec, rows).unfinished == (0, 5)


def load_spec(folder):
    return TableSpec.from_json((folder / "table.json").read_text(encoding="utf-8"))


def test_draws_of_the_labels_are_replicates(world, tmp_path):
    spec, rows, said = run(world(label_seeds=(0, 3), objectives=("ce",)), tmp_path / "table")
    assert [(p.row, p.seed) for p in spec.yardsticks] == [
        (name, seed) for name in ROWS for seed in (0, 1)
    ]
    assert "yardstick tfidf+logreg (labels 3): test accuracy" in said
    regression = table_of(spec, rows).yardsticks[1]
    assert len({run.hash for run in regression.runs.values()}) == 2


def test_without_them_nothing_of_a_table_tells_of_them(world):
    assert parse_arguments(["--no-yardsticks"], "test").yardsticks is False
    assert parse_arguments([], "test").yardsticks is True
    sweep = sweep_of(world(yardsticks=False))
    assert not sweep.references and "yardstick" not in sweep.spec(()).to_json()


def test_what_the_data_are_called_is_not_part_of_the_hash_but_labels_and_recipe_are():
    one = Yardstick("majority", DataConfig(), "digest")
    changes = (
        {"student": "tfidf+logreg"},
        {"data_digest": "other"},
        {"select": "loss"},
        {"recipe": Regression()},
        {"recipe": Regression(revision=2)},
    )
    hashes = [one.hash, *(dataclasses.replace(one, **change).hash for change in changes)]
    assert len(set(hashes)) == len(hashes)
    assert dataclasses.replace(one, data=DataConfig("digits")).hash == one.hash


def digits_row(recipe=None, **changes):
    task = prepare_images(DataConfig("digits", **changes))
    yardstick = Yardstick(
        "pixels+logreg", task.config, task.labels_digest, recipe=recipe or Regression()
    )
    return task, module._measured(Placed(yardstick, None, task), "test", None, lambda: None)


def test_digits_are_told_apart_by_their_pixels():
    _, row = digits_row(label_fraction=0.5)
    assert row.metrics["test/accuracy"] > 0.9 and row.metrics["test/classes_predicted"] == 10
    assert row.config["chosen"] in Regression().candidates


def test_wrong_labels_are_learnt_as_students_learn_them():
    clean, noisy = (digits_row(label_fraction=0.2, label_noise=noise)[1] for noise in (0.0, 0.6))
    assert noisy.hash != clean.hash
    assert noisy.metrics["test/accuracy"] < clean.metrics["test/accuracy"] - 0.1


def test_more_labels_than_the_limit_are_thinned_and_it_is_counted():
    task, row = digits_row(Regression(most_examples=100), label_fraction=1.0)
    assert row.metrics["train/labelled"] == len(task.labelled)
    assert 80 <= row.metrics["train/examples"] <= 120  # a share of every class
    assert row.metrics["test/classes_predicted"] == 10


def test_the_penalty_is_chosen_by_what_selects():
    """With few labels the surest answers are the likeliest ones, and not the most often right."""
    task = prepare_images(DataConfig("digits", label_fraction=0.05))
    every = Regression().candidates

    def measured(select, candidates=every):
        recipe = Regression(candidates=candidates)
        yardstick = Yardstick("pixels+logreg", task.config, task.labels_digest, select, recipe)
        return module._measured(Placed(yardstick, None, task), "test", None, lambda: None)

    alone = {c: measured("accuracy", (c,)).metrics for c in every}
    by_loss = min(alone, key=lambda c: alone[c]["validation/nll"])
    by_accuracy = max(alone, key=lambda c: alone[c]["validation/accuracy"])
    by_f1 = max(alone, key=lambda c: alone[c]["validation/macro_f1"])
    for select, c in (("loss", by_loss), ("accuracy", by_accuracy), ("macro_f1", by_f1)):
        row = measured(select)
        assert row.config["chosen"] == c
        assert row.metrics["test/accuracy"] == alone[c]["test/accuracy"]
    assert by_loss != by_accuracy


def test_texts_come_in_the_order_of_the_examples_and_a_pair_has_two():
    one = TextTable(ids=("a", "b", "c"), texts=("A", "B", "C"))
    assert module._columns(one, ("c", "a")) == [["C", "A"]]
    pairs = dataclasses.replace(one, texts_b=("x", "y", "z"))
    assert module._columns(pairs, ("c", "a")) == [["C", "A"], ["z", "x"]]
    with pytest.raises(UserError, match="changed while they were in use: no example 'd'"):
        module._columns(pairs, ("d",))
