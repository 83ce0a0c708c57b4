"""Every format holds every family's students, or says why not."""

import dataclasses

import numpy as np
import onnx
import pytest
from exports import save_student, text_families
from flax.traverse_util import flatten_dict

from distill_jax.compression.int8 import quantised
from distill_jax.core.errors import UserError
from distill_jax.evaluation.open_classifier import open_classifier
from distill_jax.export import formats, onnx_format
from distill_jax.export.formats import format_named, names, register
from distill_jax.export.manifest import read_manifest
from distill_jax.export.runtime import open_any
from distill_jax.models.build import family_of, load_model

TEXTS = ["the film is good", "bad", "the plot and the cast and the music is very not good at all"]
SECOND = ["bad", "the music was very good", "the film"]


@pytest.mark.parametrize(
    ("family", "pairs"),
    [
        pytest.param(family, pairs, marks=pytest.mark.long if family == "mobilebert" else ())
        for family in sorted(text_families())
        for pairs in (False, True)
    ],
)
def test_a_student_answers_the_same_in_every_format(
    family, pairs, toy_teacher, write_export, tmp_path
):
    run = save_student(tmp_path / "run", toy_teacher, family, pairs=pairs)
    asked = (TEXTS, SECOND) if pairs else (TEXTS,)
    expected = open_classifier(run).classify(*asked)
    held = []
    for name in names():
        folder = tmp_path / name
        if name == "hf" and text_families()[family].elsewhere is None:
            with pytest.raises(
                UserError, match=f"no other software has models of .*{family}.*onnx"
            ):
                write_export(run, name, folder)
            assert not folder.exists()
            continue
        manifest = write_export(run, name, folder)
        held.append(name)
        assert manifest == read_manifest(folder) and manifest.format == name
        assert (manifest.label_names, manifest.pairs) == (("good", "bad"), pairs)
        assert (manifest.max_length, manifest.temperature) == (24, 1.5)
        atol = 1e-4 if format_named(name).tolerance else 0.05
        for one, other in zip(open_any(folder).classify(*asked), expected, strict=True):
            np.testing.assert_allclose(
                list(one.probabilities.values()), list(other.probabilities.values()), atol=atol
            )
        with pytest.raises(UserError, match="trained on " + ("pairs" if pairs else "single")):
            open_any(folder).classify(*(asked[:1] if pairs else (TEXTS, SECOND)))
    assert set(held) >= {"onnx", "onnx-int8", "stablehlo"}


@pytest.mark.parametrize("activations", ["token", "static", "float"])
def test_a_student_in_8_bits_is_one_everywhere(activations, student_run, write_export, tmp_path):
    """Its ONNX files compute in integers too, however it is asked for; no other software has it."""
    model, run = load_model(student_run / "model"), tmp_path / "run"
    largest = {path[:-1]: 4.0 for path in flatten_dict(model.params) if path[-1] == "kernel"}
    found = largest if activations == "static" else None
    config, params = quantised(model.config, model.params, activations, found)
    family_of(config).save(
        run / "model", config, params, model.tokenizer_file, model.label_names, model.inputs
    )
    expected = open_classifier(run).classify(TEXTS)
    for name in ("onnx", "onnx-int8", "stablehlo"):
        manifest = write_export(run, name, tmp_path / name)
        assert manifest.parity["tolerance"] is None and manifest.source["family"] == "compact_bert"
        for one, other in zip(open_any(tmp_path / name).classify(TEXTS), expected, strict=True):
            np.testing.assert_allclose(
                list(one.probabilities.values()), list(other.probabilities.values()), atol=5e-3
            )
    kinds = [node.op_type for node in onnx.load(tmp_path / "onnx/model.onnx").graph.node]
    assert kinds.count("MatMulInteger") == (0 if activations == "float" else 6)
    with pytest.raises(UserError, match="no other software has models of the family 'compact_bert"):
        write_export(run, "hf", tmp_path / "hf")


def test_there_is_one_format_of_a_name():
    assert names()[:4] == ("hf", "onnx", "onnx-int8", "stablehlo")
    with pytest.raises(UserError, match="Did you mean 'onnx'"):
        format_named("onx")
    with pytest.raises(UserError, match="'onnx' is there already"):
        register(format_named("onnx"))


def test_a_new_format_is_one_entry(monkeypatch, student_run, write_export, tmp_path):
    """And one that answers otherwise than its source leaves nothing behind."""
    monkeypatch.setattr(formats, "_FORMATS", dict(formats._FORMATS))
    honest = format_named("onnx")
    register(dataclasses.replace(honest, name="mine"))
    assert write_export(student_run, "mine", tmp_path / "mine").format == "mine"

    def off_by(shift):
        def opened(*args):
            logits = honest.open(*args)
            return lambda *tokens: logits(*tokens) + np.float32(shift)

        return opened

    for name, shift in {"a little": 5e-4, "lost": np.nan}.items():
        register(dataclasses.replace(honest, name=name, open=off_by(shift)))
        with pytest.raises(UserError, match="answers otherwise than the source: a logit differs"):
            write_export(student_run, name, tmp_path / name)

    def minding_padding(*args):
        logits = honest.open(*args)
        return lambda ids, types, mask: logits(ids, types, mask) + np.float32(0.1 * mask.all())

    register(dataclasses.replace(honest, name="padding", open=minding_padding, tolerance=None))
    with pytest.raises(UserError, match="answers otherwise alone than among others"):
        write_export(student_run, "padding", tmp_path / "padding")
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_what_one_file_cannot_hold_is_refused(monkeypatch, student_run, write_export, tmp_path):
    monkeypatch.setattr(onnx_format, "MOST_BYTES", 1000)
    with pytest.raises(UserError, match="GB of weights, more than one ONNX file holds; stablehlo"):
        write_export(student_run, "onnx", tmp_path / "out")
