"""What a recipe would cost on the device at hand: a few steps of its very shapes, extrapolated."""

import functools
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from distill_jax.core.types import Batch
from distill_jax.models.bert import Bert, BertConfig, Params, init_bert
from distill_jax.objectives.resolve import resolve
from distill_jax.sweeps.recipes import VOCABULARY, RecipeStage, Size
from distill_jax.teachers.live import LiveTeacher
from distill_jax.training.optimizer import learning_rate, make_optimizer
from distill_jax.training.state import init_state
from distill_jax.training.step import CompiledStep, StepNumbers, make_step

CPU_BATCHES = (2, 6)
"""Batch sizes that a CPU is timed with; on other devices the whole batch is."""


def config_of(size: Size) -> BertConfig:
    """The model of a recipe's size, with BERT's vocabulary and two classes."""
    return BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=size.hidden_size,
        num_layers=size.num_layers,
        num_heads=size.num_heads,
        intermediate_size=size.intermediate_size or 4 * size.hidden_size,
    )


def device_name() -> str:
    """The device at hand, in words."""
    device = jax.devices()[0]
    return f"{jax.device_count()} x {device.device_kind}"


def seconds_per_step(
    stage: RecipeStage,
    student: Size,
    teacher: Size,
    *,
    tokens: int,
    batch_sizes: tuple[int, ...] | None = None,
    repeats: int = 3,
) -> float:
    """Time of a training step with random weights, the teacher heard live, on one device.

    Args:
      stage: objective, optimiser and batch size.
      student, teacher: the very shapes.
      tokens: a row's length.
      batch_sizes: what is timed; with two sizes below the stage's, a line through both tells the
        time of the whole batch. None: ``CPU_BATCHES`` on a CPU, else the stage's.
      repeats: steps of each size, after one that compiles; their median counts.
    """
    if batch_sizes is None:
        small = jax.default_backend() == "cpu" and stage.batch_size > max(CPU_BATCHES)
        batch_sizes = CPU_BATCHES if small else (stage.batch_size,)
    run = _runner(stage, student, teacher, tokens)
    times = [_median_time(functools.partial(run, size), repeats) for size in batch_sizes]
    return extrapolate(batch_sizes, times, stage.batch_size)


def extrapolate(batch_sizes: tuple[int, ...], times: list[float], wanted: int) -> float:
    """The time of a batch of ``wanted`` rows, from those of one or two sizes.

    The line through two sizes keeps apart what a step costs whatever the batch (the optimiser)
    and what each row costs. Where noise makes it fall, and for one size, time is proportional to
    the rows.
    """
    if len(batch_sizes) == 2:
        slope = (times[1] - times[0]) / (batch_sizes[1] - batch_sizes[0])
        if slope > 0:
            return max(times[1] + slope * (wanted - batch_sizes[1]), times[0])
    return times[-1] * wanted / batch_sizes[-1]


def _runner(stage: RecipeStage, student: Size, teacher: Size, tokens: int) -> Callable[[int], None]:
    """``run(batch_size)`` does one whole step and waits for it."""
    config, teacher_config = config_of(student), config_of(teacher)
    objective = resolve(stage.objective, config.shape, teacher_config.shape)
    training = stage.training()
    optimizer = make_optimizer(training.optimizer)
    step = CompiledStep(make_step(Bert(config), objective, optimizer))
    params = init_bert(config, jax.random.key(0))
    state = init_state(params, objective.init_params(jax.random.key(1)), optimizer)
    numbers = StepNumbers(
        objective.numbers(0, 1),
        np.float32(learning_rate(training.optimizer, 0, 1)),
        np.uint32(0),
    )
    listen = None
    if objective.needs_teacher:
        listen = LiveTeacher(
            Bert(teacher_config), _random_params(teacher_config), objective.teacher_capture
        )

    def run(batch_size: int) -> None:
        nonlocal state
        batch = _batch(batch_size, tokens)
        state, metrics = step(state, batch, listen(batch) if listen else None, numbers)
        jax.block_until_ready((state, metrics))

    return run


@functools.lru_cache(maxsize=1)
def _random_params(config: BertConfig) -> Params:
    return init_bert(config, jax.random.key(2))


def _batch(batch_size: int, tokens: int) -> Batch:
    ids_BT = jnp.arange(batch_size * tokens, dtype=jnp.int32).reshape(batch_size, tokens)
    row_B = jnp.arange(batch_size, dtype=jnp.int32)
    return Batch(
        example_ids_B=row_B,
        input_ids_BT=ids_BT % VOCABULARY,
        token_type_ids_BT=jnp.zeros_like(ids_BT),
        where_BT=jnp.ones(ids_BT.shape, bool),
        labels_B=row_B % 2,
        label_where_B=jnp.ones(row_B.shape, bool),
    )


def _median_time(action: Callable[[], None], repeats: int) -> float:
    action()  # compiles
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        action()
        times.append(time.perf_counter() - start)
    return float(np.median(times))
