"""One step, many ways of running it: devices, pmap, cut parameters, cut batches; one result."""

from dataclasses import replace

import jax
import numpy as np
import pytest

from distill_jax.core.errors import UserError
from distill_jax.core.mesh import make_mesh
from distill_jax.core.sharding import ShardingRules, shardings
from distill_jax.data.plan import choose_lengths, make_batch, plan_in_order
from distill_jax.objectives.grammar import parse
from distill_jax.objectives.resolve import resolve
from distill_jax.teachers.live import LiveTeacher
from distill_jax.training.layout import Layout
from distill_jax.training.loop import step_numbers
from distill_jax.training.optimizer import OptimizerConfig, make_optimizer
from distill_jax.training.step import make_step

OPTIMIZER = OptimizerConfig(learning_rate=1e-2, warmup=0.0)
OBJECTIVE = (
    "0.5*kl(T=2) + 0.5*ce + hidden_mse + attention_kl + value_kl"  # of each example
    " + rkd_distance + rkd_angle + sp + cka + crd"  # of the whole batch
)


@pytest.fixture(scope="module")
def uneven(toy_table):
    """A batch of 16 rows: lengths differ, 12 are real, some of those have no label."""
    plan = plan_in_order(toy_table.lengths_N, choose_lengths(toy_table.lengths_N), batch_size=16)
    planned = next(planned for planned in plan if len(planned.rows) < 16)
    batch = make_batch(toy_table, planned, batch_size=16)
    assert 0 < np.sum(batch.label_where_B) < np.sum(batch.where_B) < 16
    return batch


@pytest.fixture
def two_steps(uneven, student, teacher, student_config, teacher_config):
    """(objective, layout, accumulate) -> (params, loss_params, metrics) after two steps."""

    def run(text, layout, accumulate=1, config=OPTIMIZER):
        objective = resolve(parse(text), student_config.shape, teacher_config.shape)
        optimizer = make_optimizer(config)
        loss_params = objective.init_params(jax.random.key(3))
        state = layout.new_state(student[1], loss_params, optimizer)
        said = LiveTeacher(*teacher, objective.teacher_capture)(uneven)
        said = jax.tree.map(np.asarray, said)
        pure = make_step(
            student[0],
            objective,
            optimizer,
            accumulate=accumulate,
            axis=layout.axis,
            gathered=layout.gathered,
        )
        step = layout.compile(pure)
        for number in range(2):
            numbers = step_numbers(objective, OPTIMIZER, 5, number, 10)
            given = (*layout.put_batch(uneven, said), layout.put_numbers(numbers))
            with jax.transfer_guard("disallow"):
                state, metrics = step(state, *given)
        assert step.traces == 1
        return jax.device_get((state.params, state.loss_params, metrics))

    return run


def assert_same(one, other):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5), one, other)


@pytest.fixture(scope="module")
def expected():
    return {}


@pytest.mark.parametrize("way", ["jit", "fsdp", "pmap", "accumulate"])
def test_every_way_takes_the_steps_of_one_device(way, two_steps, expected):
    """With dropout on, whose masks follow the rows of the whole batch; every term by itself too."""
    if not expected:
        expected[""] = two_steps(OBJECTIVE, Layout(make_mesh(jax.devices()[:1])))
    layout = {"fsdp": Layout(make_mesh(fsdp=2)), "pmap": Layout(make_mesh(), "pmap")}
    parts = 2 if way == "accumulate" else 1
    assert_same(expected[""], two_steps(OBJECTIVE, layout.get(way, Layout(make_mesh())), parts))


@pytest.mark.long
def test_clipping_apart_is_the_same_every_way(two_steps):
    """With an epsilon that makes Adam's steps as long as the gradients are."""
    apart = OptimizerConfig(
        learning_rate=1.0, warmup=0.0, weight_decay=0.0, clip_norm=0.1, eps=10.0, clip_apart=True
    )
    text, alone = "hidden_mse + kl", Layout(make_mesh(jax.devices()[:1]))
    one = two_steps(text, alone, config=apart)
    assert_same(one, two_steps(text, Layout(make_mesh(fsdp=2)), 2, config=apart))
    assert_same(one, two_steps(text, Layout(make_mesh(jax.devices()[:2]), "pmap"), 4, config=apart))
    with pytest.raises(AssertionError):
        assert_same(one, two_steps(text, alone, config=replace(apart, clip_apart=False)))


def test_pmap_accumulates_too(two_steps):
    one = two_steps("kl + sp", Layout(make_mesh(jax.devices()[:1])))
    assert_same(one, two_steps("kl + sp", Layout(make_mesh(jax.devices()[:2]), "pmap"), 4))


def test_trap_13_accumulation_is_no_mean_of_means(two_steps):
    """The parts have unequal numbers of labels; the whole batch's count divides."""
    layout = Layout(make_mesh(jax.devices()[:1]))
    whole = two_steps("ce + kl", layout)
    assert_same(whole, two_steps("ce + kl", layout, accumulate=8))


def test_parameters_and_moments_are_cut(student):
    layout = Layout(make_mesh(fsdp=4))
    state = layout.new_state(student[1], {}, make_optimizer(OPTIMIZER))
    kernel = state.params["layer_1"]["attention"]["query"]["kernel"]
    assert [shard.data.shape for shard in kernel.addressable_shards] == [(8, 2)] * 8
    moments = [leaf for leaf in jax.tree.leaves(state.opt_state) if leaf.shape == (8, 8)]
    assert moments
    assert {shard.data.shape for leaf in moments for shard in leaf.addressable_shards} == {(8, 2)}


def test_widths_that_cannot_be_cut_are_refused(student):
    layout = Layout(make_mesh(jax.devices()[:3], fsdp=3))
    with pytest.raises(UserError, match=r"cannot be cut into 3 equal parts along fsdp"):
        layout.new_state(student[1], {}, make_optimizer(OPTIMIZER))
    with pytest.raises(UserError, match="8 devices cannot be put in rows of 3"):
        make_mesh(fsdp=3)


def test_the_losses_own_parameters_are_whole_whatever_their_shape():
    mesh = make_mesh(fsdp=2)
    moments = {"mu": {"losses": {"kernel": np.zeros((12, 5))}, "student": {"kernel": np.eye(4)}}}
    found = shardings(moments, ShardingRules().optimizer, mesh)["mu"]
    assert found["losses"]["kernel"].is_fully_replicated
    assert not found["student"]["kernel"].is_fully_replicated
