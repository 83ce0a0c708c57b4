"""A file teaches: as the model that wrote it would, with gaps, by text, or not at all."""

import csv
import dataclasses
import io
import json

import numpy as np
import pytest
from rich.console import Console
from trained import knowing_head, saved

from distill_jax.cli.compare import sweep_of
from distill_jax.cli.main import dispatch
from distill_jax.core.errors import UserError
from distill_jax.engine.progress import Reporter
from distill_jax.engine.run import run_table
from distill_jax.evaluation.open_classifier import open_classifier
from distill_jax.tables.build import table_of
from distill_jax.tables.markdown import to_markdown
from distill_jax.tables.outputs import write_outputs
from distill_jax.tasks.classification.table import Classification

SPLITS = {"train": "train", "dev": "validation", "test": "test"}


@pytest.fixture(scope="module")
def model(toy_teacher, toy_reviews, tmp_path_factory):
    """A folder of a teacher that knows the toy reviews."""
    folder = tmp_path_factory.mktemp("knowing") / "teacher"
    return saved(folder, knowing_head(toy_teacher, toy_reviews), ("neg", "pos"))


@pytest.fixture(scope="module")
def examples(toy_reviews):
    """id -> text, of all splits."""
    found = {}
    for split in SPLITS:
        with open(toy_reviews / f"{split}.csv", encoding="utf-8") as file:
            found |= {row["id"]: row["sentence"] for row in csv.DictReader(file)}
    return found


@pytest.fixture(scope="module")
def answers(model, examples):
    """id -> the model's probabilities by class."""
    said = open_classifier(model, max_length=16, temperature=1.0).classify(list(examples.values()))
    return {key: answer.probabilities for key, answer in zip(examples, said, strict=True)}


@pytest.fixture
def table(small_table, toy_teacher):
    """(file, changes) -> arguments of a table that hears it."""

    def arguments(file, **changes):
        given = {"objectives": ("ce", "kl"), "seeds": (0,), **changes}
        return small_table(teacher=(f"file:{file}",), tokenizer=str(toy_teacher), **given)

    return arguments


def run(args, folder, strategy="sequential"):
    out = io.StringIO()
    reporter = Reporter(Console(file=out, width=400))
    spec, rows = run_table(
        Classification(sweep_of(args)), folder, reporter, strategy=strategy, options=args.options
    )
    return spec, rows, out.getvalue()


def kept(folder, row):
    with np.load(folder / "runs" / row.hash / "test_logits.npz") as file:
        return file["logits_NC"]


def write(path, answers, fields=("neg", "pos")):
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", *fields])
        writer.writerows([key, *(said[name] for name in fields)] for key, said in answers.items())
    return path


def test_it_teaches_as_the_model_that_wrote_it(
    table, answers, model, small_table, toy_teacher, tmp_path
):
    """Trap 23: the file has its classes in another order than the data."""
    file = write(tmp_path / "said.csv", answers, ("pos", "neg"))
    spec, rows, said = run(table(file), tmp_path / "file")
    (teacher,) = [row for row in rows if row.row == "teacher"]
    (kl,) = [row for row in rows if row.row == "kl"]
    assert "said.csv: probabilities by id, of 60 of 60 training, 24 of 24 validation" in said
    assert teacher.metrics["test/accuracy"] > 0.9 and "parameters" not in teacher.metrics
    assert 0 <= kl.metrics["test/fidelity"] <= 1
    assert [(place.row, place.group) for place in spec.teachers] == [("teacher", "said.csv")]
    assert teacher.fingerprints["teacher"] == kl.fingerprints["teacher"]

    live = small_table(teacher=(model,), fine_tune=False, objectives=("ce", "kl"), seeds=(0,))
    _, others, _ = run(live, tmp_path / "model")
    (told,) = [row for row in others if row.row == "kl"]
    (alone,) = [row for row in others if row.row == "ce"]
    assert np.abs(kept(tmp_path / "file", kl) - kept(tmp_path / "model", told)).max() < 1e-4
    assert np.abs(kept(tmp_path / "model", alone) - kept(tmp_path / "model", told)).max() > 1e-4

    text = to_markdown(table_of(spec, rows))
    (line,) = [line for line in text.splitlines() if line.startswith("| said.csv")]
    assert line.count("–") >= 3  # no parameters, no latency
    write_outputs(table_of(spec, rows), tmp_path / "file")  # every page can do without them


