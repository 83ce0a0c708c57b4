"""The step: one pure function, whatever the devices, the numbers and the order of the batch."""

import jax
import numpy as np
import optax
import pytest

from distill_jax.core.mesh import make_mesh, replicate, shard_batch
from distill_jax.data.plan import choose_lengths, make_batch, plan_in_order
from distill_jax.objectives.grammar import parse
from distill_jax.objectives.resolve import resolve
from distill_jax.teachers.live import LiveTeacher
from distill_jax.training.layout import Layout
from distill_jax.training.loop import step_numbers
from distill_jax.training.optimizer import OptimizerConfig, make_optimizer
from distill_jax.training.state import init_state
from distill_jax.training.step import CompiledStep, make_step

OPTIMIZER = OptimizerConfig(learning_rate=1e-2, warmup=0.0)


@pytest.fixture
def setting(toy_table, student, teacher, student_config, teacher_config):
    """(objective text) -> everything a step needs."""

    def build(text, batch_size=16, seed=0):
        objective = resolve(parse(text), student_config.shape, teacher_config.shape)
        optimizer = make_optimizer(OPTIMIZER)
        state = init_state(student[1], objective.init_params(jax.random.key(3)), optimizer)
        plan = plan_in_order(
            toy_table.lengths_N, choose_lengths(toy_table.lengths_N), batch_size=batch_size
        )
        planned = next(planned for planned in plan if len(planned.rows) < batch_size)
        batch = make_batch(toy_table, planned, batch_size=batch_size)
        said = LiveTeacher(*teacher, objective.teacher_capture)(batch)
        numbers = step_numbers(objective, OPTIMIZER, seed, 0, 10)
        return make_step(student[0], objective, optimizer), state, batch, said, numbers

    return build


def assert_trees_close(left, right, **tolerance):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **tolerance), left, right)


