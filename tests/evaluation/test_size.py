"""Counts by hand, on arrays and on shapes alone."""

import jax
import jax.numpy as jnp

from distill_jax.evaluation.size import ModelSize, model_size

PARAMS = {
    "embeddings": {"word": jnp.zeros((10, 4)), "norm": {"scale": jnp.zeros(4)}},
    "encoder": [{"kernel": jnp.zeros((4, 4), jnp.bfloat16), "bias": jnp.zeros(())}],
}


def test_counts_by_hand():
    size = model_size(PARAMS)
    assert size == ModelSize(
        parameters=40 + 4 + 16 + 1, embedding_parameters=44, bytes=44 * 4 + 16 * 2 + 4
    )


def test_shapes_are_enough():
    assert model_size(jax.eval_shape(lambda: PARAMS)) == model_size(PARAMS)


def test_embeddings_of_flax_and_of_hugging_face_names_are_found():
    for key in ("embedding", "word_embeddings", "Embeddings"):
        assert model_size({"a": {key: jnp.zeros(3)}}).embedding_parameters == 3
    assert model_size({"dense": jnp.zeros(3)}).embedding_parameters == 0


def test_nothing_has_size_zero():
    assert model_size({}) == ModelSize(0, 0, 0)
