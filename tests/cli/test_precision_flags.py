"""What computes in bfloat16 where nobody says, and what is said of it."""

import pytest

from distill_jax.cli.compare import sweep_of
from distill_jax.cli.compare_flags import PRESETS, CompareLosses


def precisions(args):
    base = sweep_of(args).base
    return base.precision, base.setup.teacher.precision, base.setup.teacher.training_precision


def said(args):
    return [line for line in sweep_of(args).protocol if "bfloat16" in line]


def test_the_default_table_and_its_teacher_do():
    assert precisions(CompareLosses()) == ("bf16", "bf16", "bf16")
    (line,) = said(CompareLosses())
    assert line.startswith("In bfloat16 teacher and students compute;")
    assert sweep_of(CompareLosses()).base.training.max_shapes == 5


@pytest.mark.parametrize("preset", sorted(set(PRESETS) - {"default"}))
def test_other_presets_do_not(preset):
    assert precisions(PRESETS[preset]) == ("f32", "f32", "f32")
    assert said(PRESETS[preset]) == []


def test_data_of_the_users_own_do_not():
    args = CompareLosses(data="files:here")
    assert precisions(args) == ("f32", "f32", "f32")
    assert sweep_of(args).base.training.max_shapes == 16


def test_students_that_cannot_do_not():
    args = CompareLosses(students=("cnn-4-8-16",))
    assert precisions(args) == ("f32", "f32", "f32")


def test_flags_decide_each_by_itself():
    args = CompareLosses(precision="bf16-params", teacher_training_precision="f32")
    assert precisions(args) == ("bf16-params", "bf16", "f32")
    (line,) = said(args)
    assert "students compute, the teacher speaks" in line and "fine-tuned" not in line
    assert precisions(CompareLosses(precision="f32")) == ("f32", "f32", "f32")
    assert sweep_of(CompareLosses(max_shapes=2)).base.training.max_shapes == 2
