"""Any value in any field of a configuration: it is taken, or refused in one line."""

import dataclasses
import json

import huggingface_hub.constants
import pytest
from damages import JSON, damaged, damaged_json, places, told
from hypothesis import example, given, settings
from hypothesis import strategies as st
from samples import sample_run, sample_runs, sample_spec, sample_teacher

from distill_jax.core.errors import UserError
from distill_jax.data.load import load_dataset
from distill_jax.engine.cell import Cell, Train
from distill_jax.engine.options import RunOptions
from distill_jax.engine.sweep import Sweep, axis, changed
from distill_jax.models.bert import BertConfig
from distill_jax.models.hf_config import (
    config_from_hf,
    config_to_hf,
    label_names_from_hf,
    read_json,
)
from distill_jax.models.hf_weights import weight_table
from distill_jax.objectives.resolve import resolve
from distill_jax.tables.build import table_of
from distill_jax.tables.columns import ACCURACY, FIDELITY
from distill_jax.tables.csv import to_csv
from distill_jax.tables.latex import to_latex
from distill_jax.tables.ledger import Ledger
from distill_jax.tables.markdown import to_markdown
from distill_jax.tables.outputs import evaluate, load_results
from distill_jax.tables.published import parse_published
from distill_jax.tables.trends import difference, ordering
from distill_jax.tasks.classification.cells import (
    ClassifierSetup,
    DataConfig,
    TeacherConfig,
    TrainingConfig,
)
from distill_jax.tasks.classification.models import check_student, load_checkpoint
from distill_jax.training.optimizer import OptimizerConfig, learning_rate, make_optimizer

TEACHER = BertConfig(30, 12, 3, 2, 24)
CELL = Cell(
    ClassifierSetup(data=DataConfig("files:/nowhere"), teacher=TeacherConfig(), student="tiny"),
    (Train("hidden_mse", TrainingConfig()), Train("kl + ce", TrainingConfig())),
    data_digest="data",
    teacher_digest="teacher",
)
FIELDS = (
    *(f"data.{name}" for name in vars(DataConfig())),
    *(f"teacher.{name}" for name in vars(TeacherConfig())),
    *(f"training.{name}" for name in vars(TrainingConfig())),
    *(f"training.optimizer.{name}" for name in vars(OptimizerConfig())),
    *(f"intermediate.training.{name}" for name in vars(TrainingConfig())),
    *(name for name in vars(CELL) if not name.endswith("_digest")),  # made here, not given
    *vars(CELL.setup),
    "objective",
    "training",
    "intermediate.objective",
    "nothing",
    "data.name.first",
    "",
    ".",
)
WORDS = st.sampled_from(
    ["", "l2", "l9", "tiny", "1x8x2", "3x7x2", "9" * 50 + "x1x1", "cnn-4-8", "ce", "kl(T=0)", "\0"]
)
VALUES = st.one_of(JSON, WORDS, st.lists(st.integers(-1, 4), max_size=4).map(tuple))


