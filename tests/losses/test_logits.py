"""Divergences of logits against formulas in plain loops."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import released

from distill_jax import losses
from distill_jax.losses import numeric


def softmax(logits, T=1.0):
    """Probabilities by the definition, the largest logit taken off first."""
    top = max(logits)
    odds = [math.exp((z - top) / T) for z in logits]
    return [o / sum(odds) for o in odds]


def divergence(p, q):
    """KL(p || q), with 0 log 0 = 0."""
    return sum(a * (math.log(a) - math.log(b)) for a, b in zip(p, q, strict=True) if a > 0)


def mix(p, q, share):
    """share * p + (1 - share) * q."""
    return [share * a + (1 - share) * b for a, b in zip(p, q, strict=True)]


def over_examples(formula):
    """An oracle for a batch from a formula for one example's probabilities."""

    def oracle(student, teacher, *, where, **hyper):
        values = np.zeros(where.shape)
        for place in np.ndindex(where.shape):
            if where[place]:
                values[place] = formula(list(student[place]), list(teacher[place]), **hyper)
        return values

    return oracle


def soft_ce(s, t, T=1.0):
    pairs = zip(softmax(s, T), softmax(t, T), strict=True)
    return -(T**2) * sum(b * math.log(a) for a, b in pairs if b > 0)


def soft_ce_released(s, t, T, variant):
    return released.tinybert_soft_cross_entropy(np.array(s), np.array(t), T)


def generalized_jsd_released(s, t, beta, T, variant):
    return released.trl_0_11_3(np.array(s), np.array(t), beta, T)


def generalized_jsd(s, t, beta=0.5, T=1.0):
    p, q = softmax(t, T), softmax(s, T)
    m = mix(p, q, beta)
    return T**2 * (beta * divergence(p, m) + (1 - beta) * divergence(q, m))


def skew_kl(s, t, alpha=0.1, T=1.0):
    p, q = softmax(t, T), softmax(s, T)
    return T**2 * divergence(p, mix(p, q, alpha))


def skew_reverse_kl(s, t, alpha=0.1, T=1.0):
    p, q = softmax(t, T), softmax(s, T)
    return T**2 * divergence(q, mix(q, p, alpha))


def topk_kl(s, t, k=10, T=1.0):
    p, q = softmax(t, T), softmax(s, T)
    best = sorted(range(len(t)), key=lambda c: (-t[c], c))[:k]
    rest = [c for c in range(len(t)) if c not in best]
    total = divergence([p[c] for c in best], [q[c] for c in best])
    if rest:
        total += divergence([sum(p[c] for c in rest)], [sum(q[c] for c in rest)])
    return T**2 * total


def kl(s, t, T=1.0):
    return T**2 * divergence(softmax(t, T), softmax(s, T))


