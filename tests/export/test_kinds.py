"""Models of every kind of task in every format, with answers in their own terms."""

import dataclasses
import json
import shutil

import pytest
from exported import KINDS, rounded
from exports import text_families
from served import ask

from distill_jax.cli.bench import Bench, columns_of, entrants_of
from distill_jax.core.errors import UserError
from distill_jax.data.table import TextTable
from distill_jax.data.tokenise import Tokeniser
from distill_jax.data.windows import windows_of
from distill_jax.evaluation.open_classifier import open_classifier
from distill_jax.evaluation.task_file import read_task
from distill_jax.export.bench import ALONE, TOGETHER, batches_of, lengths_of, measure
from distill_jax.export.contenders import check_same, contenders_of, enter
from distill_jax.export.formats import names
from distill_jax.export.manifest import MANIFEST, digests_of, read_manifest, write_manifest
from distill_jax.export.opened import open_export
from distill_jax.export.plan import BenchPlan
from distill_jax.export.runtime import open_any
from distill_jax.export.verify import find_source, verified
from distill_jax.models.hf_config import read_json
from distill_jax.serving.app import create_app
from distill_jax.serving.messages import plural
from distill_jax.serving.model import open_served
from distill_jax.serving.settings import Settings
from distill_jax.tasks.kinds.kinds import all_names, form_of, kind_named

TEXTS = ["the film is good", "the plot and the cast and the music is very not good at all"]
SECOND = ["the plot was bad and the music was very good", "the film"]


def asked(opened, task):
    columns = (TEXTS, SECOND) if kind_named(task).pairs else (TEXTS,)
    rows = opened.classify(*columns)
    return [opened.answering.data(row) for row in rows]


SHORT = [
    *((task, "bert", "onnx") for task in ("number", "tags", "spans")),
    ("labels", "bert", "onnx-int8"),
    ("tags", "bert", "hf"),
]
ALL = [(task, "bert", format) for task in KINDS for format in names()]
CASES = [
    *SHORT,
    *(pytest.param(*case, marks=pytest.mark.long) for case in ALL if case not in SHORT),
    pytest.param("tags", "bilstm", "onnx", marks=pytest.mark.long),
]
"""Of all pairs of a kind and a format; those of the default run differ most."""
OTHERS = [n for n, f in text_families().items() if f.tokens and n not in ("bert", "bilstm")]


def test_every_kind_is_here():
    assert {*KINDS, "classes"} == set(all_names())


@pytest.mark.parametrize(("task", "family", "format"), CASES)
def test_an_export_answers_as_its_student(task, family, format, kind_run, kind_export):
    run, folder = kind_run(task, family), kind_export(task, format, family)
    manifest = read_manifest(folder)
    assert manifest.task == task and manifest.format == format
    assert manifest.per_token == (kind_named(task).head == "tokens")
    assert read_task(folder) == read_task(run / "model")
    ours, theirs = asked(open_any(folder), task), asked(open_any(run), task)
    if format != "onnx-int8":
        assert rounded(ours) == rounded(theirs)
    export = open_export(folder)
    found = list(verified(export, find_source(export, None), zip(TEXTS, SECOND, strict=True)
                          if kind_named(task).pairs else [[text] for text in TEXTS]))  # fmt: skip
    assert "on your texts: 2 sentences" in found[-1] and "get the same answer" in found[-1]
    card = (folder / "README.md").read_text()
    assert form_of(read_task(folder), manifest.label_names, folder).reading in card
    config = folder / "config.json"
    if format == "hf" and config.is_file():
        assert read_json(config).get("problem_type") == kind_named(task).problem_type


@pytest.mark.parametrize(
    "family", ["bilstm", *(pytest.param(n, marks=pytest.mark.long) for n in OTHERS)]
)
def test_what_a_format_has_no_head_for_is_refused_by_name(family, kind_run, write_export, tmp_path):
    with pytest.raises(UserError, match="onnx, onnx-int8 and stablehlo hold it"):
        write_export(kind_run("tags", family), "hf", tmp_path / "hf")


def test_what_is_for_classes_says_so(kind_run, kind_export):
    with pytest.raises(UserError, match="model of task number; this is for task classes"):
        open_classifier(kind_run("number"))
    with pytest.raises(UserError, match=r"a temperature is for classes; .* is for task number"):
        open_any(kind_export("number"), temperature=2.0)


@pytest.mark.parametrize("task", ["number", "tags", "spans"])
def test_an_export_is_served(task, kind_export):
    folder = kind_export(task)
    columns = (TEXTS, SECOND) if kind_named(task).pairs else (TEXTS,)
    served = open_served(folder)
    app = create_app(served, Settings(max_batch=1))
    body = dict(zip(map(plural, served.columns), columns, strict=True))
    said = ask(app, body).json()["answers"]
    assert [row.pop("truncated") for row in said] == [False, task == "spans"]  # a long question
    for row, answer in zip(said, served.opened.classify(*columns), strict=True):
        assert row.pop("label") == answer.label
        assert rounded(row) == rounded(served.form.data(answer))


