"""A live teacher is in evaluation mode."""

import jax
import numpy as np

from distill_jax.core.types import Capture
from distill_jax.data.plan import PlannedBatch, make_batch
from distill_jax.teachers.live import LiveTeacher

CAPTURE = Capture(hidden_states=(0, 2), attention_scores=(1,), attention_probs=(2,), values=(2,))


def test_trap_05_a_teacher_is_deterministic(teacher, toy_table):
    """Its dropout rate is 0.5, and no rng is given: evaluation mode, or Flax would refuse."""
    batch = make_batch(toy_table, PlannedBatch(np.arange(4, dtype=np.int32), 10), batch_size=4)
    first, second = (LiveTeacher(*teacher, CAPTURE)(batch) for _ in range(2))
    jax.tree.map(np.testing.assert_array_equal, first, second)
    noisy = teacher[0].apply(
        {"params": teacher[1]}, batch, train=True, rngs={"dropout": jax.random.key(0)}
    )
    assert not np.allclose(noisy.logits_BC, first.logits_BC)
