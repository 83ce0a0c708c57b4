"""``as_released`` against what the released code computes (tests/released.py), and where not."""

import numpy as np
import pytest
import released

from distill_jax import losses

WHERE = np.array([True, True, False, True, True, True])


def rows(rng, *shape):
    """Student and teacher of six rows; the teacher's last two are alike, the third is junk."""
    student, teacher = rng.normal(size=(2, 6, *shape))
    teacher[5] = teacher[4]
    student[2], teacher[2] = np.nan, np.inf
    return student, teacher


def check(bench, loss, oracle, student, teacher, *, reduce=np.mean, entries=12, **hyper):
    """The values, reduced over the rows that count, are the oracle's, and so is the gradient."""
    count = WHERE.sum() if reduce is np.mean else 1
    weights = np.full(len(WHERE), 1 / count)
    values, grads = bench(loss, student, teacher, where=WHERE, weights=weights, **hyper)
    np.testing.assert_array_equal(values[~WHERE], 0)
    expected = oracle(student[WHERE], teacher[WHERE])
    np.testing.assert_allclose(reduce(values[WHERE]), expected, rtol=1e-9, atol=1e-12)
    places = [place for place in np.ndindex(student.shape) if WHERE[place[0]]]
    for index in np.random.default_rng(5).choice(len(places), entries, replace=False):
        ends = []
        for step in (1e-5, -1e-5):
            moved = student.copy()
            moved[places[index]] += step
            ends.append(oracle(moved[WHERE], teacher[WHERE]))
        slope = (ends[0] - ends[1]) / 2e-5
        np.testing.assert_allclose(grads[places[index]], slope, rtol=2e-5, atol=2e-7)
    return values


CASES = {
    "soft_ce": (
        losses.soft_ce,
        lambda s, t: released.tinybert_soft_cross_entropy(s, t, 3.0),
        {"T": 3.0},
    ),
    "generalized_jsd": (
        losses.generalized_jsd,
        lambda s, t: released.trl_0_11_3(s, t, 0.2, 3.0).mean(),
        {"beta": 0.2, "T": 3.0},
    ),
    "dist": (
        losses.dist,
        lambda s, t: released.image_classification_sota_dist(s, t, 0.5, 2.0, 3.0),
        {"beta": 0.5, "gamma": 2.0, "T": 3.0},
    ),
    "rkd_distance": (losses.rkd_distance, released.rkd_distance, {}),
    "rkd_angle": (losses.rkd_angle, released.rkd_angle, {}),
    "pkt": (losses.pkt, released.pkt, {}),
}


@pytest.mark.parametrize("case", CASES)
def test_the_mean_over_the_batch_is_the_released_loss(case, bench, rng):
    loss, oracle, hyper = CASES[case]
    check(bench, loss, oracle, *rows(rng, 4), variant="as_released", **hyper)


def test_dist_counts_a_class_that_is_nowhere_likely_as_uncorrelated(bench, rng):
    """The code's 1e-8 outweighs the norms of such a class, and the paper's formula has none."""
    student, teacher = rows(rng, 4)
    student[:, 3] -= 25
    teacher[:, 3] -= 25
    oracle = CASES["dist"][1]
    ours = check(
        bench, losses.dist, oracle, student, teacher, variant="as_released", **CASES["dist"][2]
    )
    paper, _ = bench(losses.dist, student, teacher, where=WHERE, **CASES["dist"][2])
    assert np.abs(9 * paper - ours)[WHERE].max() > 0.1


def test_pkt_of_opposite_vectors_is_the_released_one(bench, rng):
    student, teacher = rows(rng, 4)
    student[1] = -2 * student[0]
    teacher[3], teacher[1] = 0.0, -teacher[0]
    check(bench, losses.pkt, released.pkt, student, teacher, variant="as_released")


def test_rkd_distance_counts_duplicates_of_the_student_at_a_millionth(bench, rng):
    student, teacher = rows(rng, 4)
    student[3] = student[0]
    oracle = released.rkd_distance
    check(bench, losses.rkd_distance, oracle, student, teacher, variant="as_released")
    alike = np.ones((6, 4))
    values, grads = bench(losses.rkd_distance, alike, teacher, where=WHERE, variant="as_released")
    np.testing.assert_allclose(values[WHERE].mean(), oracle(alike[WHERE], teacher[WHERE]))
    np.testing.assert_array_equal(grads, 0)


def test_standardised_logits_are_the_released_ones(rng):
    logits = (rng.normal(size=(4, 5)) * [[1e-6], [1], [7], [0]]).astype(np.float32)
    got = losses.standardize_logits(logits, variant="as_released")
    expected = released.logit_standardization_normalize(logits.astype(np.float64))
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


def test_sp_has_no_variant_because_the_code_follows_the_paper(bench, rng):
    check(bench, losses.sp, released.repdistiller_sp, *rows(rng, 4))


def test_the_three_formulas_that_trl_released_in_turn(bench, rng):
    """``as_released`` is the second; the third is the paper's; the first is neither's."""
    student, teacher = rng.normal(size=(2, 4, 5))
    for beta in (0.2, 0.5):
        given = {"beta": beta, "T": 1.0}
        paper, _ = bench(losses.generalized_jsd, student, teacher, **given)
        ours, _ = bench(losses.generalized_jsd, student, teacher, variant="as_released", **given)
        np.testing.assert_allclose(paper, released.trl_0_16_0(student, teacher, beta), rtol=1e-9)
        np.testing.assert_allclose(ours, released.trl_0_11_3(student, teacher, beta), rtol=1e-9)
        first = released.trl_0_11_0(student, teacher, beta)
        assert min(np.abs(first - ours).min(), np.abs(first - paper).min()) > 1e-3
    # None of the three has the T^2 of ours.
    paper, _ = bench(losses.generalized_jsd, student, teacher, beta=0.2, T=3.0)
    np.testing.assert_allclose(paper, 9 * released.trl_0_16_0(student, teacher, 0.2, 3.0))


