"""Known bugs of public distillation code, a test for each that concerns objectives."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from distill_jax.core.errors import UserError
from distill_jax.core.types import Capture
from distill_jax.objectives import parse
from distill_jax.objectives.resolve import resolve


def total_of(text, world, batch=None):
    resolved = resolve(text, world.student_shape, world.teacher_shape)
    params = resolved.init_params(jax.random.key(0))
    batch = batch or world.batch
    return float(resolved(params, resolved.numbers(0, 1), world.student, world.teacher, batch)[0])


def test_trap_01_the_total_is_linear_in_the_weights_up_to_their_ends(world):
    """No branch changes its scale when alpha reaches 0 or 1."""
    kl, ce = total_of("kl(T=4)", world), total_of("ce", world)
    for alpha in (0, 1e-7, 0.3, 1 - 1e-7, 1):
        got = total_of(f"{1 - alpha}*kl(T=4) + {alpha}*ce", world)
        np.testing.assert_allclose(got, (1 - alpha) * kl + alpha * ce, rtol=1e-5)


def test_trap_09_hidden_state_0_is_the_embeddings_and_attention_starts_at_layer_1(world):
    shapes = world.student_shape, world.teacher_shape
    assert resolve("hidden_mse", *shapes).student_capture.hidden_states == (1, 2)
    assert resolve("embedding_mse", *shapes).student_capture.hidden_states == (0,)
    assert resolve("hidden_mse(embeddings=True)", *shapes).teacher_capture.hidden_states == (
        0,
        2,
        4,
    )
    last = resolve("hidden_mse(layers={2: 4}) + attention_kl(layers={2: 4})", *shapes)
    assert last.teacher_capture == Capture(hidden_states=(4,), attention_scores=(4,))
    with pytest.raises(UserError, match="no layer 0"):
        resolve("attention_kl(layers={0: 0})", *shapes)


def test_trap_10_a_layer_map_keeps_its_pairs_in_the_order_given(world):
    text = "hidden_mse(layers={2: 1, 1: 4})"
    assert str(parse(text)) == text
    resolved = resolve(text, world.student_shape, world.teacher_shape)
    assert resolved.terms[0].readers[0].pairs == ((2, 1), (1, 4))
    assert "2<-1, 1<-4" in resolved.structure
    # Sorting one side alone would pair 1 with 1 and 2 with 4: another loss.
    assert total_of("cka(layers={2: 1, 1: 4})", world) != total_of(
        "cka(layers={1: 1, 2: 4})", world
    )


@pytest.mark.parametrize(
    "text",
    ["hidden_mse", "hint", "pkd", "fsp", "vid", "crd", "hidden_contrastive", "hidden_cosine"],
)
def test_trap_12_every_own_parameter_gets_a_gradient(text, world):
    check_gradients(text, world)


@pytest.mark.parametrize("text", ["expert_hints", "hierarchical_topology"])
def test_trap_12_every_expert_and_the_choice_get_a_gradient(text, world):
    check_gradients(text, world)


def check_gradients(text, world):
    resolved = resolve(text, world.student_shape, world.teacher_shape)
    params = resolved.init_params(jax.random.key(0))
    assert jax.tree.leaves(params)

    def value(params):
        args = resolved.numbers(0, 1), world.student, world.teacher, world.batch
        return resolved(params, *args)[0]

    grads = jax.jit(jax.grad(value))(params)
    for path, leaf in jax.tree_util.tree_leaves_with_path(grads):
        assert np.all(np.isfinite(leaf)) and np.any(np.asarray(leaf) != 0), path


def test_trap_13_micro_batches_with_unequal_counts_add_up_to_the_batch(world):
    """Sums over sums, not a mean of means: values and gradients."""
    resolved = resolve("0.7*kl(T=2) + 0.3*ce", world.student_shape, world.teacher_shape)
    numbers = resolved.numbers(0, 1)

    def value(student, rows, counts=None):
        def cut(x):
            return jnp.asarray(x)[rows]

        outputs = student.replace(logits_BC=student.logits_BC[rows])
        teacher = world.teacher.replace(logits_BC=jnp.asarray(world.teacher.logits_BC)[rows])
        batch = jax.tree.map(cut, world.batch)
        total, parts = resolved({}, numbers, outputs, teacher, batch)
        if counts is None:
            return total
        return sum(numbers[k]["weight"] * parts[k][0] / count for k, count in counts.items())

    slope = jax.jit(jax.value_and_grad(lambda z, *a: value(world.student.replace(logits_BC=z), *a)))
    logits = jnp.asarray(world.student.logits_BC)
    _, whole_parts = resolved({}, numbers, world.student, world.teacher, world.batch)
    counts = {label: count for label, (_, count) in whole_parts.items()}
    assert {k: float(v) for k, v in counts.items()} == {"kl": 5, "ce": 4}
    whole, whole_grad = slope(logits, np.arange(6))
    # 1 of 4 labels in the first, 3 in the second, none in the third: counts are unequal.
    pieces = [slope(logits, np.array(rows), counts) for rows in ([0], [1, 2, 3], [4, 5])]
    np.testing.assert_allclose(sum(p[0] for p in pieces), whole, rtol=1e-6)
    np.testing.assert_allclose(sum(p[1] for p in pieces), whole_grad, rtol=1e-5, atol=1e-7)
    means = [slope(logits, np.array(rows)) for rows in ([0], [1, 2, 3], [4, 5])]
    assert abs(sum(m[0] for m in means) / 3 - whole) > 1e-3


def test_trap_20_a_typo_is_an_error_and_not_ignored():
    for text in ("kl(temperature=4)", "hidden_mse(layer='last')", "ce(smoothing=0.1)", "kll"):
        with pytest.raises(UserError, match="unknown"):
            parse(text)


def test_trap_22_a_regression_head_is_refused_by_losses_that_would_ignore_the_teacher(world):
    shapes = [
        dataclasses.replace(s, num_labels=1) for s in (world.student_shape, world.teacher_shape)
    ]
    for name in ("kl", "soft_ce", "ce", "dkd", "js", "cosine_logits", "listnet"):
        with pytest.raises(UserError, match=r"1 output|only 1"):
            resolve(name, *shapes)
    for name in ("mse_regression", "mse_logits", "hidden_mse", "bce"):
        assert resolve(name, *shapes).needs_teacher
