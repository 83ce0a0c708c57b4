"""Topology distillation and expert hints against formulas in plain loops."""

import math

import jax
import numpy as np
import pytest

from distill_jax import losses

WHERE = np.array([True, True, False, True, True, True])


def dot(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True))


def cos(a, b):
    norms = math.sqrt(dot(a, a)) * math.sqrt(dot(b, b))
    return dot(a, b) / norms if norms > 0 else 0.0


def mean(values):
    return sum(values) / len(values) if values else 0.0


def topology(student, teacher, where):
    there = [i for i in range(len(where)) if where[i]]
    values = np.zeros(len(where))
    for i in there:
        squares = [(cos(student[i], student[j]) - cos(teacher[i], teacher[j])) ** 2 for j in there]
        values[i] = mean(squares)
    return values


def prototypes(rows, groups, there):
    found = {}
    for g in sorted({groups[i] for i in there}):
        members = [rows[i] for i in there if groups[i] == g]
        found[g] = [mean([row[d] for row in members]) for d in range(len(rows[0]))]
    return found


def hierarchical(student, teacher, where, groups, level):
    there = [i for i in range(len(where)) if where[i]]
    proto_s, proto_t = (prototypes(x, groups, there) for x in (student, teacher))
    values = np.zeros(len(where))
    for i in there:
        inside = [
            (cos(student[i], student[j]) - cos(teacher[i], teacher[j])) ** 2
            for j in there
            if groups[i] == groups[j]
        ]
        if level == "entities":
            outline = [
                (cos(student[i], proto_s[g]) - cos(teacher[i], proto_t[g])) ** 2 for g in proto_s
            ]
        else:
            outline = [
                (cos(proto_s[g], proto_s[h]) - cos(proto_t[g], proto_t[h])) ** 2
                for g in proto_s
                for h in proto_s
            ]
        values[i] = mean(inside) + mean(outline)
    return values


def hints(experts, teacher, where, chances):
    values = np.zeros(len(where))
    for i in range(len(where)):
        if where[i]:
            made = [
                sum(z * experts[i][g][d] for g, z in enumerate(chances[i]))
                for d in range(len(teacher[i]))
            ]
            values[i] = mean([(t - m) ** 2 for t, m in zip(teacher[i], made, strict=True)])
    return values


@pytest.fixture
def pair(rng):
    return rng.normal(size=(6, 3)), rng.normal(size=(6, 5))


def softmax(row):
    top = max(row)
    powers = [math.exp(x - top) for x in row]
    return [p / sum(powers) for p in powers]


def test_full_topology(pair, bench):
    values, _ = bench(losses.topology, *pair, where=WHERE)
    np.testing.assert_allclose(values, topology(*pair, WHERE), rtol=1e-9)


def test_a_rotated_and_scaled_copy_has_the_same_topology(pair, bench, rng):
    _, teacher = pair
    turn = np.linalg.qr(rng.normal(size=(5, 5)))[0]
    values, grads = bench(losses.topology, 3 * teacher @ turn, teacher)
    np.testing.assert_allclose(values, 0, atol=1e-12)
    np.testing.assert_allclose(grads, 0, atol=1e-12)


@pytest.mark.parametrize("level", ["entities", "prototypes"])
def test_hierarchical_topology_by_groups(pair, bench, rng, level):
    selection = rng.normal(size=(6, 4))
    groups = selection.argmax(axis=1)
    values, _ = bench(
        losses.hierarchical_topology,
        *pair,
        where=WHERE,
        selection=selection,
        gamma=0.25,
        level=level,
    )
    expected = 0.25 * hierarchical(*pair, WHERE, groups, level)
    np.testing.assert_allclose(values, expected, rtol=1e-9)


