"""``distill-jax bench`` on finished toy runs: what it counts, what it refuses."""

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest
from finished import finished_table, size_of

from distill_jax.cli.bench import Bench, entrants_of
from distill_jax.cli.main import dispatch
from distill_jax.core.errors import UserError
from distill_jax.evaluation.latency import parameter_count
from distill_jax.evaluation.open_classifier import open_classifier
from distill_jax.export.bench import Measured, measure
from distill_jax.export.bench_worker import read_batches, write_batches
from distill_jax.export.contenders import contenders_of, enter
from distill_jax.export.manifest import read_manifest, write_manifest
from distill_jax.export.plan import BenchPlan

QUICK = ("--sentences", "5", "--batches", "2", "--batch-size", "4", "--warmup", "1")


@pytest.fixture(scope="module")
def runs(toy_teacher, toy_reviews, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench") / "out"
    return finished_table(folder, toy_teacher, toy_reviews, ("static-8", "bilstm-4"))


def test_a_table_with_the_first_as_one(runs, tmp_path, capsys):
    out = tmp_path / "bench.json"
    quick = (*QUICK, "--repeats", "2", "--runtimes", "jax,onnx-int8", "--output", str(out))
    dispatch(["bench", str(runs["teacher"]), *quick])
    table = capsys.readouterr().out.splitlines()
    kept = json.loads(out.read_text())
    under_jax, in_8_bits = kept["rows"]
    assert (under_jax["runtime"], in_8_bits["runtime"]) == ("jax", "onnx-int8")
    assert table[2].startswith("| teacher | jax |") and table[2].count("(1.00)") == 6
    assert table[3].startswith("| teacher | onnx-int8 |") and not table[4]
    model = open_classifier(runs["teacher"]).model
    assert under_jax["parameters"] == in_8_bits["parameters"] == parameter_count(model.params)
    card = (runs["teacher"] / "model/README.md").stat().st_size
    assert under_jax["bytes_on_disk"] == size_of(runs["teacher"] / "model") - card
    for row in kept["rows"]:
        assert 0 < row["p50_ms"] <= row["p95_ms"] and row["texts_per_second"] > 0
    # The process of an export holds no JAX.
    assert 20e6 < in_8_bits["peak_bytes"] < under_jax["peak_bytes"] - 40e6
    assert kept["plan"] == {
        "sentences": 5, "batches": 2, "batch_size": 4, "warmup": 1, "repeats": 2, "seed": 0,
    }  # fmt: skip
    assert kept["tokens"]["longest"] <= 16 and "after 1 that do not count" in table[-2]


def test_the_teacher_of_the_first_run_comes_first(runs):
    def order(*arguments, **changes):
        return [each.name for each in entrants_of(Bench(tuple(arguments), **changes))]

    static, bilstm, teacher = runs["static-8"], runs["bilstm-4"], runs["teacher"]
    assert order(static, bilstm) == ["teacher", "static-8, kl", "bilstm-4, kl"]
    assert order(bilstm, teacher, bilstm) == ["teacher", "bilstm-4, kl"]
    assert order(bilstm, teacher=static) == ["static-8, kl", "bilstm-4, kl"]
    assert order(static / "model") == ["model"]


@pytest.mark.long
def test_a_run_of_questions_is_measured_on_its_test_split(
    toy_teacher, toy_questions, tmp_path, capsys
):
    """A short test of the same is in ``tests/export/test_kinds.py``."""
    runs = finished_table(
        tmp_path / "out", toy_teacher, toy_questions, ("1x8x2",), task="spans", max_length=28
    )
    out, student = tmp_path / "bench.json", runs["1x8x2"]
    quick = (*QUICK, "--repeats", "1", "--runtimes", "jax,onnx", "--output", str(out))
    dispatch(["bench", str(student), *quick])
    table, kept = capsys.readouterr().out, json.loads(out.read_text())
    rows = [(row["name"], row["runtime"]) for row in kept["rows"]]
    student_name = "1x8x2, kl"
    assert rows == [
        (name, runtime) for name in ("teacher", student_name) for runtime in ("jax", "onnx")
    ]
    for row in kept["rows"]:
        assert 0 < row["p50_ms"] <= row["p95_ms"] and row["texts_per_second"] > 0
    assert kept["tokens"]["windows"] > 5 and f"in {kept['tokens']['windows']} windows" in table


def test_an_export_is_measured_as_it_is(runs, tmp_path, capsys):
    folder = tmp_path / "onnx"
    dispatch(["export", str(runs["static-8"]), "--format", "onnx", "--output", str(folder)])
    capsys.readouterr()
    texts = tmp_path / "texts.txt"
    texts.write_text("the film is good\n\nbad plot\n")
    dispatch(["bench", str(folder), *QUICK, "--repeats", "1", "--input", str(texts)])
    table = capsys.readouterr().out.splitlines()
    assert table[2].startswith("| static-8, kl | onnx |") and "over 2 texts" in table[5]
    with pytest.raises(UserError, match="none of these folders says what it was trained on"):
        dispatch(["bench", str(folder), *QUICK])


def test_what_cannot_be_measured_is_named(runs, toy_teacher, tmp_path, monkeypatch):
    def refused(*arguments):
        with pytest.raises(UserError) as caught:
            dispatch(["bench", *map(str, arguments)])
        return str(caught.value)

    student = runs["static-8"]
    assert "no run" in refused()
    assert "no run at" in refused(tmp_path / "nowhere")
    assert "holds no model" in refused(tmp_path)
    assert "Did you mean 'onnx-int8'" in refused(student, "--runtimes", "jax,onnx-int")
    assert "--runtimes needs names, each once" in refused(student, "--runtimes", "jax,jax")
    assert "ending of --output" in refused(student, "--output", "table.csv")
    assert "repeats must be at least 1" in refused(student, "--repeats", 0)
    assert "no file" in refused(student, "--input", tmp_path / "none.txt")

    recommender = tmp_path / "recommender/model"
    recommender.mkdir(parents=True)
    (recommender / "config.json").write_text('{"model_type": "distill_jax_recommender"}')
    assert "holds a recommender, which is none of" in refused(recommender.parent)
    other = contenders_of(enter(student), ("onnx",), tmp_path)[0].folder
    manifest = dataclasses.replace(read_manifest(other), task="recommendation")
    write_manifest(other, manifest)
    assert "is an export for recommendation; bench is for models that answer" in refused(other)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert "pip install 'distill_jax[export]'" in refused(student, "--runtimes", "onnx")


def test_runs_of_other_data_are_refused(runs, toy_teacher, toy_reviews, tmp_path):
    other = tmp_path / "copy"
    other.mkdir()
    for file in toy_reviews.iterdir():
        (other / file.name).write_bytes(file.read_bytes())
    more = finished_table(tmp_path / "out", toy_teacher, other, ("static-4",))
    with pytest.raises(UserError, match="they are not of one task; --input FILE"):
        dispatch(["bench", str(runs["static-8"]), str(more["static-4"])])


def test_a_process_that_fails_says_why(runs, tmp_path):
    (contender,) = contenders_of(enter(runs["static-8"]), ("onnx",), tmp_path)
    (contender.folder / "model.onnx").write_bytes(b"no model")
    with pytest.raises(UserError, match=r"static-8, kl \(onnx\): .*model.onnx has changed"):
        measure([contender], [["good film"]], BenchPlan(1, 1, 1, 1, 1))


def test_rounds_go_over_all_and_only_those_of_the_warmup_are_left_out(runs, tmp_path):
    entrant = enter(runs["static-8"])
    contenders = contenders_of(entrant, ("onnx", "onnx-int8"), tmp_path)
    steps = []
    plan = BenchPlan(sentences=3, batches=1, batch_size=2, warmup=2, repeats=3)
    found = measure(
        contenders, [["good", "bad film", "the plot is not good"]], plan,
        lambda done, total: steps.append((done, total)),
    )  # fmt: skip
    assert steps == [(number, 10) for number in range(1, 11)]
    assert [each.latency.runs for each in found] == [9, 9]
    assert Measured.from_row(json.loads(json.dumps(found[0].as_row()))) == found[0]


def test_batches_are_kept_as_they_are(tmp_path):
    rng = np.random.default_rng(0)
    lists = {
        name: [tuple(rng.integers(0, 9, (rows, 4)) for _ in range(3)) for rows in (1, 2)]
        for name in ("alone", "together")
    }
    write_batches(tmp_path / "batches.npz", lists)
    again = read_batches(tmp_path / "batches.npz")
    assert list(again) == list(lists)
    for name, some in lists.items():
        for one, two in zip(some, again[name], strict=True):
            for left, right in zip(one, two, strict=True):
                np.testing.assert_array_equal(left, right)


def test_memory_is_that_of_the_process_alone():
    code = """
import numpy as np
from distill_jax.export.bench_worker import peak_bytes
before = peak_bytes()
held = np.ones(25_000_000)
del held
print(before, peak_bytes())
"""
    ballast = np.ones(60_000_000)  # what getrusage would count
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    before, after = map(int, done.stdout.split())
    assert before < 0.5 * ballast.nbytes and 190e6 < after - before < 230e6


def test_an_onnx_export_is_opened_without_jax(runs, tmp_path):
    (contender,) = contenders_of(enter(runs["static-8"]), ("onnx-int8",), tmp_path)
    code = f"""
import sys
from distill_jax.export.opened import open_export
export = open_export({str(contender.folder)!r})
one = __import__("numpy").ones((1, 3), "int64")
assert export.logits(one, 0 * one, one).shape == (1, 2)
sys.exit("jax" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
