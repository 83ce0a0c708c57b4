"""Recipes: objectives fit their shapes, and without padding are the released code's formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import released
from scipy.special import log_softmax, softmax

from distill_jax.core.errors import UserError
from distill_jax.core.types import Batch, ModelOutput, ModelShape
from distill_jax.models.bert import Bert, init_bert
from distill_jax.models.students import parse_preset
from distill_jax.objectives.grammar import parse
from distill_jax.objectives.resolve import resolve
from distill_jax.tables.published import load_published
from distill_jax.tasks.classification.recipe_costs import (
    config_of,
    forward_operations,
    step_operations,
)
from distill_jax.tasks.classification.recipes import (
    BERT_BASE,
    RECIPES,
    VOCABULARY,
    RecipeStage,
    Size,
    Start,
    find_recipe,
)
from distill_jax.training.optimizer import make_optimizer

STAGES = [(recipe, stage) for recipe in RECIPES for stage in recipe.stages]
IDS = [f"{recipe.name}-{stage.name}" for recipe, stage in STAGES]
B, T = 3, 5


@pytest.mark.parametrize(("recipe", "stage"), STAGES, ids=IDS)
def test_objectives_fit_their_shapes(recipe, stage):
    assert str(parse(stage.objective)) == stage.objective
    resolved = resolve(
        stage.objective, config_of(recipe.student).shape, config_of(recipe.teacher.size).shape
    )
    assert resolved.needs_teacher == (stage.name != "fine-tuning")


@pytest.mark.parametrize(("recipe", "stage"), STAGES, ids=IDS)
def test_stages_are_what_the_engine_takes(recipe, stage):
    training = stage.training()
    assert training.optimizer.learning_rate == stage.learning_rate
    assert training.optimizer.schedule == stage.schedule
    assert stage.steps() == training.total_steps(67_349) > 1000
    assert stage.steps(100) == round(stage.epochs * -(-100 // stage.batch_size))


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_every_recipe_says_where_it_was_read(recipe):
    assert recipe.verified
    assert "arXiv:" in recipe.paper
    assert BERT_BASE.weights in recipe.weights
    assert recipe.start.weights is None or recipe.start.weights in recipe.weights
    if recipe.published is not None:
        assert recipe.published in load_published("glue_sst2").rows


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_starts_are_possible(recipe):
    start = recipe.start
    assert not (start.layers and start.weights)
    if start.layers:
        assert len(start.layers) == recipe.student.num_layers
        assert all(1 <= layer <= recipe.teacher.size.num_layers for layer in start.layers)
        assert recipe.student.hidden_size == recipe.teacher.size.hidden_size
    elif start == Start():
        size = recipe.student
        preset = parse_preset(f"{size}x{size.num_heads}")
        assert (preset.num_layers, preset.hidden_size) == (size.num_layers, size.hidden_size)


def test_names_are_unique_and_found():
    assert len({recipe.name for recipe in RECIPES}) == len(RECIPES)
    assert find_recipe("pkd-6") in RECIPES
    with pytest.raises(UserError, match="Did you mean 'pkd-6'"):
        find_recipe("pkd6")


def output(seed, shape):
    rng = np.random.default_rng(seed)

    def draw(*sizes):
        return jnp.asarray(rng.normal(size=sizes), jnp.float32)

    heads = shape.num_heads
    return ModelOutput(
        logits_BC=draw(B, shape.num_labels),
        hidden_states={i: draw(B, T, shape.hidden_size) for i in range(shape.num_layers + 1)},
        attention_scores={i: draw(B, heads, T, T) for i in range(1, shape.num_layers + 1)},
    )


def value(objective, student_shape, teacher_shape, student, teacher, labels, where=None):
    resolved = resolve(objective, student_shape, teacher_shape)
    ids = jnp.zeros((B, T), jnp.int32)
    batch = Batch(
        example_ids_B=jnp.arange(B, dtype=jnp.int32),
        input_ids_BT=ids,
        token_type_ids_BT=ids,
        where_BT=jnp.ones((B, T), bool) if where is None else jnp.asarray(where),
        labels_B=jnp.asarray(labels, jnp.int32),
        label_where_B=jnp.ones(B, bool),
    )
    params = resolved.init_params(jax.random.key(0))
    total, _ = resolved(params, resolved.numbers(0, 1), student, teacher, batch)
    return float(total), params


@pytest.mark.parametrize(
    ("name", "layers", "alpha", "temperature", "beta", "pairs"),
    [
        ("pkd-6", 6, 0.5, 10, 100, [(1, 2), (2, 4), (3, 6), (4, 8), (5, 10)]),
        ("pkd-3", 3, 0.2, 20, 1, [(1, 10), (2, 11)]),
    ],
)
def test_pkd_is_the_released_code(name, layers, alpha, temperature, beta, pairs):
    """KLDivLoss(reduction="mean") over B and C times T^2; mse_loss over B, layers and features."""
    shapes = ModelShape(layers, 8, 2, 2), ModelShape(12, 8, 2, 2)
    student, teacher = output(1, shapes[0]), output(2, shapes[1])
    labels = [0, 1, 1]
    z, t = np.float64(student.logits_BC), np.float64(teacher.logits_BC)
    log_s, log_t = log_softmax(z / temperature, axis=1), log_softmax(t / temperature, axis=1)
    kl = (softmax(t / temperature, axis=1) * (log_t - log_s)).mean() * temperature**2
    ce = -log_softmax(z, axis=1)[np.arange(B), labels].mean()

    def first(outputs, layer):
        h = np.float64(outputs.hidden_states[layer][:, 0])
        return h / np.linalg.norm(h, axis=1, keepdims=True)

    pt = np.mean([(first(student, s) - first(teacher, t)) ** 2 for s, t in pairs])
    (stage,) = find_recipe(name).stages
    total, _ = value(stage.objective, *shapes, student, teacher, labels)
    assert total == pytest.approx((1 - alpha) * ce + alpha * kl + beta * pt, rel=1e-4)


@pytest.mark.parametrize(("name", "layers"), [("tinybert-4", 4), ("tinybert-6", 6)])
def test_tinybert_sums_over_layers_as_the_released_code(name, layers):
    """The sum over layers of MSELoss on scores, and on projected hidden states and embeddings."""
    shapes = ModelShape(layers, 8, 2, 2), ModelShape(12, 8, 2, 2)
    student, teacher = output(3, shapes[0]), output(4, shapes[1])
    # At equal widths and without a projection the sum can be written down.
    objective = find_recipe(name).stages[0].objective.replace(", projection=True", "")
    step = 12 // layers
    expected = 0.0
    for i in range(1, layers + 1):
        s, t = student.attention_scores[i], teacher.attention_scores[i * step]
        expected += float(np.mean((np.float64(s) - np.float64(t)) ** 2))
    for i in range(layers + 1):
        s, t = student.hidden_states[i], teacher.hidden_states[i * step]
        expected += float(np.mean((np.float64(s) - np.float64(t)) ** 2))
    total, params = value(objective, *shapes, student, teacher, [0, 1, 0])
    assert not params
    assert total == pytest.approx(expected, rel=1e-4)


def test_tinybert_of_padded_sentences_departs_as_it_says():
    """Of n tokens of T the released attention loss is n/T of ours, that of hidden states is ours.

    The scores differ by 1 everywhere, so that every place says the same.
    """
    recipe = find_recipe("tinybert-4")
    assert any("about n/128" in words for words in recipe.departures)
    shapes = ModelShape(4, 8, 2, 2), ModelShape(12, 8, 2, 2)
    teacher = output(4, shapes[1])
    student = output(3, shapes[0]).replace(
        attention_scores={i: teacher.attention_scores[3 * i] + 1 for i in range(1, 5)},
        hidden_states={i: teacher.hidden_states[3 * i] + 1 for i in range(5)},
    )
    where = np.arange(T) < np.full((B, 1), 2)
    attention, hidden = recipe.stages[0].objective.split(" + ")
    ours = value(attention, *shapes, student, teacher, [0, 1, 0], where)[0]
    theirs = sum(
        released.tinybert_attention(
            np.float64(student.attention_scores[i]),
            np.float64(teacher.attention_scores[3 * i]),
            where,
        )
        for i in range(1, 5)
    )
    assert theirs == pytest.approx(ours * 2 / T, rel=1e-5)
    assert value(hidden, *shapes, student, teacher, [0, 1, 0], where)[0] == pytest.approx(5)


@pytest.mark.parametrize("name", ["tinybert-4", "pkd-3"])
def test_adam_departs_as_it_says(name):
    """Its first step is the learning rate, whatever the gradient; without correction 3.2 of it."""
    recipe = find_recipe(name)
    assert any("bias correction" in words for words in recipe.departures)
    config = recipe.stages[0].training().optimizer
    assert (config.eps, config.clip_norm, config.b2) == (1e-8, 1.0, 0.999)
    optimizer = make_optimizer(config)
    params = {"a": jnp.zeros(3), "b": jnp.zeros(2)}
    gradients = {"a": jnp.float32([0.1, -0.2, 0.1]), "b": jnp.float32([3, -4])}
    updates, _ = optimizer.update(gradients, optimizer.init(params), params)
    for key in "ab":
        np.testing.assert_allclose(np.abs(updates[key]), 1, rtol=1e-4)
    theirs = released.bert_adam_first_update([np.float64(gradients[key]) for key in "ab"])
    for update in theirs:
        np.testing.assert_allclose(np.abs(update), 0.1 / np.sqrt(0.001), rtol=1e-3)


def test_hidden_cosine_is_the_1_of_distilbert_s_5_2_1():
    """That of the last layers; its default once was all of them."""
    shapes = ModelShape(6, 8, 2, 2), ModelShape(12, 8, 2, 2)
    student, teacher = output(7, shapes[0]), output(8, shapes[1])
    where = np.arange(T) < np.full((B, 1), 3)
    sides = [
        np.float64([x.hidden_states[i] for i in sorted(x.hidden_states)])
        for x in (student, teacher)
    ]
    expected = released.distilbert_cosine(*sides, where)
    given = (*shapes, student, teacher, [0, 1, 0], where)
    assert value("hidden_cosine", *given)[0] == pytest.approx(expected, rel=1e-5)
    assert value("hidden_cosine(layers={-1: -1})", *given)[0] == pytest.approx(expected, rel=1e-5)
    assert abs(value("hidden_cosine(layers='uniform')", *given)[0] / expected - 1) > 0.01


def test_tinybert_learns_projections():
    for name, width in (("tinybert-4", 312), ("tinybert-6", 768)):
        recipe = find_recipe(name)
        assert recipe.student.hidden_size == width
        resolved = resolve(
            recipe.stages[0].objective,
            config_of(recipe.student).shape,
            config_of(BERT_BASE.size).shape,
        )
        assert any(f"a learned projection {width} -> 768" in note for note in resolved.notes)


def test_tinybert_predicts_with_the_mean_over_classes():
    shapes = ModelShape(4, 8, 2, 2), ModelShape(12, 8, 2, 2)
    student, teacher = output(5, shapes[0]), output(6, shapes[1])
    z, t = np.float64(student.logits_BC), np.float64(teacher.logits_BC)
    expected = (-softmax(t, axis=1) * log_softmax(z, axis=1)).mean()
    objective = find_recipe("tinybert-4").stages[1].objective
    assert value(objective, *shapes, student, teacher, [0, 1, 0])[0] == pytest.approx(
        expected, rel=1e-4
    )


def test_distilbert_is_the_released_code():
    """batchmean KL times T^2 with weight 0.5, and 0.5 times the cross-entropy."""
    shapes = ModelShape(6, 8, 2, 2), ModelShape(12, 8, 2, 2)
    student, teacher = output(7, shapes[0]), output(8, shapes[1])
    z, t = np.float64(student.logits_BC), np.float64(teacher.logits_BC)
    log_s, log_t = log_softmax(z / 2, axis=1), log_softmax(t / 2, axis=1)
    kl = (np.exp(log_t) * (log_t - log_s)).sum(axis=1).mean() * 4
    ce = -log_softmax(z, axis=1)[np.arange(B), [1, 0, 1]].mean()
    (stage,) = find_recipe("distilbert").stages
    total, _ = value(stage.objective, *shapes, student, teacher, [1, 0, 1])
    assert total == pytest.approx(0.5 * kl + 0.5 * ce, rel=1e-4)


def test_sizes():
    config = config_of(find_recipe("tinybert-4").student)
    assert (config.intermediate_size, config.vocab_size) == (1200, VOCABULARY)
    assert config_of(find_recipe("turc-mini").student).intermediate_size == 1024
    assert str(Size(6, 384, 12)) == "6x384"


@pytest.mark.parametrize("size", [Size(1, 64, 2), Size(3, 128, 4, 200)])
def test_operations_are_those_that_the_compiler_counts(size):
    """Up to what is no matrix product: less, the wider the model."""
    config = config_of(size, 100)
    ids_BT = np.zeros((4, 16), np.int32)
    rows_B = np.arange(4, dtype=np.int32)
    batch = Batch(rows_B, ids_BT, ids_BT, ids_BT == 0, rows_B % 2, rows_B >= 0)
    params = jax.eval_shape(lambda key: init_bert(config, key), jax.random.key(0))
    forward = jax.jit(lambda params: Bert(config).apply({"params": params}, batch).logits_BC)
    counted = forward.lower(params).compile().cost_analysis()["flops"]
    assert 0.8 * counted < forward_operations(size, 4, 16) < counted


def test_a_step_goes_forth_and_twice_back_and_hears_the_teacher():
    own, teacher = Size(1, 16, 2), Size(2, 32, 2)
    alone, taught = RecipeStage("a", "ce", 1, 4, 1e-3), RecipeStage("b", "kl + ce", 1, 4, 1e-3)
    forth = forward_operations(own, 4, 8)
    assert step_operations(alone, own, teacher, 8) == 3 * forth
    heard = step_operations(taught, own, teacher, 8) - 3 * forth
    assert heard == pytest.approx(forward_operations(teacher, 4, 8))
