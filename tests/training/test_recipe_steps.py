"""Recipes at work in a step: by hand, in parts, on several devices, in every precision."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from distill_jax.core.errors import UserError
from distill_jax.core.mesh import make_mesh, make_placement
from distill_jax.core.types import ModelOutput
from distill_jax.data.plan import choose_lengths, make_batch, plan_in_order
from distill_jax.losses.consistency import symmetric_kl
from distill_jax.models.bert import Bert, init_bert
from distill_jax.objectives.resolve import resolve
from distill_jax.teachers.live import LiveTeacher
from distill_jax.training.ingredients.attack import along, shifted
from distill_jax.training.ingredients.base import Adapted
from distill_jax.training.layout import Layout
from distill_jax.training.loop import step_numbers
from distill_jax.training.optimizer import OptimizerConfig, make_optimizer, stopping_at_frozen
from distill_jax.training.population import PopulationStep, stack_members
from distill_jax.training.recipe import parse_recipe
from distill_jax.training.state import init_state
from distill_jax.training.step import make_step

USUAL = OptimizerConfig(learning_rate=1e-2, warmup=0.0)
EMBEDDINGS = ("embeddings", "word", "embedding")
RECIPES = ("freelb(2, rate=0.1, epsilon=0.4) + bitfit", "fgm(0.5) + lora(2) + rdrop")
"""Between them all ingredients."""


@dataclasses.dataclass
class World:
    """A student, a batch, what the teacher says of it, and steps by recipe."""

    config: object
    shapes: tuple
    params: object
    batch: object
    speaker: object

    def made(self, recipe, *, text="kl + 0.5*ce", dtype=jnp.float32, rates=(), **given):
        """Step, state, what the step is given beside it, and the recipe."""
        recipe = parse_recipe(recipe)
        optimizer = recipe.optimizer(dataclasses.replace(USUAL, rates=rates))
        objective = resolve(text, *self.shapes)
        model, params = Bert(self.config, dtype), self.params
        if recipe.adapter:
            model, params = Adapted(model, recipe.adapter), recipe.adapter.start(params, 5)
        step = make_step(
            model,
            objective,
            make_optimizer(optimizer),
            recipe=recipe,
            embeddings=EMBEDDINGS,
            stopped=stopping_at_frozen(optimizer),
            **given,
        )
        state = init_state(params, objective.init_params(jax.random.key(3)), make_optimizer(USUAL))
        said = self.speaker(self.batch)
        return step, state, (self.batch, said, step_numbers(objective, optimizer, 0, 0, 10)), recipe


@pytest.fixture(scope="module")
def world(toy_table, student, teacher, student_config, teacher_config):
    plan = plan_in_order(toy_table.lengths_N, choose_lengths(toy_table.lengths_N), batch_size=16)
    planned = next(planned for planned in plan if len(planned.rows) < 16)
    batch = make_batch(toy_table, planned, batch_size=16)
    shapes = (student_config.shape, teacher_config.shape)
    speaker = LiveTeacher(*teacher, resolve("kl", *shapes).teacher_capture)
    return World(student_config, shapes, student[1], batch, speaker)


def assert_close(left, right, **tolerance):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **tolerance), left, right)


def own_logits(world, params, key, shift=None):
    with shifted(EMBEDDINGS, shift):
        said = Bert(world.config).apply(
            {"params": params}, world.batch, train=True, rngs={"dropout": key}
        )
    return ModelOutput(logits_BC=said.logits_BC)


def value_of(world, text="kl + 0.5*ce"):
    objective = resolve(text, *world.shapes)
    said = world.speaker(world.batch)
    return lambda own: objective({}, objective.numbers(0, 10), own, said, world.batch)[0]


@pytest.mark.parametrize("passes", ["sum", "mean"])
def test_rdrop_is_two_passes_and_their_divergence(world, passes):
    step, state, given, _ = world.made(f"rdrop(2.0, passes='{passes}')")
    _, metrics = jax.jit(step)(state, *given)
    key = jax.random.fold_in(jax.random.key(0), 0)
    own = [own_logits(world, world.params, k) for k in (key, jax.random.fold_in(key, 1))]
    assert not np.allclose(own[0].logits_BC, own[1].logits_BC)
    where_B = world.batch.where_B
    apart = float(symmetric_kl(own[0].logits_BC, own[1].logits_BC, where=where_B).sum())
    value, share = value_of(world), 1 if passes == "sum" else 0.5
    both = float(value(own[0])) + float(value(own[1]))
    expected = share * both + 2 * apart / int(where_B.sum())
    assert float(metrics.loss) == pytest.approx(expected, rel=1e-5)
    assert float(metrics.terms["rdrop"][0]) == pytest.approx(apart, rel=1e-5)


def test_fgm_goes_where_the_loss_grows(world):
    step, state, given, _ = world.made("fgm(0.5, weight=2.0)")
    _, metrics = jax.jit(step)(state, *given)
    key = jax.random.fold_in(jax.random.key(0), 0)
    value = value_of(world)

    def of(shift):
        return value(own_logits(world, world.params, key, shift))

    zeros = jnp.zeros((*world.batch.where_BT.shape, world.config.hidden_size))
    slope = jax.grad(of)(zeros)
    lengths = jnp.sqrt(jnp.sum(slope**2, axis=(1, 2), keepdims=True))
    worse = of(0.5 * slope / jnp.maximum(lengths, 1e-20))
    assert float(worse) > float(of(zeros)) + 1e-4
    assert float(metrics.loss) == pytest.approx(float(of(zeros) + 2 * worse), rel=1e-5)
    assert float(metrics.terms["fgm"][0]) == pytest.approx(float(worse), rel=1e-5)


def test_freelb_climbs_within_its_ball(world):
    """Of one step its gradient is that of the first shift; of more each is worse than the last."""
    losses = []
    for steps in (1, 2, 4):
        step, state, given, _ = world.made(f"freelb({steps}, rate=0.3, epsilon=0.5)")
        losses.append(float(jax.jit(step)(state, *given)[1].loss))
    assert losses[0] < losses[1] < losses[2]
    tight, *_ = [world.made("freelb(4, rate=0.3, epsilon=1e-6)")]
    step, state, given, _ = tight
    plain, state_2, given_2, _ = world.made("")
    assert float(jax.jit(step)(state, *given)[1].loss) == pytest.approx(
        float(jax.jit(plain)(state_2, *given_2)[1].loss), rel=1e-4
    )


def test_a_direction_has_length_one_however_small_and_none_at_padding():
    gradient = np.zeros((3, 2, 2), np.float32)
    gradient[0], gradient[1, 0, 0], gradient[:, 1, 1] = 1e-25, 3e20, 5
    where = np.array([[True, False], [True, False], [False, False]])
    found = np.asarray(along(jnp.asarray(gradient), jnp.asarray(where)))
    assert np.sqrt((found**2).sum(axis=(1, 2))) == pytest.approx([1, 1, 0], rel=1e-6)
    assert not found[:, 1].any()


@pytest.mark.long
@pytest.mark.parametrize("recipe", RECIPES)
def test_parts_and_devices_take_the_same_step(world, recipe):
    step, state, given, _ = world.made(recipe)
    whole, metrics = jax.jit(step)(state, *given)
    moved = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), whole.params, state.params)
    assert max(jax.tree.leaves(moved)) > 1e-3
    cut, *_ = world.made(recipe, accumulate=4)
    in_parts, part_metrics = jax.jit(cut)(state, *given)
    assert_close(in_parts.params, whole.params, rtol=1e-3, atol=2e-5)
    assert_close(part_metrics.terms, metrics.terms, rtol=1e-4, atol=1e-6)
    two = make_mesh(jax.devices()[:2])
    for layout in (Layout(two), Layout(two, "pmap")):
        shared, *_ = world.made(recipe, axis=layout.axis)
        compiled = layout.compile(shared)
        placed = (*layout.put_batch(*given[:2]), layout.put_numbers(given[2]))
        found, _ = compiled(layout.put_state(jax.device_get(state)), *placed)
        assert_close(jax.device_get(found.params), whole.params, rtol=1e-3, atol=2e-5)


@pytest.mark.long
@pytest.mark.parametrize("recipe", RECIPES)
def test_members_of_a_population_take_their_own_steps(world, recipe):
    step, state, (batch, said, numbers), _ = world.made(recipe)
    other = state.replace(params=jax.tree.map(lambda x: 1.1 * x, state.params))
    seeds = [numbers, numbers.replace(seed=np.uint32(9))]
    alone = [
        jax.jit(step)(s, batch, said, n)[0].params
        for s, n in zip((state, other), seeds, strict=True)
    ]
    placement = make_placement("vmap", make_mesh(jax.devices()[:1]))
    together = PopulationStep(step, shared_batch=True, placement=placement)
    stacked = placement.put_members(stack_members([state, other]))
    found, _ = together(
        stacked,
        *placement.put_shared((batch, said)),
        placement.put_members(stack_members(seeds)),
    )
    for member, expected in enumerate(alone):
        own = jax.tree.map(lambda x, m=member: x[m], jax.device_get(found.params))
        assert_close(own, expected, rtol=1e-3, atol=2e-5)


@pytest.mark.long
@pytest.mark.parametrize("recipe", RECIPES)
def test_half_precision_takes_nearly_the_same_step(world, recipe):
    step, state, given, _ = world.made(recipe)
    exact = jax.jit(step)(state, *given)[1]
    half, *_ = world.made(recipe, dtype=jnp.bfloat16)
    params = jax.tree.map(lambda x: x.astype(jnp.bfloat16), state.params)
    for start in (state, state.replace(params=params)):
        after, metrics = jax.jit(half)(start, *given)
        assert bool(metrics.applied)
        assert float(metrics.loss) == pytest.approx(float(exact.loss), rel=0.05)
        assert jax.tree.map(lambda x: x.dtype, after.params) == jax.tree.map(
            lambda x: x.dtype, start.params
        )


def moved_paths(before, after):
    pairs = zip(jax.tree_util.tree_leaves_with_path(before), jax.tree.leaves(after), strict=True)
    return {
        jax.tree_util.keystr(path, simple=True, separator="/")
        for (path, one), other in pairs
        if np.any(np.asarray(one) != np.asarray(other))
    }


def test_bitfit_moves_biases_and_the_head_alone(world):
    step, state, given, _ = world.made("bitfit")
    after, _ = jax.jit(step)(state, *given)
    moved = moved_paths(state.params, after.params)
    assert moved and all(path.endswith("bias") or path.startswith("classifier/") for path in moved)
    assert {"classifier/kernel", "layer_1/attention_norm/bias", "embeddings/norm/bias"} <= moved


def test_lora_starts_as_the_model_moves_its_own_and_merges(world):
    step, state, given, recipe = world.made("lora(2, alpha=3.0)")
    lora = recipe.adapter
    assert_close(lora.merged(state.params), world.params, rtol=0, atol=0)
    for _ in range(2):  # ``down`` has no gradient while ``up`` is 0
        state, _ = jax.jit(step)(state, *given)
    moved = moved_paths(lora.start(world.params, 5), state.params)
    assert moved == {
        "classifier/kernel",
        "classifier/bias",
        *(
            f"lora/layer_1/attention/{name}/{part}"
            for name in ("query", "value")
            for part in ("down", "up")
        ),
    }
    merged = lora.merged(state.params)
    own = state.params["lora"]["layer_1"]["attention"]["query"]
    expected = world.params["layer_1"]["attention"]["query"]["kernel"] + 1.5 * (
        np.asarray(own["down"]) @ np.asarray(own["up"])
    )
    np.testing.assert_allclose(
        merged["layer_1"]["attention"]["query"]["kernel"], expected, rtol=1e-5
    )
    said = Adapted(Bert(world.config), lora).apply({"params": state.params}, world.batch)
    alone = Bert(world.config).apply({"params": merged}, world.batch)
    np.testing.assert_allclose(said.logits_BC, alone.logits_BC, rtol=1e-6)


def test_what_is_frozen_stays_and_does_not_shorten_the_step(world):
    step, state, given, _ = world.made("", rates=(("^embeddings/", 0.0),))
    after, metrics = jax.jit(step)(state, *given)
    moved = moved_paths(state.params, after.params)
    assert moved and not any(path.startswith("embeddings/") for path in moved)
    plain, *_ = world.made("")
    whole = jax.jit(plain)(state, *given)[1]
    assert float(metrics.grad_norm) < float(whole.grad_norm)
    assert float(metrics.loss) == float(whole.loss)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rdrop + rdropp", "unknown ingredient 'rdropp' at column 9 .*'rdrop'"),
        ("rdrop + rdrop(2)", "rdrop twice"),
        ("fgm + freelb", "fgm and freelb do not go together"),
        ("lora + bitfit", "do not go together"),
        ("rdrop(-1)", "must not be negative"),
        ("fgm(0)", "must be positive"),
        ("freelb(0)", "from 1 to 100"),
        ("lora(0)", "rank of lora"),
        ("lora(kernels='(')", "no regular expression"),
        ("rdrop(passes='both')", "unknown passes 'both'"),
    ],
)
def test_mistakes_in_recipes_are_named(text, message):
    with pytest.raises(UserError, match=message) as told:
        parse_recipe(text)
    assert "\n" not in str(told.value)


def test_recipes_have_one_text():
    assert str(parse_recipe(" lora(rank=4)+rdrop( 1.0 ) ")) == "lora(4) + rdrop"
    assert not parse_recipe("") and str(parse_recipe("")) == ""
    assert parse_recipe("rdrop + bitfit") == parse_recipe("bitfit + rdrop(1)")


def test_students_that_cannot_have_a_recipe_are_refused(student_config):
    with pytest.raises(UserError, match="of which there are none here"):
        parse_recipe("rdrop").check(0, EMBEDDINGS)
    for text in ("fgm", "freelb"):
        with pytest.raises(UserError, match="this student has none"):
            parse_recipe(text).check(2, ())
    with pytest.raises(UserError, match=r"no kernel of the student.*attention/query"):
        lora = parse_recipe("lora(kernels='querry/')").adapter
        lora.start(init_bert(student_config, jax.random.key(0)), 0)


def test_a_model_that_looks_nothing_up_is_not_shifted_in_silence(world):
    with pytest.raises(ValueError, match="no embeddings"), shifted(("elsewhere", "x"), jnp.ones(1)):
        Bert(world.config).apply({"params": world.params}, world.batch)