def test_another_word_is_another_run(table, answers, tmp_path):
    file = write(tmp_path / "said.csv", answers)
    args = table(file, objectives=("kl",))
    run(args, tmp_path / "out")
    _, _, said = run(args, tmp_path / "out")
    assert "1 of 1 runs are finished already" in said
    shuffled = dict(reversed(answers.items()))
    _, _, said = run(table(write(file, shuffled), objectives=("kl",)), tmp_path / "out")
    assert "1 of 1 runs are finished already" in said  # their order does not matter
    first = next(iter(answers))
    write(file, {**answers, first: {"neg": 0.5, "pos": 0.5}})
    with pytest.raises(UserError, match=r"another run at kl.*teacher_digest"):
        run(args, tmp_path / "out")


def test_by_text_and_in_part(table, answers, examples, tmp_path):
    """JSONL without ids, of every other example; the rest is not listened to."""
    chosen = list(answers)[::2]
    lines = [
        json.dumps({"sentence": examples[key], "probabilities": answers[key]}) for key in chosen
    ]
    file = tmp_path / "said.jsonl"
    file.write_text("\n".join(lines), encoding="utf-8")
    args = table(file, objectives=("ce", "kl", "pseudo_ce"))
    spec, rows, said = run(args, tmp_path / "text")
    assert "by text, of 30 of 60 training, 12 of 24 validation, 15 of 30 test examples" in said
    assert "says nothing of 30 training examples: nobody listens there" in said
    by_row = {row.row: row for row in rows}
    assert "test/accuracy" not in by_row["teacher"].metrics
    assert by_row["teacher"].test_correct is None
    assert not (tmp_path / "text/runs" / by_row["teacher"].hash / "test_logits.npz").exists()
    assert "test/fidelity" not in by_row["kl"].metrics
    line = next(x for x in to_markdown(table_of(spec, rows)).splitlines() if "said.jsonl" in x)
    assert "nan" not in line and line.count("–") >= 5

    by_id = write(tmp_path / "said.csv", {key: answers[key] for key in chosen})
    _, others, _ = run(dataclasses.replace(args, teacher=(f"file:{by_id}",)), tmp_path / "ids")
    (kl,) = [row for row in others if row.row == "kl"]
    np.testing.assert_allclose(
        kept(tmp_path / "text", by_row["kl"]), kept(tmp_path / "ids", kl), atol=1e-5
    )
    write_outputs(table_of(spec, rows), tmp_path / "text")


def test_a_population_hears_the_same_gaps(table, answers, tmp_path):
    half = {key: said for n, (key, said) in enumerate(answers.items()) if n % 3}
    file = write(tmp_path / "said.csv", half)
    tables = [
        run(table(file, seeds=(0, 1)), tmp_path / way, way)[1] for way in ("sequential", "vmap")
    ]
    by_hash = [
        {row.hash: row.metrics["test/nll"] for row in rows if row.row != "teacher"}
        for rows in tables
    ]
    assert by_hash[0] == pytest.approx(by_hash[1], rel=1e-3) and len(by_hash[0]) == 4


def test_too_many_gaps_are_refused(table, answers, tmp_path):
    few = dict(list(answers.items())[:20])
    file = write(tmp_path / "said.csv", few)
    message = r"says nothing of 66.7% of the training examples, 'train-20' for one; --teacher-gaps"
    with pytest.raises(UserError, match=message):
        run(table(file), tmp_path / "out")
    _, rows, _ = run(table(file, teacher_gaps=0.7), tmp_path / "out")
    assert {row.row for row in rows} == {"teacher", "ce", "kl"}


def test_the_likeliest_class_alone(table, answers, tmp_path):
    rows = [["id", "label_1", "probability_1"]]
    for key, said in answers.items():
        best = max(said, key=said.get)
        rows.append([key, best.upper(), said[best]])
    file = tmp_path / "top.csv"
    file.write_text("\n".join(",".join(map(str, row)) for row in rows), encoding="utf-8")
    _, spread, said = run(table(file, objectives=("kl",)), tmp_path / "spread")
    told = "names up to 1 of 2 classes a row; the rest of the probability is "
    assert told + "spread evenly over the classes it does not name" in said
    whole = write(tmp_path / "whole.csv", answers)
    _, known, _ = run(table(whole, objectives=("kl",)), tmp_path / "whole")
    tables = {"spread": spread, "whole": known}
    near = [kept(tmp_path / name, rows[-1]) for name, rows in tables.items()]
    np.testing.assert_allclose(*near, atol=1e-5)  # of two classes the other has all that is left
    drop = table(file, objectives=("kl",), teacher_tail="drop")
    _, dropped, said = run(drop, tmp_path / "drop")
    assert told + "dropped" in said
    assert np.abs(kept(tmp_path / "drop", dropped[-1]) - near[0]).max() > 4e-5


