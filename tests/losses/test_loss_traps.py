"""Known bugs of public distillation code, a test for each that concerns losses alone.

Those that concern objectives (layer maps, own parameters, accumulation, typos) are in
``tests/objectives/test_objective_traps.py``.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from distill_jax import losses

DIVERGENCES = ["kl", "reverse_kl", "jeffreys", "js", "generalized_jsd", "skew_kl", "topk_kl"]


def softmax(z, axis=-1):
    odds = np.exp(z - z.max(axis=axis, keepdims=True))
    return odds / odds.sum(axis=axis, keepdims=True)


@pytest.mark.parametrize("name", [*DIVERGENCES, "soft_ce", "dkd", "bce"])
def test_trap_01_t_squared_is_applied_and_keeps_gradients_of_one_size(name, bench, rng):
    """Without T^2 the gradient at T = 40 would be 1/1600 of that at T = 1, with it of like size."""
    student, teacher = rng.normal(size=(2, 4, 5)) * 0.1
    labels = (np.array([0, 1, 2, 3], np.int32),) if name == "dkd" else ()
    loss = getattr(losses, name)
    _, cold = bench(loss, student, teacher, *labels, T=1.0)
    _, hot = bench(loss, student, teacher, *labels, T=40.0)
    assert 0.5 < np.linalg.norm(hot) / np.linalg.norm(cold) < 2


def test_trap_02_divergences_are_sums_over_classes_and_not_means(bench):
    """Splitting every class in two equal halves changes no divergence; a mean would halve it."""
    student, teacher = np.array([[0.0, 1.0, 2.0]]), np.array([[1.0, 1.0, -2.0]])
    halves = np.repeat(student, 2, axis=-1), np.repeat(teacher, 2, axis=-1)
    for name in ("kl", "reverse_kl", "jeffreys", "js", "generalized_jsd", "skew_kl", "tvd"):
        loss = getattr(losses, name)
        one, other = bench(loss, student, teacher)[0], bench(loss, *halves)[0]
        np.testing.assert_allclose(other, one, rtol=1e-9)


@pytest.mark.parametrize("name", DIVERGENCES)
def test_trap_03_a_divergence_is_not_a_cross_entropy(name, bench, rng):
    teacher = rng.normal(size=(4, 5))
    values, grads = bench(getattr(losses, name), teacher, teacher, T=2.0)
    np.testing.assert_allclose(values, 0, atol=1e-12)
    np.testing.assert_allclose(grads, 0, atol=1e-12)
    soft, _ = bench(losses.soft_ce, teacher, teacher, T=2.0)
    p = softmax(teacher / 2)
    np.testing.assert_allclose(soft, -4 * (p * np.log(p)).sum(axis=-1), rtol=1e-9)


def test_trap_04_the_first_argument_is_the_student_and_the_directions_differ(bench, rng):
    student, teacher = rng.normal(size=(2, 4, 5)) * 2
    p, q = softmax(teacher), softmax(student)
    values, grads = bench(losses.kl, student, teacher)
    np.testing.assert_allclose(values, (p * np.log(p / q)).sum(axis=-1), rtol=1e-9)
    np.testing.assert_allclose(grads, q - p, rtol=1e-9, atol=1e-12)
    values, grads = bench(losses.reverse_kl, student, teacher)
    np.testing.assert_allclose(values, (q * np.log(q / p)).sum(axis=-1), rtol=1e-9)
    assert np.all(np.abs(grads).sum(axis=-1) > 1e-3)
    only_teacher = jax.grad(lambda t: jnp.sum(losses.kl(student.astype(np.float32), t)))
    np.testing.assert_array_equal(only_teacher(teacher.astype(np.float32)), 0)


HIDDEN = ["hidden_mse", "hidden_cosine", "hint", "pkd", "hidden_contrastive", "nst", "cka", "vid"]


@pytest.mark.parametrize("name", HIDDEN)
def test_trap_07_padding_changes_nothing_in_hidden_state_losses(name, bench, rng):
    student, teacher = rng.normal(size=(2, 3, 4, 5))
    where = np.array([[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0]], bool)
    values, grads = bench(getattr(losses, name), student, teacher, where=where)
    junk = ((0, 0), (0, 3), (0, 0))
    longer = [np.pad(x, junk, constant_values=np.nan) for x in (student, teacher)]
    padded = np.pad(where, ((0, 0), (0, 3)))
    more, more_grads = bench(getattr(losses, name), *longer, where=padded)
    np.testing.assert_allclose(more, values, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(more_grads[:, :4], grads, rtol=1e-9, atol=1e-12)
    np.testing.assert_array_equal(more_grads[:, 4:], 0)


@pytest.mark.parametrize("name", ["attention_mse", "attention_kl"])
def test_trap_07_padding_changes_nothing_in_attention_losses(name, bench, rng):
    student, teacher = rng.normal(size=(2, 2, 2, 3, 3))
    where = np.array([[1, 1, 1], [1, 1, 0]], bool)
    loss = getattr(losses, name)
    values, _ = bench(loss, student, teacher, where=where, heads="each")
    junk = ((0, 0), (0, 0), (0, 2), (0, 2))
    longer = [np.pad(x, junk, constant_values=50.0) for x in (student, teacher)]
    padded = np.pad(where, ((0, 0), (0, 2)))
    more, _ = bench(loss, *longer, where=padded, heads="each")
    np.testing.assert_allclose(more, values, rtol=1e-9, atol=1e-12)


def test_trap_08_the_mask_is_applied_before_the_softmax(bench):
    """A masked key with a huge score would take all the attention if it were masked afterwards."""
    student = np.array([[[[0.0, 1.0, 900.0]] * 3]])
    teacher = np.array([[[[2.0, -1.0, -900.0]] * 3]])
    where = np.array([[True, True, False]])
    values, _ = bench(losses.attention_kl, student, teacher, where=where, heads="each")
    p, q = softmax(np.array([2.0, -1.0])), softmax(np.array([0.0, 1.0]))
    np.testing.assert_allclose(values, [(p * np.log(p / q)).sum()], rtol=1e-9)


def test_trap_11_relation_heads_do_not_mix_tokens(bench, rng):
    """Moving a token moves its rows of the relations, and nothing else: the loss stays."""
    student = tuple(rng.normal(size=(2, 4, 2, 6)) for _ in range(3))
    teacher = tuple(rng.normal(size=(2, 4, 3, 8)) for _ in range(3))
    order = np.array([2, 0, 3, 1])
    moved = [tuple(x[:, order] for x in side) for side in (student, teacher)]
    one, _ = bench(losses.minilm_v2, student, teacher, relation_heads=4)
    other, _ = bench(losses.minilm_v2, *moved, relation_heads=4)
    np.testing.assert_allclose(other, one, rtol=1e-9)
    # One relation head is the relation of the joined vectors, taken directly.
    joined = [x.reshape(2, 4, -1) for x in (student[0], teacher[0])]
    p, q = (softmax(x @ x.swapaxes(1, 2) / math.sqrt(x.shape[-1])) for x in joined[::-1])
    expected = (p * np.log(p / q)).sum(axis=-1).mean(axis=-1)
    same = (student[0],) * 3, (teacher[0],) * 3
    got, _ = bench(losses.minilm_v2, *same, relation_heads=1)
    np.testing.assert_allclose(got / 3, expected, rtol=1e-9)


def test_trap_14_half_precision_inputs_are_reduced_in_float32():
    """1,000 differences of 2^-13 squared: each one alone is 0 in float16, their mean is not."""
    student = jnp.full((1, 1000), 2.0**-13, jnp.float16)
    got = losses.mse_logits(student, jnp.zeros_like(student))
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, 2.0**-26, rtol=1e-6)
    # 4,096 unit terms: a float16 sum stops at 2,048, a bfloat16 sum at 256.
    for dtype in (jnp.float16, jnp.bfloat16):
        student = jnp.ones((1, 4096, 1), dtype)
        np.testing.assert_allclose(losses.hidden_mse(student, jnp.zeros_like(student)), 1.0)


def test_trap_15_dkd_with_two_classes_has_no_other_part(bench, rng):
    student, teacher = rng.normal(size=(2, 4, 2)) * 3
    labels = np.array([0, 1, 0, 1], np.int32)
    values, grads = bench(losses.dkd, student, teacher, labels, alpha=1.0, beta=8.0, T=2.0)
    plain, plain_grads = bench(losses.kl, student, teacher, T=2.0)
    np.testing.assert_allclose(values, plain, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(grads, plain_grads, rtol=1e-9, atol=1e-12)


def test_trap_15_dkd_masks_the_label_however_large_its_logit(bench):
    """A label's logit of 5,000 outweighs the -1000 of the released code."""
    labels = np.array([0], np.int32)
    other_s, other_t = np.array([0.0, 1.0, 2.0]), np.array([1.0, 0.0, -1.0])
    student, teacher = (np.array([[5000.0, *x]]) for x in (other_s, other_t))
    values, _ = bench(losses.dkd, student, teacher, labels, alpha=0.0, beta=1.0, T=1.0)
    p, q = softmax(other_t), softmax(other_s)
    np.testing.assert_allclose(values, [(p * np.log(p / q)).sum()], rtol=1e-9)


