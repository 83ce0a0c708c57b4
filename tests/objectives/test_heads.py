import jax
import jax.numpy as jnp
import numpy as np
import pytest

from distill_jax.core.errors import UserError
from distill_jax.core.task_types import SHOP, TaskBatch
from distill_jax.core.types import ModelOutput
from distill_jax.objectives.heads import resolve_tasks

LABELS = np.array([[1, 0, 3.5], [0, 0, 0], [0, 1, 5], [0, 0, 0]], np.float32)
KNOWN = np.array([[1, 1, 1], [1, 0, 0], [0, 1, 1], [0, 0, 0]], bool)
SAID = np.array([[2, -1, 3], [0.5, 1, 2], [-1, 0, 4], [9, 9, 9]], np.float32)
TEACHER = np.array([[1, -2, 3.2], [-0.5, 1, 1], [0, 2, 4.5], [5, 5, 5]], np.float32)


def batch():
    return TaskBatch(
        example_ids_B=jnp.array([0, 1, 2, -1]),
        features_BF=jnp.zeros((4, 1)),
        ids_BC=jnp.zeros((4, 0), jnp.int32),
        labels_BK=jnp.array(LABELS),
        label_where_BK=jnp.array(KNOWN),
    )


def value(texts, said=SAID):
    objective = resolve_tasks(texts, SHOP)
    outputs = ModelOutput(logits_BC=jnp.array(said)), ModelOutput(logits_BC=jnp.array(TEACHER))
    return objective({}, objective.numbers(0, 1), *outputs, batch())


def sigmoid(x):
    return 1 / (1 + np.exp(-np.float64(x)))


def test_labels_are_binary_cross_entropies_and_squared_errors():
    total, parts = value({"click": "labels", "buy": "0.5*labels", "rating": "labels"})
    click = [-np.log(sigmoid(2)), -np.log(1 - sigmoid(0.5))]
    buy = [-np.log(1 - sigmoid(-1)), -np.log(sigmoid(0))]
    rating = [(3 - 3.5) ** 2, (4 - 5) ** 2]
    for name, expected in (("click", click), ("buy", buy), ("rating", rating)):
        said, count = parts[f"{name}/labels"]
        assert float(said) == pytest.approx(sum(expected), rel=1e-5) and count == 2
    assert float(total) == pytest.approx(
        np.mean(click) + 0.5 * np.mean(buy) + np.mean(rating), rel=1e-5
    )


def test_a_teacher_speaks_on_every_example():
    _, parts = value({"click": "bce(T=2)", "rating": "mse_regression"})
    p, q = sigmoid(TEACHER[:3, 0] / 2), sigmoid(SAID[:3, 0] / 2)
    assert float(parts["click/bce"][0]) == pytest.approx(
        -4 * np.sum(p * np.log(q) + (1 - p) * np.log(1 - q)), rel=1e-5
    )
    assert parts["click/bce"][1] == 3
    assert float(parts["rating/mse_regression"][0]) == pytest.approx(
        np.sum((SAID[:3, 2] - TEACHER[:3, 2]) ** 2), rel=1e-5
    )


def test_a_task_that_is_left_out_and_padding_have_no_gradient():
    def total(said):
        return value({"click": "labels + bce", "rating": "labels"}, said)[0]

    grads = np.asarray(jax.grad(total)(jnp.array(SAID)))
    assert np.isfinite(grads).all() and (grads[:, 1] == 0).all() and (grads[3] == 0).all()
    assert (grads[:3, 0] != 0).all() and grads[1, 2] == 0  # no rating there


def test_schedules_and_structure():
    one, other = (
        resolve_tasks({"click": t}, SHOP) for t in ("bce", "linear(1, 0)*bce(T=linear(1, 3))")
    )
    assert one == other and hash(one) == hash(other)
    assert other.numbers(1, 2) == {"click/bce": {"T": 2.0, "weight": 0.5}}
    assert one.needs_teacher and not resolve_tasks({"buy": "labels"}, SHOP).needs_teacher


def test_what_does_not_fit_is_refused():
    for texts, message in (
        ({"clik": "labels"}, "unknown task 'clik'. Did you mean 'click'"),
        ({"rating": "bce"}, "task rating: unknown loss 'bce'.* Allowed: labels, mse_regression"),
        ({"click": "kl"}, "task click: unknown loss 'kl'"),
        ({"click": "labels(T=2)"}, "unknown argument of labels 'T'"),
        ({}, "at least one task"),
    ):
        with pytest.raises(UserError, match=message):
            resolve_tasks(texts, SHOP)
