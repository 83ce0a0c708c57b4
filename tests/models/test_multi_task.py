import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from distill_jax.core.errors import UserError
from distill_jax.core.mesh import make_mesh
from distill_jax.core.task_types import TaskHead
from distill_jax.data.task_table import TaskTable
from distill_jax.models.multi_task import MultiTask, MultiTaskConfig, init_multi_task
from distill_jax.objectives.heads import resolve_tasks
from distill_jax.training.feed import Feed
from distill_jax.training.interrupt import StopRequest
from distill_jax.training.layout import Layout
from distill_jax.training.loop import LoopConfig, train
from distill_jax.training.optimizer import OptimizerConfig, make_optimizer
from distill_jax.training.step import make_step

CONFIG = MultiTaskConfig(num_features=3, vocabularies=(5, 4), trunk=(16, 8), head=4)


def table(n=96, seed=0):
    """Clicks depend on a feature and on what is privileged, buys on clicks' causes and a user."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n, 3)).astype(np.float32)
    privileged = rng.normal(size=(n, 2)).astype(np.float32)
    ids = np.stack([rng.integers(5, size=n), rng.integers(4, size=n)], axis=1).astype(np.int32)
    click = (features[:, 0] + 2 * privileged[:, 0] > 0).astype(np.float32)
    buy = (features[:, 1] + (ids[:, 0] > 2) > 0.5).astype(np.float32)
    rating = features[:, 2] + ids[:, 1]
    labels = np.stack([click, buy, rating], axis=1).astype(np.float32)
    labels[::3, 2] = np.nan
    names = tuple(f"e{seed}-{i}" for i in range(n))
    return TaskTable(names, features, ids, labels, privileged)


def fit(config, texts, data, teacher=None, steps=150):
    rate = OptimizerConfig(learning_rate=1e-2, warmup=0.0)
    model, optimizer = MultiTask(config), make_optimizer(rate)
    objective = resolve_tasks(texts, config.tasks)
    layout = Layout(make_mesh(jax.devices()[:1]))
    params = jax.device_get(init_multi_task(config, jax.random.key(0)))
    return train(
        layout.new_state(params, {}, optimizer),
        layout.compile(make_step(model, objective, optimizer)),
        Feed(data, (1,), 32, 0, teacher=teacher),
        objective=objective,
        optimizer=rate,
        loop=LoopConfig(steps, steps, select=None),
        layout=layout,
        evaluate=lambda params: {},
        on_log=lambda done, values: None,
        stop=StopRequest(),
    ).params


def said(config, params, data):
    whole = data.batch(np.arange(len(data)), 1, len(data))
    return np.asarray(jax.jit(MultiTask(config).apply)({"params": params}, whole).logits_BC)


def test_all_tasks_are_learnt_from_one_trunk():
    data = table()
    params = fit(CONFIG, {"click": "labels", "buy": "labels", "rating": "labels"}, data)
    logits = said(CONFIG, params, data)
    assert ((logits[:, 1] > 0) == data.labels_NK[:, 1]).mean() > 0.85
    rated = ~np.isnan(data.labels_NK[:, 2])
    error = (logits[rated, 2] - data.labels_NK[rated, 2]) ** 2
    assert error.mean() < 0.2 * np.nanvar(data.labels_NK[:, 2])


def test_only_the_teacher_sees_what_is_privileged_and_the_student_hears_of_it():
    data, privileged = table(), dataclasses.replace(CONFIG, num_privileged=2)
    teacher = fit(privileged, {"click": "labels"}, data)
    ask = jax.jit(MultiTask(privileged).apply)

    def speak(batch):
        return jax.device_get(ask({"params": teacher}, batch))

    assert ((said(privileged, teacher, data)[:, 0] > 0) == data.labels_NK[:, 0]).mean() > 0.95
    student = fit(CONFIG, {"click": "mse_logits"}, data, teacher=speak, steps=60)
    one = said(CONFIG, student, data)
    other = said(CONFIG, student, dataclasses.replace(data, privileged_NP=-data.privileged_NP))
    assert np.array_equal(one, other)
    heard = np.corrcoef(one[:, 0], said(privileged, teacher, data)[:, 0])[0, 1]
    assert heard > 0.3
    blind = dataclasses.replace(data, privileged_NP=None)
    with pytest.raises(UserError, match="reads 2 privileged features, the data has 0"):
        said(privileged, teacher, blind)


def test_shapes_hidden_states_and_gradients():
    data = table(8)
    params = init_multi_task(CONFIG, jax.random.key(0))
    batch = data.batch(np.array([3, 1, 4]), 1, 5)
    assert batch.example_ids_B.tolist() == [3, 1, 4, -1, -1] and not batch.label_where_BK[3:].any()
    output = MultiTask(CONFIG).apply({"params": params}, batch)
    assert output.logits_BC.shape == (5, 3)
    assert {k: v.shape for k, v in output.hidden_states.items()} == {1: (5, 1, 16), 2: (5, 1, 8)}

    def loss(p):
        return jnp.sum(MultiTask(CONFIG).apply({"params": p}, batch).logits_BC ** 2)

    grads = jax.jit(jax.grad(loss))(params)
    assert all(np.abs(g).max() > 0 for g in jax.tree.leaves(grads))


def test_configurations_and_data_that_do_not_fit_say_so():
    with pytest.raises(UserError, match="different names"):
        MultiTaskConfig(tasks=(TaskHead("a"), TaskHead("a")), num_features=1)
    with pytest.raises(UserError, match="something to read"):
        MultiTaskConfig()
    with pytest.raises(UserError, match="kind"):
        TaskHead("a", "ordinal")
    data = table(8)
    narrow = dataclasses.replace(CONFIG, num_features=2)
    with pytest.raises(UserError, match="reads 2 features and 2 categories, the data has 3 and 2"):
        said(narrow, init_multi_task(narrow, jax.random.key(0)), data)
    broken = data.features_NF.copy()
    broken[2, 0] = np.nan
    with pytest.raises(UserError, match="example 'e0-2' has a feature that is not finite"):
        dataclasses.replace(data, features_NF=broken)
