"""The step ``int8`` in a pipeline: after training, calibrated, and trained with the rounding."""

import jax.numpy as jnp
import numpy as np
import pytest
from compressed import compressed

from distill_jax.evaluation.open_classifier import open_classifier
from distill_jax.models.build import load_model
from distill_jax.training.pruning import kernels

TEXTS = ["the film is good", "bad", "the plot was very bad and the music", "good cast"]


@pytest.mark.parametrize(
    ("steps", "arithmetic"),
    [
        ("int8(activations=static)", "int8_static"),
        ("prune(0.4) -> int8(train=true, steps=6)", "int8"),
    ],
)
def test_what_is_saved_is_what_was_measured(finished_run, tmp_path, steps, arithmetic):
    result, _ = compressed(finished_run, steps, tmp_path)
    hop = result.hops[-1]
    model = load_model(hop.folder / "model")
    assert model.config.arithmetic == arithmetic
    assert all(kernel.dtype == jnp.int8 for kernel in kernels(model.params).values())
    assert hop.row.metrics["test/accuracy"] > 0.8
    assert hop.row.metrics["sparsity"] >= result.hops[-2].row.metrics["sparsity"]
    opened = open_classifier(hop.folder)
    together = opened.classify(TEXTS)
    for text, answer in zip(TEXTS, together, strict=True):
        (alone,) = opened.classify([text])
        assert alone.probabilities == pytest.approx(answer.probabilities, abs=1e-6)
    held = "input_scale" in model.params["layer_1"]["output"]
    assert held == (arithmetic == "int8_static")
    if held:
        assert np.asarray(model.params["layer_1"]["output"]["input_scale"]).shape == (1,)