def test_runs_and_exports_of_one_kind_are_measured_and_no_others(kind_run, kind_export, tmp_path):
    run, folder = enter(kind_run("number")), enter(kind_export("number"))
    assert run.task == folder.task == "number" and not folder.pairs
    check_same([run, folder])
    (under_jax,) = contenders_of(run, ("jax",), tmp_path)
    (as_it_is,) = contenders_of(folder, ("jax",), tmp_path)
    assert under_jax.parameters == as_it_is.parameters > 0
    assert (under_jax.runtime, as_it_is.runtime) == ("jax", "onnx")
    with pytest.raises(UserError, match=r"is for task number and .* for tags: bench measures"):
        check_same([run, enter(kind_export("tags"))])


def test_texts_of_ones_own_have_the_columns_that_models_read(kind_export, kind_run, tmp_path):
    def asked(file, *kinds):
        args = Bench(tuple(map(kind_export, kinds)), input=file)
        return columns_of(args, entrants_of(args))

    questions = tmp_path / "questions.csv"
    questions.write_text('context,question\nthe film,is it good\n"the plot, bad",what\n')
    assert asked(questions, "spans") == (("is it good", "what"), ("the film", "the plot, bad"))
    lines = tmp_path / "texts.txt"
    lines.write_text("the film\n\nbad\n")
    assert asked(lines, "number", "tags") == (("the film", "bad"),)
    with pytest.raises(UserError, match=r"is a text a line; .* columns question, context"):
        asked(lines, "spans")
    with pytest.raises(UserError, match=r"number.* text and .*spans.* question, context: they do"):
        asked(lines, "number", "spans")
    lines.write_text("question,context\n")
    with pytest.raises(UserError, match="has no text"):
        asked(lines.rename(tmp_path / "none.csv"), "spans")


def test_questions_are_measured_with_all_windows_of_their_contexts(kind_export, tmp_path):
    (contender,) = contenders_of(enter(kind_export("spans")), ("jax",), tmp_path)
    contexts = ["the film", " ".join(40 * ["good"])]
    columns, plan = [["is it good", "what was bad"], contexts], BenchPlan(2, 2, 3, 1, 1)
    lengths_NW = lengths_of(contender, columns, plan)
    tokens, _, _, _ = windows_of(
        TextTable(("a", "b"), *map(tuple, columns)), Tokeniser(contender.tokenizer_file, 24)
    )
    assert (lengths_NW[0] > 0).sum() == 1 and lengths_NW.shape[1] == len(tokens) - 1 > 1
    assert lengths_NW[lengths_NW > 0].tolist() == tokens.lengths_N.tolist()
    (found,) = measure([contender], columns, plan)
    assert found.latency.runs == 2 and found.texts_per_second > 0
    under_jax = dataclasses.replace(contender, runtime="jax")
    lists = batches_of(under_jax, columns, plan)
    rows = [len(ids) for ids, _, _ in lists[ALONE]]
    assert rows[0] == 1 and rows[1] >= lengths_NW.shape[1] and rows[1].bit_count() == 1
    assert {len(ids) for ids, _, _ in lists[TOGETHER]} == {3}
    asked = sum(int(mask.any(axis=1).sum()) for _, _, mask in lists[TOGETHER])
    assert asked == 3 * len(tokens)


def test_an_export_without_what_it_answers_with_is_refused(kind_export, tmp_path):
    shutil.copytree(kind_export("number"), tmp_path / "onnx")
    manifest = read_manifest(tmp_path / "onnx")
    (tmp_path / "onnx/task.json").unlink()
    (tmp_path / "onnx" / MANIFEST).unlink()
    files = digests_of(tmp_path / "onnx")
    write_manifest(tmp_path / "onnx", type(manifest)(**{**vars(manifest), "files": files}))
    with pytest.raises(UserError, match=r"is an export for number, and no task\.json in it"):
        open_any(tmp_path / "onnx")


def test_golden_answers_of_tokens_that_are_not_theirs_are_told(kind_export, tmp_path):
    folder = shutil.copytree(kind_export("tags"), tmp_path / "onnx")
    manifest, golden = read_manifest(folder), json.loads((folder / "golden.json").read_text())
    assert [len(row) for row in golden["source"]][:2] == [7, 3]  # tokens of the first texts
    for change in (lambda rows: rows.pop(), lambda rows: rows[0].append([0.0])):
        changed = {**golden, "source": [list(row) for row in golden["source"]]}
        change(changed["source"])
        (folder / "golden.json").write_text(json.dumps(changed))
        (folder / MANIFEST).unlink()
        changes = {"files": digests_of(folder)}
        write_manifest(folder, type(manifest)(**{**vars(manifest), **changes}))
        export = open_export(folder)
        with pytest.raises(UserError, match=r"golden\.json (is damaged|does not fit)"):
            list(verified(export, None, None))