def test_objectives_that_look_inside_are_refused_by_name(table, answers, tmp_path):
    file = write(tmp_path / "said.csv", answers)
    with pytest.raises(UserError, match=r"hidden_mse: it reads what is inside a model, and file:"):
        run(table(file, objectives=("hidden_mse + kl",)), tmp_path / "out")
    _, rows, _ = run(
        table(file, objectives=("mse_logits + rkd_distance(on='logits')",)), tmp_path / "out"
    )
    assert len(rows) == 2


def test_classes_that_do_not_fit(table, answers, tmp_path):
    other = {key: {"bad": p["neg"], "good": p["pos"]} for key, p in answers.items()}
    file = write(tmp_path / "said.csv", other, ("bad", "good"))
    with pytest.raises(
        UserError, match=r"classes are not the data's.*name the classes as the data"
    ):
        run(table(file), tmp_path / "out")
    _, rows, _ = run(table(file, label_map="bad=neg,good=pos"), tmp_path / "out")
    assert rows[0].metrics["test/accuracy"] > 0.9


@pytest.mark.long
def test_beside_a_model_it_is_one_of_several(small_table, answers, toy_teacher, tmp_path):
    half = {key: said for n, (key, said) in enumerate(answers.items()) if n % 2}
    file = write(tmp_path / "said.csv", half)
    args = small_table(
        teacher=(str(toy_teacher), f"file:{file}"),
        tokenizer=str(toy_teacher),
        objectives=("kl", "hidden_mse(teacher=0) + kl(teacher=1)", "kl(trust='certainty')"),
        seeds=(0,),
    )
    _, rows, _ = run(args, tmp_path / "out")
    assert len(rows) == 5 and all(np.isfinite(r.metrics.get("test/nll", 0)) for r in rows)
    weighed = dataclasses.replace(
        args, teacher_weights="validation", objectives=("kl", "kl(teacher=0)")
    )
    _, rows, said = run(weighed, tmp_path / "weighed")
    assert "teachers weigh by 12 examples of validation: model " in said
    texts = {row.row: row.config["objective"] for row in rows if row.row != "teacher"}
    assert texts["kl"].startswith("kl(teacher_weights=[")
    assert texts["kl(teacher=0)"] == "kl(teacher=0)"
    _, _, again = run(weighed, tmp_path / "weighed")
    assert "2 of 2 runs are finished already" in again


def test_nobody_teaches_nothing_but_labels(small_table, toy_teacher, tmp_path):
    args = small_table(
        teacher=("none",), tokenizer=str(toy_teacher), objectives=("ce",), seeds=(0,)
    )
    spec, rows, _ = run(args, tmp_path / "out")
    assert spec.teachers == () and [row.row for row in rows] == ["ce"]
    assert "test/fidelity" not in rows[0].metrics and "teacher" not in spec.protocol[-1]
    write_outputs(table_of(spec, rows), tmp_path / "out")
    with pytest.raises(UserError, match="'kl' listens to a teacher, and --teacher none names nob"):
        run(dataclasses.replace(args, objectives=("kl",)), tmp_path / "other")


def test_ids_are_written_and_a_file_is_looked_at(
    toy_reviews, toy_teacher, answers, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("DISTILL_JAX_HOME", str(tmp_path / "home"))
    ids = tmp_path / "ids.csv"
    dispatch(["data", f"files:{toy_reviews}", "--ids", str(ids), "--teacher", str(toy_teacher)])
    with open(ids, encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == list(answers)
    assert {row["split"] for row in rows} == set(SPLITS.values()) and all(
        row["sentence"] for row in rows
    )
    file = write(tmp_path / "said.csv", dict(list(answers.items())[:50]))
    flags = ["--teacher", f"file:{file}", "--tokenizer", str(toy_teacher)]
    capsys.readouterr()
    dispatch(["data", f"files:{toy_reviews}", *flags])
    told = capsys.readouterr().out
    assert "teacher: said.csv: probabilities by id, of 50 of 60 training" in told


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tokenizer": "x"}, "--tokenizer is for teachers that are no model"),
        ({"teacher_tail": "drop"}, "--teacher-tail is for a teacher that is a file"),
        ({"teacher": ("file:x",), "teacher_gaps": 1.0}, r"--teacher-gaps must be in \[0, 1\)"),
        ({"teacher": ("file:x",), "teacher_seeds": (1,)}, "has no seed"),
        ({"teacher_weights": "validation"}, "no meaning with one teacher"),
    ],
)
def test_flags_that_do_not_fit(small_table, changes, message):
    with pytest.raises(UserError, match=message):
        sweep_of(small_table(**changes))
