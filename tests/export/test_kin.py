"""Models of other architectures are exported as any: what is written answers as the model does."""

import json
from pathlib import Path

import numpy as np
import pytest
from kin_cases import CASES, write_folder

from distill_jax.export.runtime import open_any
from distill_jax.models.build import load_model
from distill_jax.models.hf_architectures import architecture_of

ROOT = Path(__file__).parents[1]
GOLDEN = json.loads((ROOT / "models/golden/kin.json").read_text("utf-8"))
TEXTS = ["w3 w4 w5", "w9", "w23 w2"]


@pytest.mark.parametrize("model_type", ["roberta", "electra", "mpnet", "mobilebert"])
def test_onnx_says_what_the_model_says(model_type, write_export, tmp_path):
    """Exporting asks both about the same texts and refuses where logits differ by over 1e-4."""
    case = GOLDEN["cases"][model_type]
    folder = write_folder(tmp_path / "model", case["config"], case["shapes"])
    manifest = write_export(folder, "onnx", tmp_path / "onnx")
    opened = open_any(tmp_path / "onnx")
    assert len({answer.label for answer in opened.classify(TEXTS)}) >= 1
    ours = open_any(folder).classify(TEXTS)
    for one, other in zip(opened.classify(TEXTS), ours, strict=True):
        np.testing.assert_allclose(
            list(one.probabilities.values()), list(other.probabilities.values()), atol=1e-4
        )
    assert manifest.source["family"] == ("mobilebert" if model_type == "mobilebert" else "bert_kin")


@pytest.mark.parametrize("model_type", ["distilbert", "mobilebert"])
def test_a_hugging_face_folder_has_their_class(model_type, write_export, tmp_path):
    case = GOLDEN["cases"][model_type]
    folder = write_folder(tmp_path / "model", case["config"], case["shapes"])
    write_export(folder, "hf", tmp_path / "hf")
    raw = json.loads((tmp_path / "hf/config.json").read_text())
    loaded = load_model(tmp_path / "hf")
    assert raw["architectures"] == [architecture_of(loaded.config).class_name]
    assert loaded.digest == load_model(folder).digest
    assert "AutoModelForSequenceClassification" in (tmp_path / "hf/README.md").read_text()
    assert set(CASES) >= {model_type}
