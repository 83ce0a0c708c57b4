"""The user's own losses."""

import jax
import numpy as np
import pytest

from distill_jax.core.errors import UserError
from distill_jax.core.types import Capture
from distill_jax.objectives.catalogue import describe
from distill_jax.objectives.plugins import load_plugin
from distill_jax.objectives.registry import names
from distill_jax.objectives.resolve import resolve

PLUGIN = '''
import jax.numpy as jnp
from distill_jax.losses.numeric import constant_pair, number
from distill_jax.objectives.plugin_api import Interval, LogitFeed, register


@register(feed=LogitFeed(), ranges={"power": Interval(1)})
def power_gap(student, teacher, *, where=None, power: float = 2.0):
    """Mean |difference| to a power."""
    student, teacher, mask = constant_pair(student, teacher, where, inner=1)
    gap = jnp.mean(jnp.abs(student - teacher) ** number(power, student), axis=-1)
    return jnp.where(mask, gap, 0)
'''


ON_PROBABILITIES = '''
import jax.numpy as jnp
from distill_jax.objectives.plugin_api import InnerFeed, register


@register(feed=InnerFeed(parts=("attention_probs",)))
def probability_gap(student, teacher, *, where=None):
    """Difference of the mean probabilities."""
    axes = (1, 2, 3)
    return jnp.abs(jnp.mean(student, axis=axes) - jnp.mean(teacher, axis=axes))
'''


pytestmark = pytest.mark.usefixtures("own_registry")


def test_a_loss_from_the_users_file_is_one_like_any_other(tmp_path, world):
    file = tmp_path / "mylosses.py"
    file.write_text(PLUGIN, encoding="utf-8")
    assert "power_gap" not in names()
    assert load_plugin(file) == ("power_gap",)
    assert load_plugin(file) == ()  # the second time nothing happens
    assert "power (default 2): a number in (1, inf)" in describe("power_gap")
    resolved = resolve("0.5*power_gap(power=3)", world.student_shape, world.teacher_shape)
    numbers = resolved.numbers(0, 1)
    total, _ = resolved({}, numbers, world.student, world.teacher, world.batch)
    gap = np.abs(world.student.logits_BC - world.teacher.logits_BC)[:5] ** 3
    np.testing.assert_allclose(total, 0.5 * gap.mean(axis=-1).mean(), rtol=1e-5)
    with pytest.raises(UserError, match="power of power_gap"):
        resolve("power_gap(power=1)", world.student_shape, world.teacher_shape)
    assert jax.tree.leaves(resolved.init_params(jax.random.key(0))) == []


def test_a_loss_of_the_users_may_read_attention_probabilities(tmp_path, world):
    file = tmp_path / "on_probabilities.py"
    file.write_text(ON_PROBABILITIES, encoding="utf-8")
    load_plugin(file)
    resolved = resolve("probability_gap(layers={1: 2})", world.student_shape, world.teacher_shape)
    assert resolved.student_capture == Capture(attention_probs=(1,))
    assert resolved.teacher_capture == Capture(attention_probs=(2,))
    student = resolved.student_capture.select(world.student)
    total, _ = resolved({}, resolved.numbers(0, 1), student, world.teacher, world.batch)
    ours, theirs = world.student.attention_probs[1], world.teacher.attention_probs[2]
    gap = np.abs(ours.mean(axis=(1, 2, 3)) - theirs.mean(axis=(1, 2, 3)))[:5]
    np.testing.assert_allclose(total, gap.mean(), rtol=1e-5)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "not a Python file"),
        ("x = 1", "registers no loss"),
        ("import nowhere_to_be_found", "ModuleNotFoundError"),
        ("def f(:", "SyntaxError"),
    ],
)
def test_files_that_are_no_plugins_are_refused(tmp_path, content, words):
    file = tmp_path / "bad.py"
    if content is not None:
        file.write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=words):
        load_plugin(file)


def test_a_plugin_that_fails_half_way_leaves_nothing_behind(tmp_path):
    file = tmp_path / "half.py"
    file.write_text(PLUGIN + "\n1 / 0\n", encoding="utf-8")
    with pytest.raises(UserError, match="ZeroDivisionError"):
        load_plugin(file)
    assert "power_gap" not in names()
