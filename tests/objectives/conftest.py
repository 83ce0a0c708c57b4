"""Two small models that consist of free arrays: every array a loss can read is a parameter."""

import dataclasses

import jax
import numpy as np
import pytest

from distill_jax.core.types import Batch, ModelOutput, ModelShape

STUDENT = ModelShape(num_layers=2, hidden_size=8, num_heads=2, num_labels=4)
TEACHER = ModelShape(num_layers=4, hidden_size=12, num_heads=3, num_labels=4)
B, T = 6, 5


def make_output(shape, seed, dtype=np.float32):
    """Random outputs of a model of that shape, for 6 examples of 5 tokens."""
    rng = np.random.default_rng(seed)

    def normal(*sizes):
        return rng.normal(size=sizes).astype(dtype)

    layers = range(1, shape.num_layers + 1)
    width, heads = shape.hidden_size, shape.num_heads
    vectors = [{i: normal(B, T, heads, width // heads) for i in layers} for _ in range(3)]
    scores = {i: normal(B, heads, T, T) for i in layers}
    return ModelOutput(
        logits_BC=normal(B, shape.num_labels),
        hidden_states={i: normal(B, T, width) for i in range(shape.num_layers + 1)},
        attention_scores=scores,
        attention_probs={i: np.exp(score) for i, score in scores.items()},
        queries=vectors[0],
        keys=vectors[1],
        values=vectors[2],
    )


def make_batch(labelled=4, rows=5):
    """Six rows: ``rows`` real ones, the first ``labelled`` with labels; some tokens are masked."""
    index = np.arange(B)
    where = (np.arange(T)[None] < (T - index % 3)[:, None]) & (index < rows)[:, None]
    return Batch(
        example_ids_B=np.where(index < rows, index + 100, -1).astype(np.int32),
        input_ids_BT=np.zeros((B, T), np.int32),
        token_type_ids_BT=np.zeros((B, T), np.int32),
        where_BT=where,
        labels_B=np.where(index < labelled, index % 4, -1).astype(np.int32),
        label_where_B=index < labelled,
    )


@dataclasses.dataclass(frozen=True)
class World:
    """A student's and a teacher's shape, their outputs, a batch."""

    student_shape: ModelShape
    teacher_shape: ModelShape
    student: ModelOutput
    teacher: ModelOutput
    batch: Batch
    make_output = staticmethod(make_output)
    make_batch = staticmethod(make_batch)


@pytest.fixture(scope="session")
def world():
    """The usual pair of models."""
    outputs = make_output(STUDENT, 1), make_output(TEACHER, 2)
    outputs = jax.tree.map(np.asarray, outputs)
    return World(STUDENT, TEACHER, *outputs, make_batch())
