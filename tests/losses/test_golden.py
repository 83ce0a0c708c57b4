"""Values and gradients computed once by hand-written PyTorch (golden/make_golden.py)."""

import json
from pathlib import Path

import numpy as np
import pytest

from distill_jax import losses

GOLDEN = json.loads((Path(__file__).parent / "golden" / "golden.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("entry", GOLDEN["entries"], ids=lambda entry: entry["loss"])
def test_values_and_gradients_are_those_of_pytorch(entry, bench):
    tensors = {key: np.asarray(value) for key, value in entry["tensors"].items()}
    if "labels" in tensors:
        tensors["labels"] = tensors["labels"].astype(np.int32)
    where = tensors.pop("where", None)
    alpha = tensors.pop("alpha", None)
    loss = getattr(losses, entry["loss"])
    student = np.asarray(entry["student"])
    args = list(tensors.values())
    times = 1
    if entry["loss"] == "minilm_v2":  # PyTorch has one of the three equal relations
        student, args, times = (student,) * 3, [(args[0],) * 3], 3
    hyper = dict(entry["options"]) | ({} if alpha is None else {"alpha": alpha})
    values, grads = bench(loss, student, *args, where=where, **hyper)
    np.testing.assert_allclose(values / times, entry["values"], rtol=1e-9, atol=1e-12)
    grad = grads[0] if isinstance(grads, tuple) else grads
    np.testing.assert_allclose(grad, entry["gradient"], rtol=1e-8, atol=1e-11)
