"""Heads for other tasks than one class say what PyTorch says, and are told apart by what they say
of themselves."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest
from kin_cases import rows, write_folder

from distill_jax.core.errors import UserError
from distill_jax.core.types import as_batch
from distill_jax.models.build import build_model
from distill_jax.models.huggingface import load_pretrained

GOLDEN = json.loads((Path(__file__).parent / "golden" / "heads.json").read_text("utf-8"))["cases"]
NAMES = {
    "question_answering": ("start", "end"),
    "token_classification": ("O", "B-x", "I-x"),
    "regression": None,
    "multi_label_classification": ("joy", "anger"),
}


@pytest.mark.parametrize("head", GOLDEN)
def test_logits_are_pytorch_s(head, tmp_path):
    case = GOLDEN[head]
    folder = write_folder(tmp_path / "hub", case["config"], case["shapes"])
    loaded = load_pretrained(folder, heads=(head,))
    assert loaded.label_names == NAMES[head] and not loaded.fresh
    model = build_model(loaded.config)
    longest = max(len(row["ids"]) for row in rows("bert"))
    padded = [
        [(row[key] + [0] * longest)[:longest] for row in rows("bert")] for key in ("ids", "types")
    ]
    where = np.array([[n < len(row["ids"]) for n in range(longest)] for row in rows("bert")])
    batch = as_batch(np.int32(padded[0]), where, np.int32(padded[1]))
    said = jax.jit(model.apply)({"params": loaded.params}, batch).logits_BC
    for own, expected, row in zip(np.asarray(said), case["said"], rows("bert"), strict=True):
        own = own[: len(row["ids"])] if own.ndim == 2 else own
        np.testing.assert_allclose(own, expected, atol=1e-4)
    for other in GOLDEN.keys() - {head}:
        with pytest.raises(UserError, match=f"has a head for '{head}'.*{other}"):
            load_pretrained(folder, heads=(other,))