NEVER = -np.inf
FILLS = {
    # The student is certain of the label: -log(e / (1 + e)) on "target or not", else nothing.
    "dkd": (
        ([[1.0, 0.0]], [[1.0, NEVER]], np.array([0], np.int32)),
        None,
        math.log(1 + math.exp(-1)),
    ),
    "listnet": (
        ([[0.0, 0, 0, 5]], [[NEVER, NEVER, NEVER, 5]]),
        [[True, True, True, False]],
        math.log(3),
    ),
    "listmle": (([[NEVER, NEVER, 0.0]], [[2.0, 1, 0]]), [[True, True, False]], math.log(2)),
    "relaxed_ranking": (
        ([[NEVER, NEVER, 0.0]], [[2.0, 1, 0]]),
        [[True, True, False]],
        math.log(2),
    ),
    "attention_kl": (
        ([[[[0.0] * 3] * 3]], [[[[NEVER] * 3] * 3]]),
        [[True, True, False]],
        0.0,
    ),
    "minilm": (
        (
            ([[[[0.0] * 3] * 3]], [[[[1.0]], [[1.0]], [[9.0]]]]),
            ([[[[NEVER] * 3] * 3]], [[[[1.0]], [[1.0]], [[9.0]]]]),
        ),
        [[True, True, False]],
        0.0,
    ),
}