@pytest.mark.parametrize("text", ["0.5*kl(T=2) + 0.5*ce", "hidden_mse + kl", "attention_kl"])
def test_eight_devices_take_the_step_of_one(setting, text):
    step, state, batch, said, numbers = setting(text)
    results = []
    for devices in (jax.devices()[:1], jax.devices()):
        mesh = make_mesh(list(devices))
        where = replicate(jax.tree.map(np.asarray, state), mesh)
        results.append(CompiledStep(step)(where, *shard_batch((batch, said), mesh), numbers))
    (one, one_metrics), (eight, eight_metrics) = jax.device_get(results)
    assert_trees_close(one.params, eight.params, rtol=1e-4, atol=1e-6)
    assert_trees_close(one_metrics, eight_metrics, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("accumulate", [1, 4])
def test_several_teachers_go_through_the_step_as_a_tuple(
    toy_table, student, teacher, student_config, teacher_config, accumulate
):
    """As one value of the objective; whole, in parts, and on a mesh."""
    shapes = (teacher_config.shape, teacher_config.shape)
    text = "kl(teachers='mean_probabilities') + 0.5*kl(teacher=1) + hidden_mse"
    objective = resolve(text, student_config.shape, shapes)
    optimizer = make_optimizer(OPTIMIZER)
    state = init_state(student[1], objective.init_params(jax.random.key(3)), optimizer)
    lengths = choose_lengths(toy_table.lengths_N)
    planned = next(iter(plan_in_order(toy_table.lengths_N, lengths, batch_size=16)))
    batch = make_batch(toy_table, planned, batch_size=16)
    model, params = teacher
    other = jax.tree.map(lambda x: 0.5 * x, params)
    said = tuple(
        LiveTeacher(model, own, capture)(batch)
        for own, capture in zip((params, other), objective.teacher_captures, strict=True)
    )
    numbers = step_numbers(objective, OPTIMIZER, 0, 0, 10)
    step = make_step(student[0], objective, optimizer, accumulate=accumulate)
    mesh = make_mesh(list(jax.devices()[:2]))
    placed = replicate(jax.tree.map(np.asarray, state), mesh)
    on_mesh = CompiledStep(step)(placed, *shard_batch((batch, said), mesh), numbers)
    alone = jax.jit(step)(state, batch, said, numbers)
    turned = jax.jit(step)(state, batch, said[::-1], numbers)
    assert_trees_close(alone[1].terms, on_mesh[1].terms, rtol=1e-4)
    assert_trees_close(alone[0].params, on_mesh[0].params, rtol=1e-4, atol=1e-6)
    one, two = alone[1].terms, turned[1].terms
    assert float(one["kl"][0]) == pytest.approx(float(two["kl"][0]), rel=1e-5)
    assert float(one["kl_2"][0]) != pytest.approx(float(two["kl_2"][0]), rel=1e-2)


def test_padding_rows_change_nothing(setting):
    """Trap 7: a batch filled up with padding is the batch without it."""
    step, state, batch, said, numbers = setting("hidden_mse + kl + ce")
    real = int(np.sum(batch.where_B))
    assert 0 < real < len(batch.example_ids_B)
    cut_batch, cut_said = jax.tree.map(lambda a: a[:real], (batch, said))
    full = jax.jit(step)(state, batch, said, numbers)
    cut = jax.jit(step)(state, cut_batch, cut_said, numbers)
    assert_trees_close(full[1].terms, cut[1].terms, rtol=1e-5)
    assert_trees_close(full[0].params, cut[0].params, rtol=1e-4, atol=1e-6)


def test_numbers_change_without_a_new_program(setting, student_config, teacher_config):
    step, state, batch, said, numbers = setting("0.5*kl(T=2) + 0.5*ce")
    compiled = CompiledStep(step)
    state, first = compiled(state, batch, said, numbers)
    other = resolve(parse("0.9*kl(T=8) + 0.1*ce"), student_config.shape, teacher_config.shape)
    state, second = compiled(state, batch, said, step_numbers(other, OPTIMIZER, 7, 5, 10))
    assert compiled.traces == 1
    assert float(first.loss) != float(second.loss)


def test_what_is_prepared_is_not_compiled_again(setting, compiled_seconds):
    """On one CPU the update is one program for all shapes, and further shapes are half a step."""
    step, state, batch, said, numbers = setting("kl + hidden_mse")
    layout, compiled = Layout(make_mesh(jax.devices()[:1])), CompiledStep(step)
    state = layout.put_state(state)
    halves = (batch, said), jax.tree.map(lambda x: x[: len(x) // 2], (batch, said))
    calls = [(*layout.put_batch(*half), layout.put_numbers(numbers)) for half in halves]
    jax.clear_caches()  # another test may have had such an update
    compiled_seconds.clear()
    compiled.prepare(state, calls)
    assert len(compiled_seconds) == 3
    assert compiled.traces == 2
    compiled_seconds.clear()
    for call in [*calls, *calls]:
        state, _ = compiled(state, *call)
    assert compiled_seconds == []
    assert compiled.traces == 2
    assert int(state.step) == 4


def test_objectives_share_the_program_of_the_update(setting, compiled_seconds):
    layout, counts = Layout(make_mesh(jax.devices()[:1])), []
    jax.clear_caches()
    for text in ("kl + ce", "mse_logits", "reverse_kl(T=2)"):
        step, state, batch, said, numbers = setting(text)
        call = *layout.put_batch(batch, said), layout.put_numbers(numbers)
        state = layout.put_state(state)
        compiled_seconds.clear()
        _, metrics = CompiledStep(step)(state, *call)
        counts.append(len(compiled_seconds))
        assert len(metrics.terms) == len(parse(text).terms)
    assert counts == [2, 1, 1]


def test_two_programs_take_the_step_of_one(setting):
    step, state, batch, said, numbers = setting("0.5*kl(T=2) + 0.5*ce + hidden_mse")
    whole, whole_metrics = jax.jit(step)(state, batch, said, numbers)
    layout = Layout(make_mesh(jax.devices()[:1]))
    placed = (*layout.put_batch(batch, said), layout.put_numbers(numbers))
    halves, metrics = CompiledStep(step)(layout.put_state(state), *placed)
    assert_trees_close(whole_metrics, metrics, rtol=1e-5)
    assert_trees_close(whole, halves, rtol=1e-5, atol=1e-6)


def test_dropout_follows_seed_and_step_alone(setting):
    step, state, batch, said, numbers = setting("kl")
    run = jax.jit(step)
    loss = run(state, batch, said, numbers)[1].loss
    assert loss == run(state, batch, said, numbers)[1].loss
    assert loss != run(state, batch, said, numbers.replace(seed=np.uint32(1)))[1].loss
    assert loss != run(state.replace(step=state.step + np.int32(1)), batch, said, numbers)[1].loss


def test_trap_06_the_student_trains_with_dropout(setting, student, student_config, teacher_config):
    """Its loss in the step is not the loss of evaluation mode."""
    step, state, batch, said, numbers = setting("kl")
    objective = resolve(parse("kl"), student_config.shape, teacher_config.shape)
    quiet = student[0].apply({"params": state.params}, batch, train=False)
    expected, _ = objective({}, numbers.objective, quiet, said, batch)
    assert not np.isclose(float(jax.jit(step)(state, batch, said, numbers)[1].loss), expected)


def test_trap_12_a_losss_own_parameters_are_trained_and_clipped(setting):
    step, state, batch, said, numbers = setting("hidden_mse")
    after, metrics = jax.jit(step)(state, batch, said, numbers)
    before = jax.tree.leaves(state.loss_params)
    assert before, "hidden_mse between different widths has a projection"
    for old, new in zip(before, jax.tree.leaves(after.loss_params), strict=True):
        assert not np.array_equal(old, new)
    # Adam's first direction is the clipped gradient over its own size, so clipping is seen in mu.
    adam = next(s for s in after.opt_state if isinstance(s, optax.ScaleByAdamState))
    norm = optax.tree.norm(adam.mu) / 0.1
    assert float(norm) == pytest.approx(min(1.0, float(metrics.grad_norm)), rel=1e-3)


def test_training_lowers_the_loss(setting):
    step, state, batch, said, numbers = setting("kl + hidden_mse")
    compiled = CompiledStep(step)
    losses = []
    for _ in range(30):
        state, metrics = compiled(state, batch, said, numbers)
        losses.append(float(metrics.loss))
    assert np.mean(losses[-5:]) < 0.8 * losses[0]
    assert compiled.traces == 1
    assert int(state.step) == 30
