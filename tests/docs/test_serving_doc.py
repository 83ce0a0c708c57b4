"""docs/serving.md says what is so."""

import dataclasses
import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
from exported import KINDS
from served import listening, small_export

from distill_jax.cli.export import Export
from distill_jax.cli.main import dispatch
from distill_jax.cli.run import parse_flags
from distill_jax.cli.serve import Serve
from distill_jax.serving.app import create_app
from distill_jax.serving.messages import plural, requests_of
from distill_jax.serving.metrics import Metrics
from distill_jax.serving.settings import Settings
from distill_jax.serving.tokens import read_tokens
from distill_jax.tasks.kinds.kinds import all_names, kind_named

PAGE = (Path(__file__).resolve().parents[2] / "docs/serving.md").read_text(encoding="utf-8")
ADDRESS = "http://127.0.0.1:8000"
TOKEN = "0123456789abcdef0123456789abcdef"


def block(kind):
    (found,) = re.findall(rf"```{kind}\n(.*?)```", PAGE, flags=re.S)
    return found


def rows(heading):
    """The cells of the table under a heading, without the table's own."""
    table = PAGE.partition(heading)[2].partition("\n\n")[0]
    lines = [line for line in table.splitlines() if line.startswith("|")]
    cells = [re.split(r"\s*\|\s*", line.strip("| ")) for line in lines]
    return cells[2:]


@pytest.fixture(scope="module")
def address(toy_teacher):
    settings = Settings()
    export = small_export(toy_teacher / "tokenizer.json")
    with listening(create_app(export, settings), settings) as (_, found):
        yield found


def form_of(task):
    outputs, kept = {**KINDS, "classes": (("neg", "pos"), {"temperature": 1.0})}[task]
    return kind_named(task).form(kept, outputs, Path())


def same_form(shown, told):
    if isinstance(shown, dict):
        assert shown.keys() == told.keys()
        return all(same_form(shown[key], told[key]) for key in shown)
    if isinstance(shown, list):
        assert len(shown) == len(told)
        return all(map(same_form, shown, told))
    return type(shown) is type(told)


def test_every_kind_takes_what_is_shown_and_answers_with_what_is_named():
    seen = set()
    for task, body, fields in rows("as [predict.md](predict.md) describes it:\n\n"):
        form = form_of(task.strip("`"))
        requests = requests_of(form, form.asked(False), Settings())
        shown = json.loads(body.strip("`"))
        several = {plural(name): [value, value] for name, value in shown.items()}
        (one,), _ = requests.read(json.dumps(shown).encode())
        assert requests.read(json.dumps(several).encode())[0] == [one, one]
        assert set(re.findall(r"`(\w+)`", fields)) == form.fields.keys()
        assert (form.divisor is not None) == (task in ("`classes`", "`relations`"))
        seen.add(task.strip("`"))
    assert seen == set(all_names())


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl")
def test_curl_gets_an_answer_of_the_form_that_is_shown(address):
    command = block("sh").replace(ADDRESS, address)
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=30)
    told = json.loads(done.stdout)
    assert same_form(json.loads(block("json")), told)
    for answer in json.loads(block("json"))["answers"]:
        assert answer is None or sum(answer["probabilities"].values()) == pytest.approx(1)


def test_the_client_in_python_runs(address, toy_teacher, tmp_path):
    names = {}
    exec(block("python"), names)
    classify = names["classify"]
    good, blank = classify(["good film", " "], address)
    assert blank is None and good["label"] in ("neg", "pos")
    (tmp_path / "tokens").write_text(TOKEN)
    settings = Settings()
    export = small_export(toy_teacher / "tokenizer.json")
    app = create_app(export, settings, tokens=read_tokens(tmp_path / "tokens"))
    with listening(app, settings) as (_, locked):
        assert classify(["good film"], locked, TOKEN) == [good]


def test_the_commands_that_it_shows_parse():
    exports = re.findall(r"distill-jax export ([^\n`]*)", PAGE)
    assert [parse_flags(Export, shlex.split(each), "export").run for each in exports] == [
        Path("RUN")
    ]
    serves = re.findall(r"(?:^    |bin/)distill-jax serve ([^\n]*)", PAGE, flags=re.M)
    folders = [parse_flags(Serve, shlex.split(each), "serve").model for each in serves]
    assert folders == [Path("student"), Path("/srv/student")]
    assert "`distill-jax serve RUN`" in PAGE
    (entry,) = re.findall(r"ENTRYPOINT (\[.*\])", PAGE)
    _, _, *arguments = json.loads(entry)
    assert parse_flags(Serve, arguments, "serve").host == "0.0.0.0"


def test_all_flags_are_there_with_their_defaults():
    told = {}
    for names, default, _ in rows("## Flags\n\n"):
        for name, value in zip(re.findall(r"--([\w-]+)", names), default.split(", "), strict=False):
            told[name.replace("-", "_")] = value
    fields = {field.name: field.default for field in dataclasses.fields(Serve)}
    settings = vars(fields.pop("settings"))
    del fields["model"]
    assert told.keys() == fields.keys() | settings.keys()
    for name, value in {**settings, "host": "127.0.0.1", "port": 8000}.items():
        assert told[name] == (f"{value:g}" if isinstance(value, float) else str(value)), name


def test_statuses_are_those_of_the_interface(address):
    shown = {row[0] for row in rows('said in a line, `{"detail": "..."}`:\n\n')}
    openapi = httpx.get(f"{address}/openapi.json").json()
    known = openapi["paths"]["/predict"]["post"]["responses"].keys()
    assert shown == known - {"200", "500"}


def test_what_is_to_be_watched_is_there(address):
    page = httpx.get(f"{address}/metrics").text
    for task in ("number", "tags"):
        served = SimpleNamespace(form=form_of(task), run="", format="", task=task)
        page += Metrics(served).page().decode()
    there = set(re.findall(r"^(\w+)", page, flags=re.M))
    labels = set(re.findall(r"(\w+)=", page))
    shown = set(re.findall(r"distill_jax_\w+", PAGE.partition("## What to watch")[2]))
    assert len(shown) > 10 and not {name for name in shown if "_jax_" in name} - there
    assert {"status"} <= labels


def test_triton_s_file_fits_the_graph(toy_teacher, tmp_path):
    onnx = pytest.importorskip("onnx")
    dispatch(["export", str(toy_teacher), "--output", str(tmp_path / "student")])
    graph = onnx.load(tmp_path / "student/model.onnx").graph
    config = re.search(r'```\nname: "student"\n.*?```', PAGE, flags=re.S)[0]
    inputs, outputs = config.split("output [")
    named = r'name: "(\w+)" data_type: TYPE_(\w+) dims: \[ (-?\d+) \]'
    kinds = {onnx.TensorProto.INT64: "INT64", onnx.TensorProto.FLOAT: "FP32"}

    def of(values):
        found = set()
        for value in values:
            kind = value.type.tensor_type
            batch, *dims = (dim.dim_value or -1 for dim in kind.shape.dim)
            assert batch == -1  # Triton's own axis
            found.add((value.name, kinds[kind.elem_type], *map(str, dims)))
        return found

    assert set(re.findall(named, inputs)) == of(graph.input)
    assert set(re.findall(named, outputs)) == of(graph.output)
