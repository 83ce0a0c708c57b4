"""Teachers who say nothing of some examples, and who count by how sure they are."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from distill_jax import losses
from distill_jax.core.errors import UserError
from distill_jax.core.types import ModelOutput, ModelShape
from distill_jax.losses.teachers import TRUSTS, trust
from distill_jax.objectives.resolve import resolve

HEARD = np.array([True, False, True, True, False, True])
REAL = np.arange(6) < 5


def heard(output, where=HEARD):
    return output.replace(heard_B=jnp.asarray(where))


def value(text, world, *teachers):
    shapes = [world.teacher_shape] * len(teachers)
    resolved = resolve(text, world.student_shape, shapes)
    said = teachers[0] if len(teachers) == 1 else teachers
    compute = jax.jit(resolved)
    total, parts = compute({}, resolved.numbers(0, 1), world.student, said, world.batch)
    return float(total), {name: (float(s), int(n)) for name, (s, n) in parts.items()}


@pytest.mark.parametrize(
    "text", ["kl(T=2)", "mse_logits", "listnet", "dist", "rkd_distance(on='logits')", "dkd"]
)
def test_where_a_teacher_says_nothing_its_words_do_not_matter(text, world):
    """Also not through other examples of the batch, where a loss compares them."""
    one = heard(world.teacher)
    other = one.replace(logits_BC=jnp.where(HEARD[:, None], one.logits_BC, 1e6))
    total, parts = value(text, world, one)
    assert (total, parts) == value(text, world, other)
    assert np.isfinite(total) and total != 0
    labelled = np.arange(6) < 4
    counted = HEARD & REAL & (labelled if text == "dkd" else True)
    assert next(iter(parts.values()))[1] == counted.sum()


def test_it_is_the_loss_over_what_was_said(world):
    total, _ = value("kl", world, heard(world.teacher))
    where = HEARD & REAL
    alone = losses.kl(world.student.logits_BC, world.teacher.logits_BC, where=where)
    np.testing.assert_allclose(total, np.asarray(alone).sum() / where.sum(), rtol=1e-5)


def test_labels_count_where_the_teacher_is_silent(world):
    """Four of the five examples have one."""
    _, parts = value("pseudo_ce", world, heard(world.teacher, np.zeros(6, bool)))
    assert parts["pseudo_ce"][1] == 4
    _, parts = value("pseudo_ce", world, heard(world.teacher, np.ones(6, bool)))
    assert parts["pseudo_ce"][1] == 5


@pytest.mark.parametrize("how", ["each", "mean_probabilities", "mean_logits"])
def test_of_several_those_count_who_speak(how, world):
    text = f"kl(teachers='{how}')" if how != "each" else "kl"
    one, two = world.teacher, world.make_output(world.teacher_shape, 9)
    silent = np.zeros(6, bool)
    total, parts = value(text, world, one, heard(two, silent))
    alone, _ = value("kl", world, one)
    assert total == pytest.approx(alone, rel=1e-5) and parts["kl"][1] == 5
    _, parts = value(text, world, heard(one), heard(two, silent))
    assert parts["kl"][1] == (HEARD & REAL).sum()
    total, _ = value(text, world, heard(one, ~silent), heard(two, ~silent))
    both, _ = value(text, world, one, two)
    assert total == pytest.approx(both, rel=1e-5)


@pytest.mark.parametrize("by", TRUSTS)
@pytest.mark.parametrize("how", ["each", "mean_probabilities"])
def test_each_counts_as_much_as_it_is_sure(by, how, world):
    one, two = world.teacher, world.make_output(world.teacher_shape, 9)
    given = {"labels": world.batch.labels_B, "known": world.batch.label_where_B}
    sure = np.stack([trust(t.logits_BC, by=by, **given) for t in (one, two)])
    share = sure / sure.sum(axis=0)
    z = world.student.logits_BC
    if how == "each":
        kls = [np.asarray(losses.kl(z, t.logits_BC, where=REAL)) for t in (one, two)]
        expected = (share * np.stack(kls)).sum(axis=0)
    else:
        stacked = np.stack([one.logits_BC, two.logits_BC])
        mixed = losses.mean_probabilities(stacked, weights=share)
        expected = np.asarray(losses.kl(z, mixed, where=REAL))
    total, _ = value(f"kl(teachers='{how}', trust='{by}')", world, one, two)
    np.testing.assert_allclose(total, expected[:5].sum() / 5, rtol=1e-4)


def test_trust_is_part_of_what_is_compiled(world):
    shapes = [world.teacher_shape] * 2
    plain, sure = (
        resolve(text, world.student_shape, shapes) for text in ("kl", "kl(trust='certainty')")
    )
    assert plain != sure and "trust" not in plain.structure


def test_trust_where_there_is_nobody_to_choose_or_nothing_to_be_sure_of():
    one = ModelShape(2, 8, 2, 1)
    with pytest.raises(UserError, match="teachers that say probabilities of classes"):
        resolve("mse_logits(trust='certainty')", one, [one, one])
    with pytest.raises(UserError, match="trust has no meaning with one teacher"):
        resolve("mse_logits(trust='certainty')", one, one)


def test_a_selection_keeps_who_was_heard(world):
    resolved = resolve("kl", world.student_shape, world.teacher_shape)
    assert resolved.heard(heard(world.teacher)).heard_B is not None
    assert ModelOutput().heard_B is None
