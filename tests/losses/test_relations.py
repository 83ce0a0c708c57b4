"""Relations between examples against formulas in plain loops."""

import math

import numpy as np
import pytest

from distill_jax import losses

WHERE = np.array([True, True, False, True, True])


def dot(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True))


def unit(a):
    norm = math.sqrt(dot(a, a))
    return [x / norm for x in a] if norm > 0 else [0.0 for _ in a]


def minus(a, b):
    return [x - y for x, y in zip(a, b, strict=True)]


def huber(x):
    return x * x / 2 if abs(x) <= 1 else abs(x) - 0.5


def rows(x, where):
    return {i: list(x[i]) for i in range(len(where)) if where[i]}


def rkd_distance(student, teacher, *, where):
    there = [i for i in range(len(where)) if where[i]]
    relative = []
    for x in (rows(student, where), rows(teacher, where)):
        d = {
            (i, j): math.sqrt(dot(minus(x[i], x[j]), minus(x[i], x[j])))
            for i in there
            for j in there
        }
        counted = [v for (i, j), v in d.items() if i != j]
        mean = sum(counted) / len(counted) if counted else 0
        relative.append({pair: v / mean if mean > 0 else 0.0 for pair, v in d.items()})
    values = np.zeros(len(where))
    for i in there:
        total = sum(huber(relative[1][i, j] - relative[0][i, j]) for j in there if j != i)
        values[i] = total / max(len(there) - 1, 1)
    return values


def rkd_angle(student, teacher, *, where):
    there = [i for i in range(len(where)) if where[i]]
    values = np.zeros(len(where))
    for j in there:
        cosines = []
        for x in (rows(student, where), rows(teacher, where)):
            sides = {i: unit(minus(x[i], x[j])) for i in there}
            cosines.append({(i, k): dot(sides[i], sides[k]) for i in there for k in there})
        total = sum(
            huber(cosines[1][i, k] - cosines[0][i, k])
            for i in there
            for k in there
            if i != j and k != j and i != k
        )
        values[j] = total / max((len(there) - 1) * (len(there) - 2), 1)
    return values


def sp(student, teacher, *, where):
    there = [i for i in range(len(where)) if where[i]]
    values = np.zeros(len(where))
    for i in there:
        similar = []
        for x in (rows(student, where), rows(teacher, where)):
            similar.append(unit([dot(x[i], x[j]) for j in there]))
        values[i] = sum((a - b) ** 2 for a, b in zip(*similar, strict=True)) / len(there)
    return values


def pkt(student, teacher, *, where):
    there = [i for i in range(len(where)) if where[i]]
    values = np.zeros(len(where))
    for i in there:
        others = [j for j in there if j != i]
        chances = []
        for x in (rows(student, where), rows(teacher, where)):
            kernel = [(dot(unit(x[i]), unit(x[j])) + 1) / 2 for j in others]
            chances.append([k / sum(kernel) for k in kernel])
        values[i] = sum(p * math.log(p / q) for q, p in zip(*chances, strict=True))
    return values


def correlation(student, teacher, *, where, gamma=0.4, order=2):
    there = [i for i in range(len(where)) if where[i]]
    values = np.zeros(len(where))
    for i in there:
        for j in there:
            kernels = []
            for x in (rows(student, where), rows(teacher, where)):
                c = dot(unit(x[i]), unit(x[j]))
                series = sum((2 * gamma * c) ** p / math.factorial(p) for p in range(order + 1))
                kernels.append(math.exp(-2 * gamma) * series)
            values[i] += (kernels[0] - kernels[1]) ** 2 / len(there)
    return values


def crd_value(anchor, positive, negatives, T):
    ratio = len(negatives) / (len(negatives) + 1)
    odds = math.exp(dot(unit(anchor), unit(positive)) / T)
    value = -math.log(odds / (odds + ratio))
    for negative in negatives:
        odds = math.exp(dot(unit(anchor), unit(negative)) / T)
        value -= math.log(ratio / (odds + ratio))
    return value


def crd(student, teacher, *, where, T=0.07):
    there = [i for i in range(len(where)) if where[i]]
    values = np.zeros(len(where))
    for i in there:
        others = [list(teacher[j]) for j in there if j != i]
        values[i] = crd_value(list(student[i]), list(teacher[i]), others, T)
    return values


CASES = {
    "rkd_distance": (losses.rkd_distance, rkd_distance, {}),
    "rkd_angle": (losses.rkd_angle, rkd_angle, {}),
    "sp": (losses.sp, sp, {}),
    "pkt": (losses.pkt, pkt, {}),
    "correlation": (losses.correlation, correlation, {"gamma": 0.6, "order": 3}),
    "crd": (losses.crd, crd, {"T": 0.5}),
}
# Their values are compared with the released code in test_released.py.
RELEASED = {
    f"{name}_released": (getattr(losses, name), None, {"variant": "as_released"})
    for name in ("rkd_distance", "rkd_angle", "pkt")
}


@pytest.mark.parametrize("case", CASES)
def test_values_and_gradients_are_those_of_the_formula(case, bench, rng):
    loss, oracle, hyper = CASES[case]
    student = rng.normal(size=(5, 3))
    teacher = rng.normal(size=(5, 3 if case == "crd" else 4))
    student[2], teacher[2] = np.nan, np.inf  # masked
    teacher[4] = teacher[3]  # a duplicate, of the teacher only: distances of 0
    bench.check(loss, oracle, student, teacher, where=WHERE, entries=15, **hyper)


@pytest.mark.parametrize("case", CASES | RELEASED)
def test_duplicates_opposites_and_zeros_have_finite_gradients(case, bench):
    loss, _, hyper = (CASES | RELEASED)[case]
    student, teacher = np.ones((5, 3)), np.zeros((5, 3 if case == "crd" else 4))
    student[3] = -1.0
    student[4], teacher[0] = 0.0, 1e6
    for one, other in ((student, teacher), (np.zeros((5, 3)), teacher)):
        values, grads = bench(loss, one, other, where=WHERE, **hyper)
        assert np.all(np.isfinite(values)) and np.all(np.isfinite(grads))


# The other losses relate an example to itself too.
@pytest.mark.parametrize("case", ["rkd_distance", "rkd_angle", "pkt", "crd"])
def test_nobody_else_in_the_batch_is_no_loss(case, bench, rng):
    loss, _, hyper = CASES[case]
    student, teacher = rng.normal(size=(5, 3)), rng.normal(size=(5, 3 if case == "crd" else 4))
    alone = np.array([False, True, False, False, False])
    values, grads = bench(loss, student, teacher, where=alone, **hyper)
    np.testing.assert_array_equal(values, 0)
    np.testing.assert_array_equal(grads, 0)


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="expected"):
        losses.sp(np.zeros((2, 3), np.float32), np.zeros((3, 3), np.float32))
    with pytest.raises(ValueError, match="order"):
        losses.correlation(np.zeros((2, 3), np.float32), np.zeros((2, 3), np.float32), order=0)
