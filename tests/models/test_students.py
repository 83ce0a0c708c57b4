import dataclasses

import jax
import numpy as np
import pytest

from distill_jax.core.errors import UserError
from distill_jax.models.bert import Bert, BertConfig, init_bert
from distill_jax.models.students import (
    PRESETS,
    choose_layers,
    init_student,
    parse_preset,
    student_config,
)

TEACHER = BertConfig(
    vocab_size=60,
    hidden_size=24,
    num_layers=6,
    num_heads=3,
    intermediate_size=40,
    max_positions=16,
    pooling="mean",
    num_labels=3,
)


@pytest.fixture(scope="module")
def teacher_params():
    return init_bert(TEACHER, jax.random.key(0))


def equal(one, two):
    return jax.tree.all(jax.tree.map(np.array_equal, one, two))


NARROW = [name for name, preset in PRESETS.items() if (preset.hidden_size or 0) <= 128]


@pytest.mark.parametrize("preset", [*NARROW, "3x20x5", "minilm-1x24"])
def test_every_preset_runs_and_fits_its_config(preset, teacher_params, make_batch):
    config = student_config(preset, TEACHER)
    params = init_student(preset, TEACHER, teacher_params, jax.random.key(1))
    shapes = jax.eval_shape(lambda rng: init_bert(config, rng), jax.random.key(0))
    assert jax.tree.map(np.shape, params) == jax.tree.map(np.shape, shapes)
    output = jax.eval_shape(Bert(config).apply, {"params": params}, make_batch([5, 3], 8))
    assert output.logits_BC.shape == (2, 3)
    assert len(output.hidden_states) == config.num_layers + 1


@pytest.mark.parametrize(
    ("preset", "sizes"),
    [
        ("tiny", (2, 128, 2, 512)),
        ("mini", (4, 256, 4, 1024)),
        ("small", (4, 512, 8, 2048)),
        ("medium", (8, 512, 8, 2048)),
        ("tinybert-4", (4, 312, 12, 1200)),
        ("tinybert-6", (6, 768, 12, 3072)),
        ("minilm-6x384", (6, 384, 12, 1536)),
    ],
)
def test_published_shapes(preset, sizes):
    config = student_config(preset, TEACHER)
    found = config.num_layers, config.hidden_size, config.num_heads, config.intermediate_size
    assert found == sizes
    assert config.num_labels == TEACHER.num_labels and config.pooling == "mean"


def test_tiny_is_two_layers_of_width_128_and_random(teacher_params):
    config = student_config("tiny", TEACHER)
    assert (config.num_layers, config.hidden_size, config.num_heads) == (2, 128, 2)
    assert config.intermediate_size == 512
    assert (config.vocab_size, config.pooling, config.num_labels) == (60, "mean", 3)
    one, two = (
        init_student("tiny", TEACHER, teacher_params, jax.random.key(seed)) for seed in (0, 1)
    )
    assert not equal(one["embeddings"]["word"], two["embeddings"]["word"])


@pytest.mark.parametrize(
    ("layers", "copied"), [("spread", (2, 4, 6)), ("first", (1, 2, 3)), ("last", (4, 5, 6))]
)
def test_l3_is_copied_from_the_chosen_layers(teacher_params, layers, copied):
    student = init_student("l3", TEACHER, teacher_params, jax.random.key(1), layers=layers)
    for number, layer in enumerate(copied, start=1):
        assert equal(student[f"layer_{number}"], teacher_params[f"layer_{layer}"])
    assert equal(student["embeddings"], teacher_params["embeddings"])
    assert not equal(student["classifier"], teacher_params["classifier"])


def test_explicit_layers_keep_their_order(teacher_params):
    """Trap 10."""
    student = init_student("l2", TEACHER, teacher_params, jax.random.key(1), layers=(5, 2))
    assert equal(student["layer_1"], teacher_params["layer_5"])
    assert equal(student["layer_2"], teacher_params["layer_2"])


