"""Captures: what is wanted of an output, and nothing else; what outputs share."""

import jax
import jax.numpy as jnp

from distill_jax.core.ranking_types import RankingOutput
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


def test_an_output_is_cut_by_rows_without_what_it_shares():
    items, bias = jnp.ones((5, 2)), jnp.arange(5.0)
    whole = RankingOutput(jnp.ones((3, 4, 2)), items, bias, {1: jnp.zeros((3, 4, 2))})
    rows, shared = whole.split_shared()
    assert {leaf.shape[0] for leaf in jax.tree.leaves(rows)} == {3}
    assert len(jax.tree.leaves(rows)) == 2 and shared["items_ID"] is items
    back = rows.with_shared(shared)
    assert back.items_ID is items and back.item_bias_I is bias
    assert jax.tree.structure(back) == jax.tree.structure(whole)


def test_an_output_that_shares_nothing_is_all_rows():
    rows, shared = output().split_shared()
    assert shared == {}
    assert jax.tree.structure(rows.with_shared(shared)) == jax.tree.structure(output())
