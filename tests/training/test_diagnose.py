"""What went wrong in a step is found by term, by gradient, and by example."""

from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

from distill_jax.core.types import Batch, Capture
from distill_jax.training.diagnose import explain, make_diagnostics
from distill_jax.training.step import StepNumbers

IDS = tuple(f"id{n}" for n in range(20))
NUMBERS = StepNumbers(objective={}, learning_rate=np.float32(0), seed=np.uint32(0))


class Stub:
    """An objective of terms that are functions of logits [B, C]; sums over real examples."""

    student_capture = Capture()

    def __init__(self, **terms):
        self.functions = terms
        self.terms = [SimpleNamespace(label=label) for label in terms]

    def __call__(self, params, numbers, student, teacher, batch):
        parts = {}
        for label, function in self.functions.items():
            values_B = function(student.logits_BC, batch)
            total = jnp.sum(jnp.where(batch.where_B, values_B, 0))
            parts[label] = total, jnp.sum(batch.where_B, dtype=jnp.float32)
        return sum(total for total, _ in parts.values()), parts


def fine(logits_BC, batch):
    return logits_BC[:, 0]


def nan_for(example):
    def function(logits_BC, batch):
        return jnp.where(batch.example_ids_B == example, jnp.nan, logits_BC[:, 0])

    return function


def root(logits_BC, batch):
    """0 for example 7, with an infinite slope there; logits are 1."""
    return jnp.sqrt(logits_BC[:, 0] - (batch.example_ids_B == 7).astype(jnp.float32))


def together(logits_BC, batch):
    """Infinite where examples 3 and 9 meet."""
    both = jnp.any(batch.example_ids_B == 3) & jnp.any(batch.example_ids_B == 9)
    return jnp.where(both, jnp.inf, logits_BC[:, 0])


@pytest.fixture
def said(student):
    def explained(**terms):
        rows_B = np.asarray([3, 7, 9, 11, 2, -1, -1, -1], np.int32)
        tokens_BT = np.ones((8, 4), np.int32)
        batch = Batch(
            example_ids_B=rows_B,
            input_ids_BT=tokens_BT,
            token_type_ids_BT=np.zeros_like(tokens_BT),
            where_BT=np.broadcast_to((rows_B >= 0)[:, None], (8, 4)),
            labels_B=np.zeros(8, np.int32),
            label_where_B=rows_B >= 0,
        )
        model, params = student
        positive = dict(
            params,
            classifier={
                "kernel": params["classifier"]["kernel"] * 0,
                "bias": params["classifier"]["bias"] * 0 + 1,
            },
        )
        trained = {"student": positive, "losses": {}}
        return explain(
            make_diagnostics(model, Stub(**terms)), trained, 4, batch, None, NUMBERS, IDS
        )

    return explained


def test_the_term_and_the_example(said):
    assert said(kl=nan_for(9), ce=fine) == "kl not finite on example id9"


def test_several(said):
    told = said(kl=nan_for(9), ce=nan_for(2))
    assert told == "ce, kl not finite on examples id9, id2"


def test_a_gradient(said):
    assert said(ce=fine, root=root) == "root (gradient) not finite on example id7"


def test_examples_that_go_wrong_only_together(said):
    told = said(rkd=together)
    assert told.startswith("rkd not finite on examples ") and "id3" in told and "id9" in told


def test_what_cannot_be_reproduced_names_the_batch(said):
    told = said(ce=fine)
    assert told == (
        "loss or gradients not finite, though not when computed again, on examples "
        "id3, id7, id9, id11, id2"
    )