def test_the_fresh_head_depends_on_the_key(teacher_params):
    one = init_student("l2", TEACHER, teacher_params, jax.random.key(1))
    two = init_student("l2", TEACHER, teacher_params, jax.random.key(2))
    assert not equal(one["classifier"]["kernel"], two["classifier"]["kernel"])


def test_pooler_is_copied():
    config = dataclasses.replace(TEACHER, num_layers=2, pooling="pooler")
    params = init_bert(config, jax.random.key(0))
    student = init_student("l2", config, params, jax.random.key(1))
    assert equal(student["pooling"], params["pooling"])


@pytest.mark.parametrize("preset", ["tiny", "l2"])
@pytest.mark.parametrize("pooling", ["pooler", "mean", "cls"])
def test_a_student_has_the_pooling_that_is_asked_for(teacher_params, make_batch, preset, pooling):
    """The teacher's head reads the mean; a pooler is drawn, and is there with no other."""
    config = student_config(preset, TEACHER, pooling=pooling)
    params = init_student(preset, TEACHER, teacher_params, jax.random.key(1), pooling=pooling)
    assert config.pooling == pooling
    assert ("pooling" in params) == (pooling == "pooler")
    shapes = jax.eval_shape(lambda rng: init_bert(config, rng), jax.random.key(0))
    assert jax.tree.map(np.shape, params) == jax.tree.map(np.shape, shapes)
    if preset == "l2":
        usual = init_student(preset, TEACHER, teacher_params, jax.random.key(1))
        assert equal({**params, "pooling": 0}, {**usual, "pooling": 0})
    if pooling == "pooler":
        assert np.std(params["pooling"]["dense"]["kernel"]) > 0


def test_a_pooler_of_the_teacher_is_left_where_it_is_not_read():
    config = dataclasses.replace(TEACHER, num_layers=2, pooling="pooler")
    params = init_bert(config, jax.random.key(0))
    student = init_student("l2", config, params, jax.random.key(1), pooling="mean")
    assert "pooling" not in student


def test_a_student_shares_no_buffer_with_the_teacher(teacher_params):
    """A donated step deletes the student's old buffers; the teacher must survive it."""
    before = jax.tree.map(np.array, teacher_params)
    student = init_student("l3", TEACHER, teacher_params, jax.random.key(1))
    for leaf in jax.tree.leaves(student):
        leaf.delete()
    assert equal(teacher_params, before)


@pytest.mark.parametrize("student", range(1, 13))
@pytest.mark.parametrize("teacher", [1, 2, 6, 12])
def test_named_choices_are_increasing_and_within_the_teacher(student, teacher):
    for choice in ("spread", "first", "last"):
        if student > teacher:
            with pytest.raises(UserError, match="cannot be copied"):
                choose_layers(choice, student_layers=student, teacher_layers=teacher)
            continue
        chosen = choose_layers(choice, student_layers=student, teacher_layers=teacher)
        assert len(chosen) == student
        assert list(chosen) == sorted(set(chosen))
        assert chosen[0] >= 1
        assert chosen[-1] == (student if choice == "first" else teacher)


def test_wrong_words_are_refused(teacher_params):
    with pytest.raises(UserError, match=r"unknown student 'tinny'.*Did you mean 'tiny'"):
        student_config("tinny", TEACHER)
    with pytest.raises(UserError, match="100 is not a multiple of 3 heads"):
        parse_preset("2x100x3")
    with pytest.raises(UserError, match="unknown choice of teacher layers 'spraed'"):
        choose_layers("spraed", student_layers=2, teacher_layers=6)
    with pytest.raises(UserError, match="no teacher layer 7; allowed: 1 to 6"):
        choose_layers((1, 7), student_layers=2, teacher_layers=6)
    with pytest.raises(UserError, match="3 teacher layers"):
        choose_layers((1, 2, 3), student_layers=2, teacher_layers=6)
