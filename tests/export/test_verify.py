"""Parity that is broken is told, whether the source is at hand or golden answers stand for it."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
from exports import save_student

from distill_jax.core.errors import UserError
from distill_jax.export.formats import format_named, names
from distill_jax.export.manifest import MANIFEST, digests_of, read_manifest, write_manifest
from distill_jax.export.opened import open_export
from distill_jax.export.own_data import NoData
from distill_jax.export.parity import difference, read_golden
from distill_jax.export.source import open_source
from distill_jax.export.verify import find_source, verified
from distill_jax.export.write import export_model
from distill_jax.models.build import family_of

ROWS = [["the film is good"], [" "], ["bad"], ["very good music and the cast"]]


@pytest.fixture
def own_run(student_run, exports, tmp_path):
    """A run with its exports in it, as ``distill-jax export`` leaves them."""
    run = shutil.copytree(student_run, tmp_path / "run")
    for format in ("onnx", "onnx-int8"):
        shutil.copytree(exports[format], run / "export" / format)
    return run


def lines(folder, run=None, rows=None):
    export = open_export(folder)
    return list(verified(export, find_source(export, run), rows))


def resealed(folder, **changes):
    """The folder with what was changed in it, and a manifest that knows no better."""
    manifest = read_manifest(folder)
    (folder / MANIFEST).unlink()
    write_manifest(folder, dataclasses.replace(manifest, files=digests_of(folder), **changes))
    return folder


@pytest.mark.parametrize("format", names())
def test_an_export_alone_is_held_against_its_golden_answers(exports, format):
    whole, own, source = lines(exports[format])
    assert whole.endswith("files are what they were")
    assert f"golden answers of this {format}: 16 sentences" in own
    assert "golden answers of its source: 16 sentences, logits within" in source
    assert ("allowed" in source) == (format != "onnx-int8")


def test_the_run_it_lies_in_is_asked_too(own_run, student_run, exports, tmp_path):
    found = lines(own_run / "export/onnx")
    assert len(found) == 4 and found[-1].startswith("the source, of its own answers")
    found = lines(own_run / "export/onnx", rows=ROWS)
    assert f"the source, {own_run}, on your texts: 3 sentences" in found[-1]
    found = lines(exports["onnx-int8"], student_run, ROWS)
    assert "on your texts: 3 sentences" in found[-1] and "get the same class" in found[-1]
    with pytest.raises(UserError, match="name it with --run"):
        lines(exports["onnx"], rows=ROWS)
    with pytest.raises(UserError, match="no text to compare on"):
        lines(exports["onnx"], student_run, [[" "]])
    with pytest.raises(UserError, match="the export reads one text"):
        lines(exports["onnx"], student_run, [["good", "bad"]])


def test_another_run_is_not_its_source(exports, own_run, toy_teacher, tmp_path):
    other = save_student(tmp_path / "other", toy_teacher, pooling="cls")
    with pytest.raises(UserError, match=r"is not what .* was made of"):
        lines(exports["onnx"], other)
    shutil.rmtree(own_run / "model")
    shutil.copytree(other / "model", own_run / "model")
    assert len(lines(own_run / "export/onnx")) == 3  # it lies in another: golden answers stand


def test_a_model_of_another_s_weights_is_told(exports, toy_teacher, write_export, tmp_path):
    """Every digest fits; the answers do not."""
    other = save_student(tmp_path / "other", toy_teacher, pooling="cls")
    write_export(other, "onnx", tmp_path / "theirs")
    copy = shutil.copytree(exports["onnx"], tmp_path / "copy")
    shutil.copyfile(tmp_path / "theirs/model.onnx", copy / "model.onnx")
    with pytest.raises(UserError, match="parity is broken: golden answers of this onnx: a logit"):
        lines(resealed(copy))


def test_a_source_that_answers_otherwise_today_is_told(own_run):
    folder = own_run / "export/onnx"
    golden = json.loads((folder / "golden.json").read_text())
    golden["source"][3][0] += 0.01
    (folder / "golden.json").write_text(json.dumps(golden))
    with pytest.raises(UserError, match="parity is broken: golden answers of its source"):
        lines(resealed(folder))


def test_a_quantised_export_must_agree_with_its_source(own_run):
    source = open_source(own_run)
    export = open_export(own_run / "export/onnx-int8")

    turned = dataclasses.replace(source.opened, runtime=Turned(source.opened.runtime))
    with pytest.raises(UserError, match=r"gives 100\.0% of your texts another class"):
        list(verified(export, dataclasses.replace(source, opened=turned), ROWS))


def test_a_student_that_rounds_is_asked_less_exactly(student_run, monkeypatch, tmp_path):
    """One whose own layers are in 8 bits: any format of it may be a step away."""
    source, data = open_source(student_run), NoData("a toy")
    family = family_of(source.model.config)
    monkeypatch.setattr(type(family), "rounds", lambda self, config: True)
    manifest = export_model(
        source, format_named("onnx"), tmp_path / "out", data=data, max_drop=0.02
    )
    assert manifest.parity["tolerance"] is None
    found = lines(tmp_path / "out", student_run)
    assert "allowed" not in found[2] and "allowed: 5.0e-02" in found[1] and "5.0e-02" in found[3]


@dataclasses.dataclass
class Turned:
    """A runtime that says the opposite."""

    inner: object

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def __call__(self, batch):
        return -np.asarray(self.inner(batch))


@pytest.mark.parametrize(
    "damage", ["{}", "null", '{"texts": [["a"]], "source": [[1]], "export": [[1, 2]]}', "[" * 10**5]
)
def test_golden_answers_that_are_damaged_are_told(exports, tmp_path, damage):
    copy = shutil.copytree(exports["onnx"], tmp_path / "copy")
    (copy / "golden.json").write_text(damage)
    with pytest.raises(UserError, match=r"golden\.json is damaged"):
        lines(resealed(copy))


def test_a_difference_is_in_proportion_to_large_logits_alone():
    zeros = np.zeros((2, 2), np.float32)
    near = np.float32([[0, 9e-5], [0, 0]])
    assert difference(near, zeros, 1e-4).holds and not difference(near * 2, zeros, 1e-4).holds
    assert difference(near * 20 + 1000, zeros + 1000, 1e-4).holds
    assert not difference(near * np.nan, zeros, 1e-4).holds
    assert not difference(near * np.nan, zeros, None).holds
    ours_NC, theirs_NC = np.float32([[1, 0], [0, 1]]), np.float32([[3, 0], [1, 0]])
    assert difference(theirs_NC, ours_NC, None).agreement == 0.5


def test_golden_answers_are_of_our_own_texts(exports):
    golden = read_golden(exports["onnx"], 2, pairs=False)
    assert len(golden.columns[0]) == 16 and golden.source_NC.shape == (16, 2)
