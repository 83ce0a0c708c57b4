"""Laws that hold for all inputs."""

from inspect import getfullargspec

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill_jax import losses

SEEDS = st.integers(0, 2**32 - 1)
TEMPERATURES = st.floats(0.2, 50)
SHARES = st.floats(0.01, 0.99)


def logits(seed, spread=3.0):
    """Student's and teacher's logits [4, 5], some of them large, one class excluded by both."""
    rng = np.random.default_rng(seed)
    student, teacher = rng.normal(size=(2, 4, 5)) * spread
    student[0, 0] += 100
    student[1, 2] = teacher[1, 2] = -np.inf
    return student, teacher


def turned(features, seed):
    """The features after a random rotation or reflection."""
    q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(features.shape[-1],) * 2))
    return features @ q


@given(SEEDS, TEMPERATURES)
def test_a_model_does_not_diverge_from_itself(bench, seed, T):
    _, teacher = logits(seed)
    for loss in (losses.kl, losses.reverse_kl, losses.jeffreys, losses.js):
        values, grads = bench(loss, teacher, teacher, T=T)
        np.testing.assert_allclose(values, 0, atol=1e-9 * T**2)
        np.testing.assert_allclose(grads, 0, atol=1e-9 * T**2)


@given(SEEDS, TEMPERATURES)
def test_divergences_are_never_negative(bench, seed, T):
    for loss in (losses.kl, losses.reverse_kl, losses.jeffreys, losses.js, losses.topk_kl):
        values, _ = bench(loss, *logits(seed), T=T)
        assert np.all(values >= -1e-12 * T**2)


DISTANCES = {
    "kl": 5, "reverse_kl": 5, "jeffreys": 5, "js": 5, "generalized_jsd": 5, "skew_kl": 5,
    "skew_reverse_kl": 5, "tvd": 5, "topk_kl": 3, "dkd": 5, "cosine_logits": 5, "dist": 5,
    "mse_logits": 5, "kl_infinite_temperature": 5, "pkt": 5, "hidden_cosine": (4, 5), "cka": (4, 5),
    "nst": (4, 5), "attention_kl": (2, 4, 4), "value_kl": (4, 2, 3),
}  # fmt: skip
"""Losses that are 0 for a model and itself, and the shape of an example."""


def float32_pair(name, seed, spread, gap):
    rng = np.random.default_rng(seed)
    shape = (64, *np.atleast_1d(DISTANCES[name]))
    teacher = np.float32(rng.normal(size=shape) * spread)
    labels = (rng.integers(0, shape[-1], 64).astype(np.int32),) if name == "dkd" else ()
    return np.float32(teacher * (1 + gap * rng.normal(size=shape))), teacher, *labels


@pytest.mark.parametrize("name", DISTANCES)
@pytest.mark.parametrize("spread", [1e-3, 1.0, 30.0, 1e4])
def test_rounding_brings_no_divergence_below_zero(name, spread, bench):
    """In float32, of a model from itself and from its next neighbours; T far from 1 as well."""
    loss = getattr(losses, name)
    temperatures = (
        [{"T": T} for T in (0.05, 1.0, 50.0)] if "T" in getfullargspec(loss).kwonlyargs else [{}]
    )
    for hyper in temperatures:
        scale = hyper.get("T", 1.0) ** 2
        for gap in (0.0, 1e-7, 1e-6, 1e-4):
            student, *rest = float32_pair(name, 0, spread, gap)
            values, grads = bench(loss, student, *rest, wide=False, **hyper)
            assert np.all(values >= 0) and np.all(np.isfinite(grads))
            if gap == 0:
                np.testing.assert_allclose(values, 0, atol=1e-11 * scale)


