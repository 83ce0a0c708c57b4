"""Terms weighed by how sure the teacher is of an example."""

import numpy as np
import pytest

from distill_jax import losses
from distill_jax.core.errors import UserError
from distill_jax.core.types import ModelShape
from distill_jax.losses.teachers import CONFIDENCES, confidence
from distill_jax.objectives.resolve import resolve


def fitted(text, world):
    return resolve(text, world.student_shape, world.teacher_shape)


@pytest.mark.parametrize("by", CONFIDENCES)
def test_each_example_counts_as_much_as_its_teacher_is_sure(world, by):
    resolved = fitted(f"2*kl(T=2, weigh='{by}')", world)
    total, parts = resolved({}, resolved.numbers(0, 1), world.student, world.teacher, world.batch)
    where = np.asarray(world.batch.where_B)
    values = losses.kl(world.student.logits_BC, world.teacher.logits_BC, T=2.0)
    expected = (np.asarray(values * confidence(world.teacher.logits_BC, by=by)))[where]
    assert float(total) == pytest.approx(2 * expected.mean(), rel=1e-5)
    assert float(parts["kl"][1]) == where.sum()
    assert f"weigh='{by}'" in resolved.structure


def test_equally_is_the_term_as_it_was(world):
    plain, equally = fitted("kl", world), fitted("kl(weigh='equally')", world)
    assert plain == equally and plain.structure == equally.structure == "#*kl(T=#)"
    both = fitted("kl(standardize=True, weigh='certainty')", world)
    assert both.structure != fitted("kl(standardize=True)", world).structure


def test_what_has_no_classes_or_no_teacher_is_not_weighed(world):
    one = ModelShape(1, 8, 2, num_labels=1)
    with pytest.raises(UserError, match="there is one output"):
        resolve("mse_logits(weigh='certainty')", one, one)
    with pytest.raises(UserError, match="unknown argument of ce 'weigh'"):
        fitted("ce(weigh='confidence')", world)
    with pytest.raises(UserError, match="must be one of: 'equally', 'confidence', 'certainty'"):
        fitted("kl(weigh='much')", world)