def used(cell):
    """What a sweep does with a cell before it reads data."""
    sweep = Sweep(
        "fuzz", "fuzz", cell, axis("objective", [cell.objective]),
        axis("student", [cell.setup.student]), (0,), (ACCURACY,),
    )  # fmt: skip
    (entry,) = sweep.entries()
    assert len(entry.cell.hash) == 16
    student = check_student(entry.cell, TEACHER)
    resolve(entry.cell.objective, student.shape, TEACHER.shape)
    steps = entry.cell.training.total_steps(1000)
    assert 1 <= steps < 2**31
    for step in (0, steps // 2, steps - 1):
        assert learning_rate(entry.cell.training.optimizer, step, steps) >= 0
    make_optimizer(entry.cell.training.optimizer)


@settings(max_examples=400)
@given(st.dictionaries(st.sampled_from(FIELDS), VALUES, min_size=1, max_size=2))
@example({"training.epochs": 1e308})
@example({"training.optimizer.b1": float("nan")})
@example({"layers": (1, True)})
@example({"student": "99999999999999999999x99999999999999999999x1"})
def test_cells(changes):
    told(lambda: used(changed(CELL, changes.items())))


@settings(max_examples=150)
@given(
    st.sampled_from(
        ["name", "title", "rows", "groups", "seeds", "baseline", "columns", "overrides", "layout",
         "group_title", "published", "published_rows", "trends", "protocol", "base"]
    ),
    st.one_of(JSON, st.lists(JSON, max_size=2).map(tuple)),
)  # fmt: skip
def test_sweeps(field, value):
    fields = {
        "name": "a", "title": "a", "base": CELL, "rows": axis("objective", ["ce", "kl"]),
        "groups": axis("student", ["tiny"]), "seeds": (0, 1), "baseline": "ce",
        "columns": (ACCURACY,),
    }  # fmt: skip
    told(lambda: Sweep(**{**fields, field: value}).entries())


@settings(max_examples=80)
@given(st.dictionaries(st.sampled_from(sorted(vars(RunOptions()))), JSON, min_size=1, max_size=2))
def test_options(changes):
    told(lambda: dataclasses.replace(RunOptions(), **changes))


@settings(max_examples=60)
@given(st.text(max_size=20), st.sampled_from(["", "files:", "review_snippets/", "cnn-", "~"]))
@example("~no-such-user-here/x", "")
@example("~no-such-user-here/x", "files:")
@example("a" * 5000, "files:")
@example("\0", "files:")
@example("\n", "files:")
@example("../x", "")
def test_names_of_data_and_teachers(name, start):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
        _, refused = told(lambda: load_dataset(start + name))
        assert refused
        told(lambda: load_checkpoint(start + name, num_labels=2, fresh=True))


# config.json of a BERT.

RAW = config_to_hf(TEACHER, ("bad", "good"))


@settings(max_examples=200)
@given(damaged_json(RAW))
@example(RAW | {"hidden_size": 10**30, "num_attention_heads": 1})
@example(RAW | {"num_hidden_layers": 10**9})
@example(RAW | {"layer_norm_eps": float("nan")})
@example(RAW | {"initializer_range": 10**400})
@example(RAW | {"num_attention_heads": 7})
@example(RAW | {"id2label": True})
@example(RAW | {"id2label": {"0": None, "1": {}}})
def test_bert_configs(results, raw):
    file = results / "config.json"
    file.write_text(json.dumps(raw))

    def load():
        read = read_json(file)
        config = config_from_hf(read, where="config.json")
        label_names_from_hf(read, where="config.json")
        assert config.shape.hidden_size % config.shape.num_heads == 0
        weight_table(config)

    told(load)


# What lies beside a table: table.json, the ledger, published numbers.

RUNS = [*sample_runs(groups=("tiny",)), sample_teacher()]
TRENDS = (
    difference("kl is better", ("kl", "tiny"), ("ce", "tiny")),
    ordering("in order", [("kl", "tiny"), ("ce", "tiny")]),
)
SPEC = sample_spec(
    RUNS[:-1], [RUNS[-1]], columns=(ACCURACY, FIDELITY), trends=TRENDS, published="wang2023"
)


def show(folder):
    """What ``distill-jax table`` computes, without the drawing."""
    spec, rows = load_results(folder)
    table = table_of(spec, rows)
    evaluate(table)
    return to_markdown(table), to_latex(table, caption=spec.title, label="x"), to_csv(table)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    ledger = Ledger(folder / "ledger.jsonl")
    for run in RUNS:
        ledger.append(run)
    (folder / "table.json").write_text(SPEC.to_json())
    return folder


def with_files(results, **texts):
    folder = results.parent / "damaged"
    folder.mkdir(exist_ok=True)
    for name in ("table.json", "ledger.jsonl"):
        (folder / name).write_bytes(
            texts.get(name.partition(".")[0]) or (results / name).read_bytes()
        )
    return folder


@settings(max_examples=120)
@given(damaged_json(json.loads(SPEC.to_json())))
def test_table_json(results, spec):
    told(lambda: show(with_files(results, table=json.dumps(spec).encode())))


def test_names_that_are_no_line(results):
    """Found by fuzzing: a key with a line end is quoted in the error."""
    spec = json.loads(SPEC.to_json()) | {"\n": 1}
    _, refused = told(lambda: show(with_files(results, table=json.dumps(spec).encode())))
    assert refused and r"\n" in refused


@settings(max_examples=60)
@given(damaged(SPEC.to_json().encode()))
@example(b"[" * 100_000)
@example(b"1" * 5000)
def test_bytes_of_table_json(results, data):
    told(lambda: show(with_files(results, table=data)))


@settings(max_examples=120)
@given(st.data())
def test_ledger_rows(results, data):
    number = data.draw(st.integers(0, len(RUNS) - 1))
    lines = (results / "ledger.jsonl").read_text().splitlines()
    row = json.loads(lines[number])
    del row["packages"]["python"]
    lines[number] = json.dumps(data.draw(damaged_json(row)))
    told(lambda: show(with_files(results, ledger="\n".join([*lines, ""]).encode())))


@settings(max_examples=60)
@given(damaged("".join(run.to_json() + "\n" for run in RUNS[:2]).encode()))
@example(b"[" * 100_000)
@example(b'{"a": ' * 100_000 + b"\n")
@example(b"\xff\xfe\n")
@pytest.mark.filterwarnings("ignore:.*the last line is cut short")
def test_bytes_of_a_ledger(results, data):
    folder = with_files(results, ledger=data)
    told(lambda: show(folder))
    told(lambda: Ledger(folder / "ledger.jsonl").append(sample_run("ce", "tiny", 9)))
    (folder / "table.json").unlink()
    told(lambda: show(folder))


TOML = """
title = "a"
task = "b"
source = "c"
columns = ["x"]
remarks = []
[papers]
p = "Somebody 2023"
[[numbers]]
row = "kl"
column = "x"
value = 91.5
metric = "accuracy"
split = "dev"
paper = "p"
table = "1"
read_in = "the text"
spread = 0.1
"""
LINES = TOML.strip().splitlines()


@settings(max_examples=120)
@given(st.data())
def test_published_numbers(data):
    parse_published(TOML, where="numbers.toml")
    number = data.draw(st.integers(0, len(LINES) - 1))
    key = LINES[number].partition(" = ")[0]
    value = data.draw(st.sampled_from(
        ["nan", "inf", "1e400", "9" * 30, "true", "[]", "{}", '""', "2020-01-01", "[{}]", "x"]
    ))  # fmt: skip
    changed_lines = [*LINES[:number], *data.draw(
        st.sampled_from([[], [f"{key} = {value}"], [f"extra = {value}", LINES[number]]])
    ), *LINES[number + 1 :]]  # fmt: skip
    told(lambda: parse_published("\n".join(changed_lines), where="numbers.toml"))


@pytest.mark.parametrize("line", ["extra = []", "extra = 1.5", "extra = 2020-01-01"])
def test_papers_are_text(line):
    text = TOML.replace("[papers]", f"[papers]\n{line}")
    with pytest.raises(UserError, match="no set of published numbers: papers are text"):
        parse_published(text, where="numbers.toml")


@settings(max_examples=60)
@given(damaged(TOML.encode()))
def test_bytes_of_published_numbers(data):
    told(lambda: parse_published(data.decode("latin-1"), where="numbers.toml"))


def test_places_are_all_places():
    assert places({"a": [1, {"b": 2}]}) == [(), ("a",), ("a", 0), ("a", 1), ("a", 1, "b")]