@pytest.mark.parametrize(
    "name", ["kl", "reverse_kl", "js", "skew_kl", "topk_kl", "dkd", "attention_kl", "cosine_logits"]
)
def test_small_divergences_are_exact_in_float32_too(name, bench):
    """The plain sums cancel to noise of about 1e-7, which is more than such divergences are."""
    student, teacher, *labels = float32_pair(name, 1, 1.0, 1e-3)
    loss = getattr(losses, name)
    got, slope = bench(loss, student, teacher, *labels, wide=False)
    right, right_slope = bench(loss, np.float64(student), np.float64(teacher), *labels)
    assert right.max() < 1e-5
    np.testing.assert_allclose(got, right, rtol=5e-3, atol=1e-9 * right.max())
    np.testing.assert_allclose(slope, right_slope, atol=1e-3 * np.abs(right_slope).max())


@given(SEEDS)
def test_kl_tends_to_the_centred_difference_of_logits(bench, seed):
    student, teacher = (np.nan_to_num(z, neginf=0.0) for z in logits(seed, spread=1.0))
    limit, limit_grad = bench(losses.kl_infinite_temperature, student, teacher)
    T = 1e6
    for loss in (losses.kl, losses.reverse_kl):
        values, grads = bench(loss, student, teacher, T=T)
        np.testing.assert_allclose(values, limit, rtol=1e-3, atol=1e-2)
        np.testing.assert_allclose(grads, limit_grad, rtol=1e-3, atol=1e-3)


@given(SEEDS, TEMPERATURES)
def test_jensen_shannon_is_symmetric_and_bounded(bench, seed, T):
    student, teacher = logits(seed)
    one, _ = bench(losses.js, student, teacher, T=T)
    other, _ = bench(losses.js, teacher, student, T=T)
    np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-12 * T**2)
    assert np.all(one <= T**2 * np.log(2) * (1 + 1e-12))


@given(SEEDS, SHARES)
def test_generalised_jensen_shannon_turns_over_with_its_sides(bench, seed, beta):
    student, teacher = logits(seed)
    one, _ = bench(losses.generalized_jsd, student, teacher, beta=beta)
    other, _ = bench(losses.generalized_jsd, teacher, student, beta=1 - beta)
    np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-12)


@given(SEEDS)
def test_generalised_jensen_shannon_has_the_two_divergences_as_limits(bench, seed):
    student, teacher = (z[2:] for z in logits(seed))  # rows without exclusions
    beta = 1e-7
    near_kl, _ = bench(losses.generalized_jsd, student, teacher, beta=beta)
    np.testing.assert_allclose(near_kl / beta, bench(losses.kl, student, teacher)[0], rtol=0.01)
    near_reverse, _ = bench(losses.generalized_jsd, student, teacher, beta=1 - beta)
    reverse, _ = bench(losses.reverse_kl, student, teacher)
    np.testing.assert_allclose(near_reverse / beta, reverse, rtol=0.01)


@given(SEEDS, SHARES)
def test_skewed_divergences_are_bounded_by_their_skew(bench, seed, alpha):
    for loss in (losses.skew_kl, losses.skew_reverse_kl):
        values, _ = bench(loss, *logits(seed), alpha=alpha)
        assert np.all(values <= -np.log(alpha) + 1e-12)


@given(SEEDS)
def test_total_variation_obeys_pinsker(bench, seed):
    distance, _ = bench(losses.tvd, *logits(seed))
    divergence, _ = bench(losses.kl, *logits(seed))
    assert np.all(distance <= np.sqrt(divergence / 2) + 1e-9) and np.all(distance <= 1 + 1e-12)


@given(SEEDS)
def test_a_coarser_look_diverges_less(bench, seed):
    full, _ = bench(losses.kl, *logits(seed))
    for k in (1, 3):
        coarse, _ = bench(losses.topk_kl, *logits(seed), k=k)
        assert np.all(coarse <= full + 1e-9)


@given(SEEDS, st.floats(0.01, 100), st.floats(-50, 50))
def test_relational_losses_see_neither_rotation_nor_scale_nor_place(bench, seed, scale, shift):
    rng = np.random.default_rng(seed)
    student, teacher = rng.normal(size=(5, 3)), rng.normal(size=(5, 4))
    moved = turned(student, seed) * scale + shift
    for loss in (losses.rkd_distance, losses.rkd_angle):
        one, other = bench(loss, student, teacher)[0], bench(loss, moved, teacher)[0]
        np.testing.assert_allclose(other, one, rtol=1e-6, atol=1e-9)