@pytest.mark.parametrize("name", FILLS)
def test_trap_15_what_is_masked_has_no_share_even_where_all_else_is_excluded(name, bench):
    """A fill value that a clipped -inf can equal gives masked places a share of the softmax."""
    args, where, expected = FILLS[name]
    args = [
        x if isinstance(x, np.ndarray)
        else tuple(map(np.array, x)) if isinstance(x, tuple)
        else np.array(x)
        for x in args
    ]  # fmt: skip
    values, grads = bench(
        getattr(losses, name), *args, where=None if where is None else np.array(where)
    )
    np.testing.assert_allclose(values, [expected], rtol=1e-6, atol=1e-12)
    assert all(np.all(np.isfinite(grad)) for grad in jax.tree.leaves(grads))


SQUARE_ROOTS = ["rkd_distance", "rkd_angle", "sp", "pkt", "correlation", "crd", "topology"]
SQUARE_ROOTS.append("hierarchical_topology")


@pytest.mark.parametrize("name", SQUARE_ROOTS)
def test_trap_16_duplicate_rows_and_zero_norms_have_finite_gradients(name, bench, rng):
    student = rng.normal(size=(5, 3))
    student[1] = student[0]
    student[2] = 0
    teacher = rng.normal(size=(5, 3))
    teacher[3] = teacher[0]
    values, grads = bench(getattr(losses, name), student, teacher)
    assert np.all(np.isfinite(values)) and np.all(np.isfinite(grads))
    values, grads = bench(getattr(losses, name), np.zeros((5, 3)), np.zeros((5, 3)))
    assert np.all(np.isfinite(values)) and np.all(np.isfinite(grads))


