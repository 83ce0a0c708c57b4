"""With two classes some losses have an idle part: the notes say so before the first step."""

import dataclasses

import jax
import numpy as np
import pytest

from distill_jax.core.errors import UserError
from distill_jax.core.types import ModelOutput, ModelShape
from distill_jax.objectives.feeds import LogitFeed, RankingFeed
from distill_jax.objectives.registry import lookup, names
from distill_jax.objectives.resolve import resolve

OTHER = {"k": (1, 2, 3), "label_smoothing": (0.3,), "alpha": (0.3, 0.6), "beta": (0.3, 0.6)}
"""Values to try of an argument; of the others a half and twice the default."""
ON_LOGITS = [n for n in names() if isinstance(lookup(n).feed, LogitFeed | RankingFeed)]
IDLE = {
    "dist": {"beta"},
    "dkd": {"beta"},
    "topk_kl": {"k"},
    "relaxed_ranking": {"k"},
    "ranking_distillation": {"k", "lam", "mu"},
}


def value(resolved, numbers, student, teacher, batch):
    outputs = ModelOutput(logits_BC=student), ModelOutput(logits_BC=teacher)
    return resolved({}, numbers, *outputs, batch)[0]


@pytest.fixture(scope="module")
def gradient(world, quickly):
    """(objective, classes) -> the gradient with respect to the student's logits."""
    compiled = jax.jit(jax.grad(value, argnums=2), static_argnums=0, **quickly)

    def of(text, classes):
        rng = np.random.default_rng(0)
        logits = [rng.normal(size=(6, classes)).astype(np.float32) for _ in range(2)]
        batch = dataclasses.replace(world.batch, labels_B=np.arange(6, dtype=np.int32) % classes)
        shape = ModelShape(2, 8, 2, classes)
        resolved = resolve(text, shape, shape)
        return np.asarray(compiled(resolved, resolved.numbers(0, 1), *logits, batch))

    return of


def idle_arguments(name, classes, gradient):
    """The numbers of a loss on which its gradient does not depend."""
    usual = gradient(name, classes)
    found = set()
    for key, option in lookup(name).own.items():
        if option.choices or not isinstance(option.default, int | float):
            continue
        values = OTHER.get(key, (option.default / 2, option.default * 2))
        others = [gradient(f"{name}({key}={number})", classes) for number in values]
        if all(np.allclose(other, usual, rtol=1e-4, atol=1e-6) for other in others):
            found.add(key)
    return found


@pytest.mark.parametrize("name", ON_LOGITS)
def test_trap_15_a_note_names_every_number_that_two_classes_leave_idle(name, gradient):
    idle = idle_arguments(name, 2, gradient)
    assert idle == IDLE.get(name, set())
    assert idle_arguments(name, 5, gradient) == set()
    two, five = (ModelShape(2, 8, 2, classes) for classes in (2, 5))
    assert resolve(name, five, five).notes == ()
    notes = resolve(name, two, two).notes
    assert bool(notes) == bool(idle)
    assert all(key in notes[0].split("with two classes")[1] for key in idle)


def test_dist_teaches_by_the_correlation_over_examples_alone(gradient):
    assert np.abs(gradient("dist(gamma=0)", 2)).max() < 1e-6
    assert np.abs(gradient("dist(gamma=0)", 3)).max() > 1e-2


@pytest.mark.parametrize("name", [n for n in ON_LOGITS if "standardize" in lookup(n).options])
def test_standardized_logits_of_two_classes_are_refused(name):
    two, three = ModelShape(2, 8, 2, 2), ModelShape(2, 8, 2, 3)
    with pytest.raises(UserError, match=rf"{name}.*of two classes, whatever they were"):
        resolve(f"{name}(standardize=True)", two, two)
    assert resolve(f"{name}(standardize=True)", three, three).terms
