"""Captures: what is wanted of an output, and nothing else."""

import jax
import jax.numpy as jnp

from distill_jax.core.types import Capture, ModelOutput


def output():
    arrays = {layer: jnp.full((2,), float(layer)) for layer in range(4)}
    return ModelOutput(logits_BC=jnp.zeros((2, 3)), hidden_states=arrays, queries=arrays)


def test_select_keeps_the_wanted_layers_and_the_logits():
    chosen = Capture(hidden_states=(0, 2)).select(output())
    assert list(chosen.hidden_states) == [0, 2]
    assert chosen.queries == {}
    assert chosen.logits_BC.shape == (2, 3)


def test_union_is_sorted_and_keeps_both():
    union = Capture(hidden_states=(3, 1)) | Capture(hidden_states=(1, 2), values=(1,))
    assert union == Capture(hidden_states=(1, 2, 3), values=(1,))
    assert hash(union) == hash(Capture(hidden_states=(1, 2, 3), values=(1,)))


def test_outputs_travel_through_jit():
    twice = jax.jit(lambda o: jax.tree.map(lambda a: a * 2, o))(output())
    assert float(twice.hidden_states[3][0]) == 6.0