def test_the_assignment_is_the_hint_of_the_experts(pair, bench, rng):
    student, teacher = pair
    experts, selection = rng.normal(size=(6, 4, 5)), rng.normal(size=(6, 4))
    given = {"where": WHERE, "selection": selection, "draw": np.uint32(3)}
    whole, _ = bench(
        losses.hierarchical_topology, student, teacher, experts=experts, gamma=0.3, T=0.5, **given
    )
    topological, _ = bench(
        losses.hierarchical_topology, student, teacher, where=WHERE, selection=selection, gamma=0.3
    )
    assigned, _ = bench(losses.expert_hints, experts, teacher, T=0.5, **given)
    np.testing.assert_allclose(whole, topological + 0.7 * assigned, rtol=1e-9)


def test_without_noise_experts_are_mixed_by_their_chances(pair, bench, rng):
    _, teacher = pair
    experts, selection = rng.normal(size=(6, 4, 5)), rng.normal(size=(6, 4))
    values, _ = bench(losses.expert_hints, experts, teacher, where=WHERE, selection=selection)
    expected = hints(experts, teacher, WHERE, [softmax(row) for row in selection])
    np.testing.assert_allclose(values, expected, rtol=1e-9)
    values, _ = bench(losses.expert_hints, experts, teacher, where=WHERE)
    equal = hints(experts, teacher, WHERE, [[0.25] * 4] * 6)
    np.testing.assert_allclose(values, equal, rtol=1e-9)
    cold, _ = bench(losses.expert_hints, experts, teacher, where=WHERE, selection=selection, T=1e-4)
    one = np.eye(4)[selection.argmax(axis=1)]
    np.testing.assert_allclose(cold, hints(experts, teacher, WHERE, one), rtol=1e-6)


def test_draws_follow_the_chances_and_are_the_same_again(rng):
    """At a low temperature an expert is drawn as often as the selection says."""
    count = 4000
    chances = np.array([0.6, 0.3, 0.1])
    teacher = np.zeros((count, 1), np.float32)
    experts = np.broadcast_to(np.float32([[[1], [2], [3]]]), (count, 3, 1))
    selection = np.broadcast_to(np.log(chances).astype(np.float32), (count, 3))

    def drawn(draw):
        given = {"selection": selection, "draw": np.uint32(draw), "T": 1e-3}
        return np.sqrt(jax.jit(losses.expert_hints)(experts, teacher, **given)).round()

    first = drawn(5)
    shares = [(first == g).mean() for g in (1, 2, 3)]
    np.testing.assert_allclose(shares, chances, atol=0.03)
    np.testing.assert_array_equal(first, drawn(5))
    np.testing.assert_array_equal(first, drawn([0, 5]))
    for other in (6, [1, 5], [5, 1]):
        assert (first != drawn(other)).mean() > 0.3
    assert (drawn([1, 5]) != drawn([5, 1])).mean() > 0.3


def test_the_choice_learns_and_the_groups_are_hard(pair, rng):
    """The assignment trains the selection; the topology does not look at more than its argmax."""
    student, teacher = (np.float32(x) for x in pair)
    experts, selection = (np.float32(rng.normal(size=s)) for s in ((6, 4, 5), (6, 4)))

    def total(selection, gamma):
        return losses.hierarchical_topology(
            student, teacher, selection=selection, experts=experts, gamma=gamma
        ).sum()

    grad = jax.grad(total)
    assert np.abs(grad(selection, np.float32(0.5))).max() > 1e-4
    np.testing.assert_array_equal(grad(selection, np.float32(1)), 0)


def test_shapes_that_do_not_fit_are_refused(pair):
    student, teacher = pair
    with pytest.raises(ValueError, match=r"expected \[B, D\]"):
        losses.topology(student[:2], teacher)
    with pytest.raises(ValueError, match=r"expected \[B, G, D\]"):
        losses.expert_hints(student, teacher)
    with pytest.raises(ValueError, match="experts give 3 features, not 5"):
        losses.expert_hints(student[:, None], teacher)
    with pytest.raises(ValueError, match="selection has shape"):
        losses.expert_hints(np.zeros((6, 2, 5)), teacher, selection=np.zeros((6, 3)))
    with pytest.raises(ValueError, match="selection has shape"):
        losses.hierarchical_topology(student, teacher, selection=np.zeros((5, 3)))
    with pytest.raises(ValueError, match="level must be"):
        losses.hierarchical_topology(student, teacher, level="groups")