@given(SEEDS, st.floats(0.01, 100))
def test_similarities_see_neither_rotation_nor_scale(bench, seed, scale):
    rng = np.random.default_rng(seed)
    student, teacher = rng.normal(size=(5, 3)), rng.normal(size=(5, 4))
    moved = turned(student, seed) * scale
    for loss in (losses.sp, losses.pkt, losses.correlation):
        one, other = bench(loss, student, teacher)[0], bench(loss, moved, teacher)[0]
        np.testing.assert_allclose(other, one, rtol=1e-8, atol=1e-11)


@given(SEEDS, st.floats(0.01, 100))
def test_cka_sees_neither_orthogonal_maps_nor_scale_and_is_zero_for_oneself(bench, seed, scale):
    rng = np.random.default_rng(seed)
    student, teacher = rng.normal(size=(2, 4, 4, 3))
    one, _ = bench(losses.cka, student, teacher)
    other, _ = bench(losses.cka, turned(student, seed) * scale + 3, teacher)
    np.testing.assert_allclose(other, one, rtol=1e-8, atol=1e-10)
    assert np.all((one >= -1e-12) & (one <= 1 + 1e-12))
    itself, _ = bench(losses.cka, turned(teacher, seed) * scale, teacher)
    np.testing.assert_allclose(itself, 0, atol=1e-10)


@given(SEEDS)
def test_neuron_selectivity_does_not_see_the_order_of_neurons(bench, seed):
    rng = np.random.default_rng(seed)
    student, teacher = rng.normal(size=(2, 4, 4, 3))
    values, _ = bench(losses.nst, student, student[..., rng.permutation(3)])
    np.testing.assert_allclose(values, 0, atol=1e-12)
    assert np.all(bench(losses.nst, student, teacher)[0] >= 0)


@given(SEEDS, st.floats(-1e3, 1e3))
def test_a_constant_on_all_logits_changes_no_distribution(bench, seed, shift):
    student, teacher = logits(seed)
    for loss in (losses.kl, losses.js, losses.tvd, losses.kl_infinite_temperature):
        one, other = bench(loss, student, teacher)[0], bench(loss, student + shift, teacher)[0]
        np.testing.assert_allclose(other, one, rtol=1e-7, atol=1e-9)


@given(SEEDS)
def test_the_best_order_is_the_teachers(bench, seed):
    """No order of the student's scores is likelier than the one that follows the teacher's."""
    rng = np.random.default_rng(seed)
    scores, teacher = rng.normal(size=5), rng.normal(size=(4, 5))
    best = np.sort(scores)[np.argsort(np.argsort(teacher))]
    other = np.stack([rng.permutation(scores) for _ in range(4)])
    for loss in (losses.listmle, losses.listnet, losses.pairwise_logistic):
        assert np.all(bench(loss, best, teacher)[0] <= bench(loss, other, teacher)[0] + 1e-9)


@given(SEEDS, TEMPERATURES)
def test_divergence_from_several_teachers_is_that_from_their_mean_but_for_a_constant(
    bench, seed, T
):
    """sum_k w_k KL(p_k || q) and KL(sum_k w_k p_k || q) have the same gradient in q."""
    student, first = logits(seed)
    second = logits(seed + 1)[1]
    second[1, 2] = -np.inf
    separate = [bench(losses.kl, student, teacher, T=T)[1] for teacher in (first, second)]

    with jax.enable_x64(True):
        mean = np.asarray(losses.mean_probabilities(np.stack([first, second]), T=np.float64(T)))
    together = bench(losses.kl, student, mean, T=T)[1]
    np.testing.assert_allclose(together, sum(separate) / 2, rtol=1e-6, atol=1e-8 * T)
