"""Half precision where it is asked for, float32 where digits count; activations computed twice."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from distill_jax.core.mesh import make_mesh
from distill_jax.core.types import Batch
from distill_jax.data.plan import choose_lengths, make_batch, plan_in_order
from distill_jax.models.bert import BertConfig, init_bert
from distill_jax.models.build import build_model
from distill_jax.objectives.resolve import resolve
from distill_jax.teachers.live import LiveTeacher
from distill_jax.training.layout import Layout
from distill_jax.training.loop import step_numbers
from distill_jax.training.optimizer import OptimizerConfig, make_optimizer
from distill_jax.training.step import make_step

OPTIMIZER = OptimizerConfig(learning_rate=1e-2, warmup=0.0, schedule="constant")


@pytest.fixture
def train(toy_table, student, teacher, student_config, teacher_config):
    """(dtype, dtype of the parameters) -> (state, losses) after some steps."""
    objective = resolve("kl + hidden_mse + sp", student_config.shape, teacher_config.shape)
    plan = plan_in_order(toy_table.lengths_N, choose_lengths(toy_table.lengths_N), batch_size=16)
    batch = make_batch(toy_table, plan[0], batch_size=16)
    said = LiveTeacher(*teacher, objective.teacher_capture)(batch)

    def go(dtype, params_dtype, steps=20):
        layout, optimizer = Layout(make_mesh(jax.devices()[:1])), make_optimizer(OPTIMIZER)
        params = jax.tree.map(lambda x: np.asarray(x).astype(params_dtype), student[1])
        state = layout.new_state(params, objective.init_params(jax.random.key(3)), optimizer)
        step = layout.compile(
            make_step(build_model(student_config, dtype=dtype), objective, optimizer)
        )
        losses = []
        for number in range(steps):
            numbers = layout.put_numbers(step_numbers(objective, OPTIMIZER, 5, number, steps))
            state, metrics = step(state, *layout.put_batch(batch, said), numbers)
            assert metrics.loss.dtype == jnp.float32
            losses.append(float(metrics.loss))
        assert step.traces == 1
        return state, losses

    return go


@pytest.mark.parametrize("params_dtype", [jnp.float32, jnp.bfloat16])
def test_half_precision_trains_and_sums_in_float32(train, params_dtype):
    _, exact = train(jnp.float32, jnp.float32)
    state, losses = train(jnp.bfloat16, params_dtype)
    assert {leaf.dtype for leaf in jax.tree.leaves(state.params)} == {jnp.dtype(params_dtype)}
    floats = [x for x in jax.tree.leaves((state.opt_state, state.loss_params)) if x.ndim]
    assert {leaf.dtype for leaf in floats} == {jnp.dtype(jnp.float32)}
    assert losses != exact
    np.testing.assert_allclose(losses[0], exact[0], rtol=0.02)
    assert np.mean(losses[-5:]) < 0.8 * losses[0]


@pytest.mark.long
def test_computing_activations_twice_gives_the_same_gradients():
    config = BertConfig(20, 32, 6, 2, 128, max_positions=64)
    params = init_bert(config, jax.random.key(0))
    tokens_BT = np.ones((16, 64), np.int32)
    rows_B = np.arange(16, dtype=np.int32)
    batch = Batch(rows_B, tokens_BT, 0 * tokens_BT, tokens_BT > 0, rows_B % 2, rows_B >= 0)

    def compiled(remat):
        model = build_model(config, remat=remat)

        def loss(params):
            rngs = {"dropout": jax.random.key(1)}
            return jnp.sum(model.apply({"params": params}, batch, train=True, rngs=rngs).logits_BC)

        assert ("remat" in str(jax.make_jaxpr(jax.grad(loss))(params))) == remat
        return jax.jit(jax.grad(loss))

    plain, twice = compiled(False), compiled(True)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
        plain(params),
        twice(params),
    )