@pytest.mark.parametrize("name", [*DIVERGENCES, "soft_ce", "tvd", "dist"])
def test_trap_16_excluded_classes_and_zero_targets_have_finite_gradients(name, bench):
    student = np.array([[-np.inf, 0.0, 1.0], [-np.inf, 0, 1], [800, 0, 1], [0, 0, 0]])
    teacher = np.array([[-np.inf, 1.0, 0.0], [5, 1, 0], [-np.inf, -900, 0], [-np.inf] * 3])
    for precision in (True, False):
        values, grads = bench(
            getattr(losses, name),
            student.astype(np.float64 if precision else np.float32),
            teacher.astype(np.float64 if precision else np.float32),
            wide=precision,
        )
        assert np.all(np.isfinite(values)) and np.all(np.isfinite(grads))


def test_trap_17_the_variants_differ_as_their_docstrings_say(bench, rng):
    student, teacher = rng.normal(size=(2, 4, 5))

    def both(loss, **hyper):
        return [
            bench(loss, student, teacher, variant=v, **hyper)[0] for v in ("paper", "as_released")
        ]

    paper, released = both(losses.soft_ce, T=3.0)
    np.testing.assert_allclose(released * 5 * 9, paper, rtol=1e-9)  # no T^2, mean over classes
    paper, released = both(losses.dist, T=3.0)
    np.testing.assert_allclose(released, paper * 9, rtol=1e-5)  # T^2 in the code only
    paper, released = both(losses.generalized_jsd, beta=0.2)
    p, q = softmax(teacher), softmax(student)

    def sides(m):
        return 0.2 * (p * np.log(p / m)).sum(-1) + 0.8 * (q * np.log(q / m)).sum(-1)

    np.testing.assert_allclose(paper, sides(0.2 * p + 0.8 * q), rtol=1e-9)
    np.testing.assert_allclose(released, sides(0.8 * p + 0.2 * q), rtol=1e-9)
    paper, released = both(losses.rkd_distance)
    np.testing.assert_allclose(released * 4, paper * 3, rtol=1e-9)  # divided by n, not n - 1
    paper, released = both(losses.rkd_angle)
    np.testing.assert_allclose(released * 16, paper * 6, rtol=1e-9)
    paper, released = both(losses.pkt)
    assert np.all(released < paper)


def test_trap_18_the_mean_of_probabilities_is_not_the_softmax_of_mean_logits():
    logits = np.float32([[[4, 0, 0]], [[0, 1, -9]]])
    of_probabilities = softmax(np.asarray(losses.mean_probabilities(logits)))
    of_logits = softmax(np.asarray(losses.mean_logits(logits)))
    np.testing.assert_allclose(of_probabilities, softmax(logits).mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(of_logits, softmax(logits.mean(axis=0)), rtol=1e-5)
    assert np.abs(of_probabilities - of_logits).max() > 0.01


def test_trap_22_regression_follows_the_teacher(bench, rng):
    student, teacher = rng.normal(size=(2, 4, 1))
    _, grads = bench(losses.mse_regression, student, teacher)
    np.testing.assert_allclose(grads, 2 * (student - teacher), rtol=1e-9)
    # The divergences of a single output are blind to it: objectives refuse them there.
    np.testing.assert_array_equal(bench(losses.kl, student, teacher)[1], 0)
