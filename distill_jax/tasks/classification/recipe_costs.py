"""What a recipe would cost on the device at hand: its operations, at the speed of a short run."""

import time

import jax
import jax.numpy as jnp
import numpy as np

from distill_jax.core.types import Batch, as_batch
from distill_jax.models.bert import Bert, BertConfig, Params, init_bert
from distill_jax.objectives.resolve import resolve
from distill_jax.tasks.classification.recipes import VOCABULARY, RecipeStage, Size

MEASURED = Size(2, 768, 12)
"""What is timed: layers as wide as most of the students' and all of the teacher's."""
FEW_WORDS = 1000
"""Its vocabulary: tables of embeddings cost next to nothing beside the layers of a whole batch."""


def config_of(size: Size, vocabulary: int = VOCABULARY) -> BertConfig:
    """The model of a recipe's size, with BERT's vocabulary and two classes."""
    return BertConfig(
        vocab_size=vocabulary,
        hidden_size=size.hidden_size,
        num_layers=size.num_layers,
        num_heads=size.num_heads,
        intermediate_size=size.intermediate_size or 4 * size.hidden_size,
    )


def device_name() -> str:
    """The device at hand, in words."""
    device = jax.devices()[0]
    return f"{jax.device_count()} x {device.device_kind}"


def forward_operations(size: Size, rows: int, tokens: int) -> float:
    """Floating-point operations of the matrix products of a BERT, for rows of so many tokens."""
    width, inner = size.hidden_size, size.intermediate_size or 4 * size.hidden_size
    projections = 4 * width * width + 2 * width * inner
    attention = 2 * tokens * width
    return 2.0 * rows * tokens * size.num_layers * (projections + attention)


def step_operations(stage: RecipeStage, student: Size, teacher: Size, tokens: int) -> float:
    """Those of a training step: the student forth and twice back, the teacher heard live."""
    own = 3 * forward_operations(student, stage.batch_size, tokens)
    objective = resolve(stage.objective, config_of(student).shape, config_of(teacher).shape)
    if not objective.needs_teacher:
        return own
    return own + forward_operations(teacher, stage.batch_size, tokens)


def operations_per_second(tokens: int, *, repeats: int = 2) -> float:
    """The speed of training on one device: one program is compiled, and timed a few times.

    It is the gradient of a model of ``MEASURED``, with dropout; the optimiser's part of a whole
    step is small.

    Args:
      tokens: a row's length.
      repeats: after one run that does not count; the fastest does, as other work only slows them.
    """
    rows = 16 if jax.default_backend() == "cpu" else 64
    config = config_of(MEASURED, FEW_WORDS)
    shapes = jax.eval_shape(lambda key: init_bert(config, key), jax.random.key(0))
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda x: 0.02 * rng.standard_normal(x.shape, np.float32), shapes)

    def loss(params: Params, batch: Batch) -> jax.Array:
        rngs = {"dropout": jax.random.key(0)}
        output = Bert(config).apply({"params": params}, batch, train=True, rngs=rngs)
        return jnp.sum(output.logits_BC)  # type: ignore[union-attr]

    gradient = jax.jit(jax.grad(loss))
    ids_BT = jnp.arange(rows * tokens, dtype=jnp.int32).reshape(rows, tokens) % FEW_WORDS
    given = jax.device_put((params, as_batch(ids_BT, jnp.ones(ids_BT.shape, bool))))
    times = []
    for _ in range(1 + repeats):
        start = time.perf_counter()
        jax.block_until_ready(gradient(*given))
        times.append(time.perf_counter() - start)
    return 3 * forward_operations(MEASURED, rows, tokens) / min(times[1:])
