"""Students in variants: what is kept, what is done again, and what the points say."""

import json

import numpy as np
import pytest
from exports import save_student

from distill_jax.core.errors import UserError
from distill_jax.data.table import TextTable
from distill_jax.evaluation.timing import Latency
from distill_jax.export import variants
from distill_jax.export.bench import Measured
from distill_jax.export.plan import BenchPlan
from distill_jax.export.variants import Variant, costs_of, export_variant, point_of

TEST = TextTable(("a", "b", "c"), ("good film", "the plot is bad", "bad"))
COST = Measured("m, as is", "onnx", 10, 20, 30, Latency(1.0, 2.0, 6), 500.0)


@pytest.fixture(scope="module")
def variant(toy_teacher, tmp_path_factory):
    run = save_student(tmp_path_factory.mktemp("variants") / "run", toy_teacher, "static")
    return Variant("m", "as is", run, "onnx")


def refuse(*args, **kwargs):
    raise AssertionError("it was done before")


def test_what_was_exported_and_said_is_taken_again(variant, tmp_path, monkeypatch):
    first = export_variant(variant, tmp_path, TEST)
    assert first.classes_N.shape == (3,) and first.manifest.format == "onnx"
    monkeypatch.setattr(variants, "export_model", refuse)
    monkeypatch.setattr(variants, "logits_of_texts", refuse)
    again = export_variant(variant, tmp_path, TEST)
    np.testing.assert_array_equal(first.classes_N, again.classes_N)
    assert again.manifest == first.manifest
    with pytest.raises(AssertionError, match="done before"):  # other texts are asked about anew
        export_variant(variant, tmp_path, TextTable(("d",), ("music",)))
    (tmp_path / "m, as is.json").write_text("{")
    with pytest.raises(AssertionError, match="done before"):
        export_variant(variant, tmp_path, TEST)


def test_an_export_of_another_model_is_refused(variant, toy_teacher, tmp_path):
    export_variant(variant, tmp_path, TEST)
    other = save_student(tmp_path / "run", toy_teacher, "bilstm")
    with pytest.raises(UserError, match="was made of another model"):
        export_variant(Variant("m", "as is", other, "onnx"), tmp_path, TEST)


def test_an_export_that_has_changed_is_refused(variant, tmp_path):
    (export_variant(variant, tmp_path, TEST).folder / "model.onnx").write_bytes(b"another")
    with pytest.raises(UserError, match="has changed since it was exported"):
        export_variant(variant, tmp_path, TEST)


def test_costs_of_the_same_exports_are_taken_again(variant, tmp_path, monkeypatch):
    exported = [export_variant(variant, tmp_path, TEST)]
    asked = []

    def measure(*args):
        asked.append(args)
        return [COST]

    monkeypatch.setattr(variants, "measure", measure)
    plan, kept = BenchPlan(repeats=1), tmp_path / "costs.json"
    assert costs_of(exported, [TEST.texts], plan, kept) == [COST]
    assert costs_of(exported, [TEST.texts], plan, kept) == [COST] and len(asked) == 1
    for texts, again in (([TEST.texts[:2]], plan), ([TEST.texts], BenchPlan(repeats=2))):
        costs_of(exported, texts, again, kept)
    kept.write_text(json.dumps({"of": "this", "rows": []}))
    costs_of(exported, [TEST.texts], plan, kept)
    assert len(asked) == 4


def test_a_point_has_the_score_of_all_examples_and_its_costs(variant, tmp_path):
    exported = export_variant(variant, tmp_path, TEST)
    rng = np.random.default_rng(0)
    classes, labels, teacher = rng.integers(0, 2, (3, 400))
    object.__setattr__(exported, "classes_N", classes)
    point = point_of(exported, COST, labels, teacher)
    assert point.score == np.mean(classes == labels)
    assert point.agreement == np.mean(classes == teacher)
    half = 1.96 * np.sqrt(point.score * (1 - point.score) / 400)
    assert point.high - point.low == pytest.approx(2 * half, rel=0.15)
    assert (point.model, point.variant, point.p50_ms, point.p95_ms) == ("m", "as is", 1.0, 2.0)
    assert (point.parameters, point.bytes_on_disk, point.peak_bytes) == (10, 20, 30)
