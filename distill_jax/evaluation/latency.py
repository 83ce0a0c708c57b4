"""What a model costs: its parameters, and its latency on the CPU, one batch at a time."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax

from distill_jax.core.errors import UserError
from distill_jax.evaluation.timing import Latency, latency_of, timed_pass

Apply = Callable[[Any, Any], Any]
"""``apply(params, batch) -> arrays``."""


def parameter_count(params: Any) -> int:
    """How many numbers a pytree of arrays (or of their shapes) holds."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))


def cpu_latency(
    apply: Apply,
    params: Any,
    batches: Sequence[Any],
    *,
    warmup: int = 2,
    repeats: int = 10,
    on_call: Callable[[], None] = lambda: None,
) -> Latency:
    """Latency of ``apply(params, batch)`` on the CPU backend.

    Runs on the first CPU device even where a GPU or TPU is the default. It is compiled once per
    batch shape and warmed up outside the timing. A repeat goes once through all batches, so that
    a slow moment of the machine hits all of them alike.

    Args:
      apply: jitted here; it may return any pytree of arrays, all of which are waited for. The same
        function object in a later call is not compiled again.
      batches: what to time, typically batches of one example from the test split.
      warmup: untimed passes, of which the first compiles; at least 1.
      repeats: timed passes.
      on_call: called after every batch, outside the timing; may raise to stop.

    Raises:
      UserError: without batches, warm-up or repeats, or without a CPU backend.
    """
    _check(batches, warmup, repeats)
    call = jax.jit(apply)
    params, placed = jax.device_put((params, list(batches)), cpu_device())

    def whole(batch: Any) -> None:
        jax.block_until_ready(call(params, batch))

    return call_latency(whole, placed, warmup=warmup, repeats=repeats, on_call=on_call)


def call_latency(
    call: Callable[[Any], Any],
    inputs: Sequence[Any],
    *,
    warmup: int = 2,
    repeats: int = 10,
    on_call: Callable[[], None] = lambda: None,
) -> Latency:
    """Latency of anything that has answered when it returns, of Python's share too.

    Args:
      inputs: one a call; the rest as of ``cpu_latency``.

    Raises:
      UserError: without inputs, warm-up or repeats.
    """
    _check(inputs, warmup, repeats)
    passes = [timed_pass(call, inputs, on_call) for _ in range(warmup + repeats)]
    return latency_of(passes[warmup:])


def _check(batches: Sequence[Any], warmup: int, repeats: int) -> None:
    if not batches or warmup < 1 or repeats < 1:
        raise UserError(
            "latency needs at least one batch, one warm-up and one repeat, not "
            f"{len(batches)}, {warmup} and {repeats}."
        )


def cpu_device() -> jax.Device:
    """The first of JAX's CPU backend.

    Raises:
      UserError: where there is none.
    """
    try:
        return jax.devices("cpu")[0]
    except RuntimeError as error:
        raise UserError(
            "CPU latency needs JAX's CPU backend beside the accelerator: unset JAX_PLATFORMS "
            "or add cpu to it, e.g. JAX_PLATFORMS=cuda,cpu."
        ) from error