@pytest.mark.parametrize(("level", "choice"), [("prototypes", "first"), ("entities", "second")])
def test_the_sum_of_hierarchical_topology_is_the_released_loss(level, choice, bench, rng):
    student, teacher = rows(rng, 4)
    selection = np.eye(4)[[0, 3, 2, 3, 0, 0]]  # group 1 is empty, group 2 is masked
    groups = selection.argmax(axis=1)[WHERE]

    def oracle(s, t):
        return 0.7 * released.hierarchical_topology(s, t, groups, choice, student[WHERE])

    given = {"selection": selection, "gamma": 0.7, "level": level, "variant": "as_released"}

    def loss(student, teacher, **hyper):
        return losses.hierarchical_topology(student, teacher, **{**given, **hyper})

    check(bench, loss, oracle, student, teacher, reduce=np.sum)


def test_between_released_prototypes_nothing_is_learned(bench, rng):
    """With one entity a group only they are left, and they are constants there."""
    given = {"where": WHERE, "selection": 9 * np.eye(6), "level": "prototypes"}
    student, teacher = rows(rng, 4)
    for variant, learned in (("paper", True), ("as_released", False)):
        loss = losses.hierarchical_topology
        _, grads = bench(loss, student, teacher, variant=variant, **given)
        assert (np.abs(grads).max() > 1e-3) == learned


def test_the_released_assignment_is_a_sum_over_features(bench, rng):
    student, teacher = rows(rng, 4)
    experts, selection = rng.normal(size=(6, 3, 4)), rng.normal(size=(6, 3))
    given = {"where": WHERE, "selection": selection, "variant": "as_released"}
    whole, _ = bench(
        losses.hierarchical_topology, student, teacher, experts=experts, gamma=0.3, T=0.5, **given
    )
    groups = selection.argmax(axis=1)[WHERE]
    s, t = student[WHERE], teacher[WHERE]
    chances = released.softmax(selection[WHERE])
    expected = 0.3 * released.hierarchical_topology(s, t, groups, "second", s)
    expected += 0.7 * released.group_assignment(experts[WHERE], t, chances, 0.0, 0.5)
    np.testing.assert_allclose(whole.sum(), expected, rtol=1e-8)


def test_the_mean_of_topology_is_the_released_sum_over_the_pairs(bench, rng):
    def oracle(s, t):
        return released.full_topology(s, t) / len(s) ** 2

    check(bench, losses.topology, oracle, *rows(rng, 4))


def test_correlation_is_not_what_its_authors_gave_away(bench, rng):
    """That one compares neighbours in the batch: it follows its order, and any rotation."""
    student, teacher = rng.normal(size=(2, 6, 4))
    order = np.array([3, 0, 5, 1, 4, 2])
    theirs = released.repdistiller_correlation
    ours, _ = bench(losses.correlation, student, teacher)
    mixed, _ = bench(losses.correlation, student[order], teacher[order])
    np.testing.assert_allclose(mixed, ours[order], rtol=1e-9)
    assert abs(theirs(student[order], teacher[order]) / theirs(student, teacher) - 1) > 0.01
    turn = np.linalg.qr(rng.normal(size=(4, 4)))[0]
    values, _ = bench(losses.correlation, teacher @ turn, teacher)
    np.testing.assert_allclose(values, 0, atol=1e-20)
    assert theirs(teacher @ turn, teacher) > 0.1


def test_crd_is_the_student_s_half_of_the_released_one_with_other_constants(bench, rng):
    """N + 1 for the size of the training set, and 1 for the normaliser Z."""
    student, teacher = rng.normal(size=(2, 6, 4))
    unit_s, unit_t = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (student, teacher))
    candidates = np.stack([np.roll(unit_t, -i, axis=0) for i in range(6)])
    values, _ = bench(losses.crd, student, teacher, T=0.5)
    expected = released.repdistiller_crd(unit_s, candidates, 0.5, data=6, normaliser=1)
    np.testing.assert_allclose(values.mean(), expected, rtol=1e-5)
    theirs = released.repdistiller_crd(unit_s, candidates, 0.5, data=50_000, normaliser=6e4)
    assert abs(theirs / expected - 1) > 0.05


def test_crd_grows_with_the_batch_unless_its_negatives_are_averaged(bench):
    """The same examples twice are twice the negatives."""
    student, teacher = np.random.default_rng(1).normal(size=(2, 8, 4))
    sizes = {}
    for times in (1, 8):
        pair = np.tile(student, (times, 1)), np.tile(teacher, (times, 1))
        for negatives in ("sum", "mean"):
            values, _ = bench(losses.crd, *pair, T=0.5, negatives=negatives)
            sizes[times, negatives] = values.mean()
    assert 6 < sizes[8, "sum"] / sizes[1, "sum"] < 9
    assert 0.8 < sizes[8, "mean"] / sizes[1, "mean"] < 1.3
    with pytest.raises(ValueError, match="negatives must be"):
        losses.crd(np.zeros((2, 3)), np.zeros((2, 3)), negatives="all")
