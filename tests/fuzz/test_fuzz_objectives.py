"""Any text is an objective or a clean error; what is one comes back as it went in."""

import jax
import jax.numpy as jnp
import pytest
from damages import damaged_text, told
from hypothesis import example, given, settings
from hypothesis import strategies as st

from distill_jax.core.types import Batch, ModelOutput, ModelShape
from distill_jax.objectives.grammar import parse
from distill_jax.objectives.registry import lookup, names
from distill_jax.objectives.resolve import resolve

SHAPES = st.builds(
    lambda layers, heads, size, labels: ModelShape(layers, heads * size, heads, labels),
    st.integers(1, 6),
    st.integers(1, 3),
    st.sampled_from([1, 4, 6]),
    st.integers(1, 4),
)
VALUES = (
    "0", "1", "-1", "0.5", "1e-320", "1e29", "1e31", "1e400", "9" * 400, "0x10", "1_0", "1j",
    "True", "None", "'each'", "'cls'", "'logits'", "'uniform'", "'last'", "'skip'", "b'x'",
    "linear(1, 0)", "cosine(0, 2, start=0.5)", "step({0: 1, 0.5: 0})", "piecewise({})",
    "linear(0, -1)", "[1, 2]", "[]", "(1,)", "[[1]]", "{1: 1}", "{-1: -1}", "{0: 0}", "{1: 9}",
    "{1: 1, 1: 2}", "{**x}", "{}", "x", "x.y", "f(x)", "...", "f'{x}'", "'\\ud800'", "lambda: 0",
)  # fmt: skip
PIECES = (
    *VALUES, "kl", "ce", "hidden_mse", "*", "+", "(", ")", ",", "=", "T=", "layers=", "-", ".",
    "**", " ", "\n", "\t", "#", ";", "é", "\0", "\ud800", "if", "x for x in", "@", ":=", "\\",
    "'", '"', "{", "}", "teachers=", "teacher_weights=", "standardize=",
)  # fmt: skip


def output_of(shape, batch, length):
    """Abstract outputs of a model of this shape."""

    def array(*sizes):
        return jax.ShapeDtypeStruct(sizes, jnp.float32)

    layers = range(1, shape.num_layers + 1)
    size = shape.hidden_size // shape.num_heads
    inner = {n: array(batch, length, shape.num_heads, size) for n in layers}
    square = {n: array(batch, shape.num_heads, length, length) for n in layers}
    hidden = {n: array(batch, length, shape.hidden_size) for n in (0, *layers)}
    logits = array(batch, shape.num_labels)
    return ModelOutput(logits, hidden, square, square, inner, inner, inner)


def batch_of(size, length):
    row = jax.ShapeDtypeStruct((size,), jnp.int32)
    tokens = jax.ShapeDtypeStruct((size, length), jnp.int32)
    where = jax.ShapeDtypeStruct((size, length), jnp.bool)
    return Batch(row, tokens, tokens, where, row, jax.ShapeDtypeStruct((size,), jnp.bool))


def traced(text, student, teacher):
    """As far as the compiler, without it."""
    resolved = everything(text, student, teacher)
    own = jax.eval_shape(resolved.init_params, jax.random.key(0))
    outputs = (output_of(shape, 4, 3) for shape in (student, teacher))
    jax.eval_shape(resolved, own, resolved.numbers(0, 10), *outputs, batch_of(4, 3))


def everything(text, student, teacher):
    """What a sweep does with an objective before anything is compiled."""
    objective = parse(text)
    assert parse(str(objective)) == objective
    resolved = resolve(objective, student, teacher)
    for step in (0, 1, 10):
        resolved.numbers(step, 10)
    jax.eval_shape(resolved.init_params, jax.random.key(0))
    assert resolved.structure and resolved.notes is not None
    assert len(resolved.teacher_captures) == len(resolved.teachers)
    return resolved


@st.composite
def terms(draw):
    """A term with the right words and any values."""
    name = draw(st.sampled_from(names("classes")))
    keys = sorted({*lookup(name).options, "T", "layers", "on"})
    given = draw(st.dictionaries(st.sampled_from(keys), st.sampled_from(VALUES), max_size=3))
    weight = draw(st.one_of(st.just(""), st.sampled_from(VALUES).map("{}*".format)))
    inside = ", ".join(f"{key}={value}" for key, value in given.items())
    return f"{weight}{name}" + (f"({inside})" if inside else "")


@settings(max_examples=250)
@given(st.lists(terms(), min_size=1, max_size=3).map(" + ".join), SHAPES, SHAPES)
def test_right_words_with_any_values(text, student, teacher):
    told(lambda: traced(text, student, teacher))


@settings(max_examples=150)
@given(damaged_text("0.9*kl(T=4) + linear(1, 0)*hint(layers={1: 2})", PIECES), SHAPES)
@example("9" * 400 + "*kl", ModelShape(1, 4, 1, 2))
@example("kl(T=4" + "(" * 300, ModelShape(1, 4, 1, 2))
@example("-" * 3000 + "1*kl", ModelShape(1, 4, 1, 2))
@example("+".join(["kl"] * 900), ModelShape(1, 4, 1, 2))
@example("kl(teachers='\ud800')", ModelShape(1, 4, 1, 2))
@example("\ud800", ModelShape(1, 4, 1, 2))
def test_an_objective_with_damage(text, shape):
    told(lambda: everything(text, shape, shape))


@settings(max_examples=100)
@given(st.one_of(st.text(max_size=40), st.lists(st.sampled_from(PIECES), max_size=12).map("".join)))
def test_any_text(text):
    told(lambda: parse(text))


@pytest.mark.parametrize("teachers", [None, [ModelShape(2, 4, 1, 2)] * 2])
@settings(max_examples=50)
@given(text=st.lists(terms(), min_size=1, max_size=2).map(" + ".join))
def test_no_teacher_and_two(teachers, text):
    told(lambda: everything(text, ModelShape(2, 4, 1, 2), teachers))
