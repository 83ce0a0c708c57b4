"""A finished student of images: what can be done to it is done, the rest refuses by name."""

import numpy as np
import pytest
from compressed import compressed, finished
from digit_tables import digit_sweep

from distill_jax.core.errors import UserError
from distill_jax.engine.sweep import axis
from distill_jax.evaluation.open_images import open_images
from distill_jax.models.build import load_model
from distill_jax.training.pruning import sparsity


@pytest.fixture(scope="module")
def run(patched, tmp_path_factory):
    """The folder of a small CNN that learnt digits."""
    sweep = digit_sweep(["kl"], axis("student", ["cnn-2-4"]), steps=30, seeds=(0,))
    return finished(sweep, tmp_path_factory.mktemp("digits"))


def test_it_is_pruned_and_distilled(run, tmp_path):
    result, _ = compressed(run, "prune(0.5) -> distil(steps=4)", tmp_path)
    assert [hop.kept for hop in result.hops] == [True] * 3
    for hop in result.hops[1:]:
        assert sparsity(load_model(hop.folder / "model").params) == pytest.approx(0.5, abs=0.02)
    answers = open_images(result.hops[-1].folder).classify(np.zeros((2, 8, 8), np.uint8))
    assert answers[0] == answers[1] and answers[0].label in "0123456789"


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ("int8", "int8 is for BERTs"),
        ("drop(heads=0.5)", "drop is for BERTs"),
        ("vocabulary", "vocabulary is for students of texts"),
    ],
)
def test_what_is_for_texts_says_so(run, tmp_path, steps, message):
    with pytest.raises(UserError, match=message):
        compressed(run, steps, tmp_path)
