"""Training a student of texts for a few steps, without a table around it."""

import dataclasses

import jax
import numpy as np

from distill_jax.core.mesh import make_mesh
from distill_jax.core.types import Batch
from distill_jax.models.build import build_model
from distill_jax.objectives.resolve import resolve
from distill_jax.training.layout import Layout
from distill_jax.training.loop import step_numbers
from distill_jax.training.optimizer import OptimizerConfig, make_optimizer
from distill_jax.training.step import make_step


def labelled(ids_BT, labels_B, where_BT=None):
    """A batch of such tokens and labels."""
    rows = np.arange(len(ids_BT), dtype=np.int32)
    return Batch(
        example_ids_B=rows,
        input_ids_BT=ids_BT.astype(np.int32),
        token_type_ids_BT=np.zeros(ids_BT.shape, np.int32),
        where_BT=np.ones(ids_BT.shape, bool) if where_BT is None else where_BT,
        labels_B=labels_B.astype(np.int32),
        label_where_B=np.ones(len(rows), bool),
    )


def trained(config, params, batches, optimizer, *, skip=()):
    """Parameters after the batches, those whose numbers are in ``skip`` with a loss of NaN."""
    objective = resolve("ce", config.shape, None)
    layout, steps = Layout(make_mesh(jax.devices()[:1])), len(batches)
    step = layout.compile(
        make_step(build_model(config), objective, make_optimizer(optimizer), skip_nonfinite=True)
    )
    state = layout.new_state(params, {}, make_optimizer(optimizer))
    for number, batch in enumerate(batches):
        numbers = step_numbers(objective, optimizer, 0, number, steps)
        if number in skip:
            lost = jax.tree.map(lambda x: x * np.float32(np.nan), numbers.objective)
            numbers = dataclasses.replace(numbers, objective=lost)
        state, metrics = step(state, *layout.put_batch(batch, None), layout.put_numbers(numbers))
        assert bool(metrics.applied) == (number not in skip)
    return state.params


def learnt(config, params, sample, *, steps=60, rate=1e-2):
    """The share of 500 new examples that a student gets right after a few steps.

    Args:
      sample: (generator, rows) -> batch.
    """
    rng = np.random.default_rng(0)
    optimizer = OptimizerConfig(learning_rate=rate, warmup=0.0)
    params = trained(config, params, [sample(rng, 64) for _ in range(steps)], optimizer)
    batch = sample(rng, 500)
    said = jax.jit(build_model(config).apply)({"params": params}, batch).logits_BC
    return float(np.mean(np.asarray(said).argmax(axis=-1) == batch.labels_B))
