"""Losses on outputs that are no classes: what is read, what is refused."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from distill_jax.core.errors import UserError
from distill_jax.core.types import ModelOutput, ModelShape, as_batch
from distill_jax.objectives.predictions import Predictions, refuse_vectors
from distill_jax.objectives.resolve import resolve
from distill_jax.tasks.kinds.labels import SeveralLabels
from distill_jax.tasks.kinds.number import Numbers

B, T, C = 3, 4, 5


def batch(targets, labelled=(True, True, False)):
    plain = as_batch(jnp.ones((B, T), jnp.int32), jnp.ones((B, T), bool))
    return plain.replace(label_where_B=jnp.array(labelled), targets=jnp.asarray(targets))


def value(text, outputs, student, teacher, its_batch):
    shape = ModelShape(1, 8, 2, student.shape[-1])
    objective = resolve(text, shape, shape, outputs)
    numbers = objective.numbers(0, 1)
    said = [ModelOutput(logits_BC=jnp.asarray(x, jnp.float32)) for x in (student, teacher)]
    total, parts = objective({}, numbers, *said, its_batch)
    return float(total), parts


STUDENT, TEACHER = np.float32([[1], [2], [3]]), np.float32([[0.5], [2], [5]])


def test_the_label_of_a_number_is_its_squared_error():
    total, parts = value("labels", Numbers(), STUDENT, TEACHER, batch(np.float32([[0], [0], [9]])))
    assert total == pytest.approx((1 + 4) / 2)
    assert float(parts["labels"][1]) == 2  # the third has no label


@pytest.mark.parametrize("text", ["mse_regression", "mse_logits"])
def test_a_teachers_number_is_matched_on_every_example(text):
    """Not the labels instead of the teacher, as public code has had it."""
    targets = [batch(np.float32([[x]] * 3)) for x in (0, 7)]
    totals = [value(text, Numbers(), STUDENT, TEACHER, each)[0] for each in targets]
    assert totals[0] == totals[1] == pytest.approx((0.25 + 0 + 4) / 3)
    assert value(text, Numbers(), STUDENT, STUDENT, targets[1])[0] == 0


def test_several_labels():
    logits, teacher = np.zeros((B, C)), np.linspace(-2, 2, B * C).reshape(B, C)
    targets = np.float32(np.eye(B, C))
    total, _ = value("labels", SeveralLabels(), logits, teacher, batch(targets))
    assert total == pytest.approx(C * np.log(2))
    total, _ = value("bce(T=2)", SeveralLabels(), teacher, teacher, batch(targets))
    probs = jax.nn.sigmoid(teacher / 2)
    entropy = -np.sum(probs * np.log(probs) + (1 - probs) * np.log(1 - probs), axis=1)
    assert total == pytest.approx(4 * float(entropy.mean()), rel=1e-5)


@pytest.mark.parametrize(
    ("text", "outputs", "told"),
    [
        ("ce", Numbers(), "ce: this loss has no meaning for a number. Write labels"),
        ("kl", Numbers(), "Write mse_regression"),
        ("dkd", Numbers(), "no meaning for a number. On outputs there are: labels, mse_regression"),
        ("hidden_mse + kl", SeveralLabels(), r"kl: .*Write bce\(T=...\)"),
        ("ce", SeveralLabels(), "Write labels, the binary cross-entropy"),
        ("listnet", SeveralLabels(), "no meaning for labels that do not exclude"),
    ],
)
def test_what_has_no_meaning_is_refused_with_the_right_word(text, outputs, told):
    shape = ModelShape(1, 8, 2, 3)
    with pytest.raises(UserError, match=told):
        resolve(text, shape, shape, outputs)


def test_slips_are_told_with_the_nearest_word():
    shape = ModelShape(1, 8, 2, 1)
    with pytest.raises(UserError, match=r"'mse_regresion'.*Did you mean 'mse_regression'"):
        resolve("mse_regresion", shape, shape, Numbers())
    with pytest.raises(UserError, match="unknown argument of mse_logits 'standardize'"):
        resolve("mse_logits(standardize=True)", shape, shape, Numbers())


def test_what_is_inside_models_is_compared_as_ever():
    shape = ModelShape(2, 8, 2, 1)
    for text in ("hidden_mse", "attention_kl", "rkd_distance", "minilm", "hidden_mse + labels"):
        resolved = resolve(text, shape, shape, Numbers())
        assert resolved.needs_teacher
    assert resolve("hidden_mse", shape, shape, Numbers()).student_capture.hidden_states == (1, 2)


@dataclasses.dataclass(frozen=True)
class Tags(Predictions):
    """A class a token, as another kind of task would have it."""

    losses: ClassVar[tuple[str, ...]] = ("ce", "kl")
    says: ClassVar[str] = "tags"

    def where(self, batch, labelled):
        asked_BT = batch.targets >= 0
        return asked_BT & batch.label_where_B[:, None] if labelled else asked_BT

    def check_vectors(self, spec):
        refuse_vectors(spec)


def test_outputs_of_every_token_fit():
    logits = np.zeros((B, T, C), np.float32)
    targets = np.int32([[-1, 0, 1, -1], [-1, 2, -1, -1], [-1, 0, 0, 0]])
    total, parts = value("ce", Tags(), logits, logits, batch(targets))
    assert total == pytest.approx(np.log(C)) and float(parts["ce"][1]) == 3
    padded = logits.copy()
    padded[:, 0] = 50 * np.arange(C)  # where nothing is asked
    total, parts = value("kl", Tags(), logits, padded, batch(targets))
    assert total == 0 and float(parts["kl"][1]) == 6
    with pytest.raises(UserError, match="one vector an example; these outputs are one a token"):
        value("rkd_distance(on='logits')", Tags(), logits, logits, batch(targets))


def test_kinds_of_outputs_compile_apart():
    shape = ModelShape(1, 8, 2, 2)
    one, other = (resolve("mse_logits", shape, shape, x) for x in (Numbers(), SeveralLabels()))
    assert one != other and one == resolve("2*mse_logits", shape, shape, Numbers())
