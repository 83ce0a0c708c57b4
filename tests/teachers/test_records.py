"""Records hold what was said, of real tokens only, and cannot be misread."""

import hypothesis.extra.numpy as arrays_of
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import logsumexp, softmax

from distill_jax.core.errors import UserError
from distill_jax.core.types import Capture, ModelOutput
from distill_jax.teachers.records import (
    batch_arrays,
    decode,
    dense_logits,
    encode,
    example_arrays,
    fill_tokens,
    keep_top,
    names_of,
    padded_zeros,
    tokens_of,
)

DTYPES = ("float32", "float16", "bfloat16")
ROUNDING = {"float32": 0.0, "float16": 2.0**-11, "bfloat16": 2.0**-8}
"""Half a unit in the last place; of 1 for normal numbers."""
layers = st.lists(st.integers(0, 12), max_size=2, unique=True).map(lambda some: tuple(sorted(some)))
captures = st.builds(
    Capture,
    hidden_states=layers,
    attention_scores=layers,
    attention_probs=layers,
    queries=layers,
    values=layers,
)


def spoken(capture, batch_size, length, seed=0, heads=3, classes=4):
    """A random output with what the capture names."""
    rng = np.random.default_rng(seed)
    square = (batch_size, heads, length, length)
    shapes = {
        "hidden_states": (batch_size, length, 6),
        "attention_scores": square,
        "attention_probs": square,
    }
    parts = {
        kind: {
            layer: rng.normal(size=shapes.get(kind, (batch_size, length, heads, 2))).astype("f4")
            for layer in getattr(capture, kind)
        }
        for kind in vars(capture)
    }
    return ModelOutput(logits_BC=rng.normal(size=(batch_size, classes)).astype("f4"), **parts)


@given(
    captures,
    st.sampled_from(DTYPES),
    st.lists(st.integers(1, 7), min_size=1, max_size=4),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
)
def test_a_round_trip_gives_the_real_tokens_back(capture, dtype, lengths, example_id):
    length = max(lengths) + 1
    batch = batch_arrays(spoken(capture, len(lengths), length), capture)
    for row, tokens in enumerate(lengths):
        kept = example_arrays(batch, row, tokens, dtype=dtype, top_k=None, example_id=example_id)
        told, arrays = decode(encode(example_id, kept))
        assert told == example_id
        np.testing.assert_array_equal(dense_logits(arrays), batch["logits"][row])
        assert arrays.keys() == {"logits", *(name for _, _, name in names_of(capture))}
        for _, _, name in names_of(capture):
            assert arrays[name].dtype.name == dtype
            assert {*tokens_of(name, arrays[name])} == {tokens}
            out = padded_zeros(name, arrays[name], 1, length + 2)[0]
            fill_tokens(arrays[name], name, out)
            whole = batch[name][row]
            said = whole[:, :tokens, :tokens] if "attention" in name else whole[:tokens]
            inside = out[:, :tokens, :tokens] if "attention" in name else out[:tokens]
            np.testing.assert_allclose(inside, said, rtol=ROUNDING[dtype], atol=1e-7)
            assert np.count_nonzero(out) == np.count_nonzero(inside)


@given(
    arrays_of.arrays(np.float32, st.integers(2, 40), elements=st.floats(-30, 30, width=32)),
    st.data(),
)
def test_top_k_keeps_probabilities_and_the_mass_of_the_rest(logits_C, data):
    k = data.draw(st.integers(1, len(logits_C) - 1))
    kept = keep_top(logits_C, k)
    _, arrays = decode(encode("one", kept))
    dense_C = dense_logits(arrays).astype(np.float64)
    whole_C = softmax(logits_C.astype(np.float64))
    top = arrays["top_ids"]
    assert dense_C.shape == logits_C.shape
    assert len(set(top.tolist())) == k
    assert logits_C[top].min() >= np.delete(logits_C, top).max()
    np.testing.assert_allclose(softmax(dense_C)[top], whole_C[top], rtol=1e-5)
    tail = np.delete(softmax(dense_C), top)
    np.testing.assert_allclose(tail, np.delete(whole_C, top).mean(), rtol=1e-5)
    np.testing.assert_allclose(logsumexp(dense_C), logsumexp(logits_C), atol=1e-5)


def test_few_classes_are_kept_whole():
    batch = {"logits": np.asarray([[1, 2, 3]], np.float32)}
    for top_k, whole in ((2, False), (3, True), (9, True), (None, True)):
        kept = example_arrays(batch, 0, 1, dtype="float32", top_k=top_k, example_id="one")
        assert ("logits" in kept) == whole


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("value", [1e39, np.inf, np.nan, -1e6])
def test_values_that_do_not_fit_are_refused(dtype, value):
    with np.errstate(over="ignore"):
        hidden = np.full((1, 2, 3), value, np.float32)
    batch = {"logits": np.zeros((1, 2), np.float32), "hidden_states/1": hidden}
    fits = value == -1e6 and dtype != "float16"
    if fits:
        example_arrays(batch, 0, 2, dtype=dtype, top_k=None, example_id="one")
        return
    with pytest.raises(UserError, match=f"hidden_states/1 of example 'one' .* {dtype} cannot hold"):
        example_arrays(batch, 0, 2, dtype=dtype, top_k=None, example_id="one")


def test_padding_may_hold_anything():
    hidden = np.zeros((1, 2, 3), np.float32)
    hidden[0, 1] = np.nan
    batch = {"logits": np.zeros((1, 2), np.float32), "hidden_states/1": hidden}
    kept = example_arrays(batch, 0, 1, dtype="float16", top_k=None, example_id="one")
    assert kept["hidden_states/1"].shape == (1, 3)


def test_logits_that_are_not_finite_are_refused():
    batch = {"logits": np.asarray([[0, np.nan]], np.float32)}
    with pytest.raises(UserError, match="logits of example 'one' are not finite"):
        example_arrays(batch, 0, 1, dtype="float32", top_k=None, example_id="one")


@given(st.binary(max_size=200))
def test_other_bytes_are_no_record(payload):
    with pytest.raises(ValueError, match="not a record"):
        decode(payload)


@given(st.data())
def test_a_changed_record_is_refused_or_read_as_arrays(data):
    """A digest is checked elsewhere; here nothing but ``ValueError`` comes out."""
    payload = bytearray(encode("one", {"logits": np.arange(3, dtype=np.float32)}))
    for _ in range(data.draw(st.integers(1, 3))):
        payload[data.draw(st.integers(0, len(payload) - 1))] ^= data.draw(st.integers(1, 255))
    cut = data.draw(st.integers(0, len(payload)))
    try:
        _, arrays = decode(bytes(payload[:cut]) if data.draw(st.booleans()) else bytes(payload))
        dense_logits(arrays)
    except ValueError:
        return
    assert all(isinstance(array, np.ndarray) for array in arrays.values())