CASES = {
    "kl": (losses.kl, kl, {"T": 2.5}),
    "reverse_kl": (losses.reverse_kl, lambda s, t, T: kl(t, s, T), {"T": 0.7}),
    "jeffreys": (losses.jeffreys, lambda s, t, T: kl(s, t, T) + kl(t, s, T), {"T": 1.3}),
    "js": (losses.js, lambda s, t, T: generalized_jsd(s, t, 0.5, T), {"T": 2.0}),
    "soft_ce": (losses.soft_ce, soft_ce, {"T": 2.0}),
    "soft_ce_released": (
        losses.soft_ce,
        soft_ce_released,
        {"T": 2.0, "variant": "as_released"},
    ),
    "generalized_jsd": (losses.generalized_jsd, generalized_jsd, {"beta": 0.2, "T": 1.5}),
    "generalized_jsd_released": (
        losses.generalized_jsd,
        generalized_jsd_released,
        {"beta": 0.2, "T": 1.5, "variant": "as_released"},
    ),
    "skew_kl": (losses.skew_kl, skew_kl, {"alpha": 0.3, "T": 2.0}),
    "skew_reverse_kl": (losses.skew_reverse_kl, skew_reverse_kl, {"alpha": 0.3, "T": 2.0}),
    "topk_kl": (losses.topk_kl, topk_kl, {"k": 3, "T": 2.0}),
    "tvd": (
        losses.tvd,
        lambda s, t: sum(abs(a - b) for a, b in zip(softmax(s), softmax(t), strict=True)) / 2,
        {},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_values_and_gradients_are_those_of_the_formula(case, bench, rng):
    loss, formula, hyper = CASES[case]
    oracle = over_examples(formula)
    student, teacher = rng.normal(size=(2, 2, 3, 5)) * 2
    student[0, 1], teacher[0, 1] = student[0, 0], teacher[0, 0]  # a duplicate
    student[1, 1] = np.nan  # masked: must not matter
    where = np.array([[True, True, True], [True, False, True]])
    bench.check(loss, oracle, student, teacher, where=where, **hyper)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("spread", [1e-3, 30.0])
def test_values_are_those_of_the_formula_at_other_spreads(case, spread, bench, rng):
    loss, formula, hyper = CASES[case]
    student, teacher = rng.normal(size=(2, 2, 3, 5)) * spread
    where = np.ones((2, 3), bool)
    bench.check(loss, over_examples(formula), student, teacher, where=where, entries=0, **hyper)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("classes", [2, 1000])
def test_few_and_many_classes_in_a_batch_of_one(case, classes, bench, rng):
    loss, formula, hyper = CASES[case]
    student, teacher = rng.normal(size=(2, 1, classes)) * 3
    where = np.ones(1, bool)
    bench.check(loss, over_examples(formula), student, teacher, where=where, entries=4, **hyper)


@pytest.mark.parametrize("case", CASES)
def test_a_class_that_both_exclude_does_not_matter(case, bench, rng):
    loss, formula, hyper = CASES[case]
    student, teacher = rng.normal(size=(2, 2, 3, 5))
    where = np.ones((2, 3), bool)
    without = over_examples(formula)(student[..., :4], teacher[..., :4], where=where, **hyper)
    if case == "soft_ce_released":  # a mean over classes counts the excluded one
        without = without * 4 / 5
    student[..., 4] = teacher[..., 4] = -np.inf
    values, grads = bench(loss, student, teacher, where=where, **hyper)
    np.testing.assert_allclose(values, without, rtol=1e-9, atol=1e-12)
    np.testing.assert_array_equal(grads[..., 4], 0)


@pytest.mark.parametrize("case", CASES)
def test_certain_teachers_and_students(case, bench):
    """Logits of +-1e4: probabilities of exactly 0 and 1."""
    loss, formula, hyper = CASES[case]
    student = np.array([[[1e4, -1e4, 0, 3, 1], [1e4, 1e4, -1e4, 0, 2], [0, 1, 2, 3, 4.0]]] * 2)
    teacher = np.array([[[1e4, -1e4, 0, 3, 1], [1e4, -1e4, 0, 3, 1], [1e4, -1e4, 0, 3, 1]]] * 2)
    where = np.ones((2, 3), bool)
    values, grads = bench(loss, student, teacher, where=where, **hyper)
    assert np.all(np.isfinite(values)) and np.all(np.isfinite(grads))
    if case not in ("reverse_kl", "jeffreys"):  # there q > 0 = p is infinite in exact arithmetic
        part = student[:, 1:], teacher[:, 1:]
        expected = over_examples(formula)(*part, where=where[:, 1:], **hyper)
        np.testing.assert_allclose(values[:, 1:], expected, rtol=1e-9)
    agreeing = 0 if not case.startswith("soft_ce") else values[:, 0]
    np.testing.assert_allclose(values[:, 0], agreeing, atol=1e-9)


def test_a_student_that_excludes_what_the_teacher_likes_pays_a_large_finite_price(bench):
    student = np.array([[-np.inf, 0.0, 1.0]])
    teacher = np.array([[2.0, 0.0, 1.0]])
    values, grads = bench(losses.kl, student, teacher, T=1.0)
    assert 1e8 < values[0] < 1e10 and np.all(np.isfinite(grads))


def test_topk_kl_is_kl_when_the_tail_is_one_class_or_none(bench, rng):
    student, teacher = rng.normal(size=(2, 4, 5))
    full, _ = bench(losses.kl, student, teacher, T=2.0)
    for k in (4, 5, 9):
        values, _ = bench(losses.topk_kl, student, teacher, k=k, T=2.0)
        np.testing.assert_allclose(values, full, rtol=1e-9, atol=1e-12)


def test_skewed_divergences_without_skew_are_plain_ones(bench, rng):
    student, teacher = rng.normal(size=(2, 4, 5))
    pairs = ((losses.skew_kl, losses.kl), (losses.skew_reverse_kl, losses.reverse_kl))
    for skewed, plain in pairs:
        got = bench(skewed, student, teacher, alpha=0.0, T=2.0)
        for one, other in zip(got, bench(plain, student, teacher, T=2.0), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-12)


def test_unknown_variants_and_shapes_that_do_not_fit_are_refused():
    z = np.zeros((2, 3), np.float32)
    with pytest.raises(ValueError, match="variant"):
        losses.soft_ce(z, z, variant="as_relesed")
    with pytest.raises(ValueError, match="teacher"):
        losses.kl(z, z[:, :2])
    with pytest.raises(ValueError, match="where has shape"):
        losses.kl(z, z, where=np.ones((3,), bool))
    with pytest.raises(ValueError, match="where must be bool"):
        losses.kl(z, z, where=np.ones((2,), np.float32))
    with pytest.raises(ValueError, match="k must be"):
        losses.topk_kl(z, z, k=0)


FEW_AND_MANY = {"kl": (losses.kl, 1), "reverse_kl": (losses.reverse_kl, -1)}
"""Which side comes first in KL(first || second): the teacher, or the student."""


@pytest.mark.parametrize("name", FEW_AND_MANY)
@pytest.mark.parametrize("classes", [2, numeric.MANY - 1])
def test_with_few_classes_it_is_to_the_bit_the_kl_of_log_probabilities(name, classes, rng):
    """What is on record with two classes came out of this."""
    loss, order = FEW_AND_MANY[name]
    student, teacher = np.float32(rng.normal(size=(2, 16, classes)))

    def written_out(student, teacher, T):
        pair = [numeric.log_probs(x, T) for x in (teacher, student)][::order]
        return T**2 * numeric.kl_of_log_probs(*pair)

    def results(function):
        def total(student):
            return jnp.sum(function(student, teacher, T=np.float32(2)))

        return jax.jit(jax.value_and_grad(total))(student)

    jax.tree.map(np.testing.assert_array_equal, results(loss), results(written_out))


@pytest.mark.parametrize("name", FEW_AND_MANY)
def test_with_many_classes_it_is_the_formula_and_small_ones_are_exact(name, bench, rng):
    loss, order = FEW_AND_MANY[name]
    classes = numeric.MANY
    student, teacher = rng.normal(size=(2, 2, 3, classes)) * 2
    student[0, 0, :5] = teacher[0, 0, :5] = -np.inf
    where = np.array([[True, True, True], [True, False, True]])
    student[1, 1] = np.nan  # masked: must not matter
    formula = over_examples(lambda s, t, T: kl(*(s, t)[::order], T))
    bench.check(loss, formula, student, teacher, where=where, T=2.5)

    teacher = np.float32(rng.normal(size=(8, classes)))
    near = np.float32(teacher * (1 + 1e-3 * rng.normal(size=teacher.shape)))
    got, slope = bench(loss, near, teacher, wide=False)
    right, right_slope = bench(loss, np.float64(near), np.float64(teacher))
    assert right.max() < 1e-5
    np.testing.assert_allclose(got, right, rtol=5e-3)
    np.testing.assert_allclose(slope, right_slope, atol=1e-3 * np.abs(right_slope).max())
    np.testing.assert_array_equal(bench(loss, teacher, teacher, wide=False)[0], 0)


@pytest.mark.parametrize("name", FEW_AND_MANY)
def test_with_many_classes_both_sides_have_their_gradients(name, rng):
    """The library stops the teacher's; who asks for KL itself gets both, one by one or stacked."""
    p, q = np.float32(rng.normal(size=(2, 3, numeric.MANY)))
    first, second = {"kl": (p, q), "reverse_kl": (q, p)}[name]

    def total(function, p, q):
        return jnp.sum(function(p, q) * jnp.arange(1.0, 4.0))

    def plain(p, q):
        log_p, log_q = jax.nn.log_softmax(p, axis=-1), jax.nn.log_softmax(q, axis=-1)
        return jnp.sum(jnp.exp(log_p) * (log_p - log_q), axis=-1)

    got, expected = (
        jax.grad(partial(total, function), (0, 1))(first, second)
        for function in (numeric.kl_of_logits, plain)
    )
    for own, other in zip(got, expected, strict=True):
        np.testing.assert_allclose(own, other, rtol=1e-4, atol=1e-6)
    stacked = jax.vmap(jax.grad(partial(total, numeric.kl_of_logits), (0, 1)))
    for own, other in zip(stacked(first[None], second[None]), got, strict=True):
        np.testing.assert_allclose(own[0], other, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", FEW_AND_MANY)
def test_with_many_classes_it_holds_no_more_than_a_plain_one(name):
    def plain(student, teacher):
        log_t, log_s = (jax.nn.log_softmax(x, axis=-1) for x in (teacher, student))
        return jnp.sum(jnp.exp(log_t) * (log_t - log_s), axis=-1)

    def held(loss):
        def total(student, teacher):
            return jnp.sum(loss(student, jax.lax.stop_gradient(teacher)))

        logits = jax.ShapeDtypeStruct((64, 30_000), jnp.float32)
        compiled = jax.jit(jax.value_and_grad(total)).lower(logits, logits).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert held(FEW_AND_MANY[name][0]) <= held(plain)
