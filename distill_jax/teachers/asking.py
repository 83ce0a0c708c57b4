"""How long it takes to ask a teacher, before it is asked."""

import time
from collections.abc import Callable
from typing import Any

import jax

from distill_jax.core.types import Batch
from distill_jax.data.plan import ExampleTable, choose_lengths, make_batch, plan_in_order


def how_long(table: ExampleTable, speaker: Callable[[Batch], Any], batch_size: int) -> str:
    """In words, from one batch of middling length.

    That batch is asked about twice; compiling for it does not count.
    """
    plan = plan_in_order(table.lengths_N, choose_lengths(table.lengths_N), batch_size=batch_size)
    middle = plan[len(plan) // 2]
    batch = make_batch(table, middle, batch_size=batch_size)
    jax.block_until_ready(speaker(batch))
    started = time.perf_counter()
    jax.block_until_ready(speaker(batch))
    each = (time.perf_counter() - started) / middle.length
    tokens = sum(planned.length for planned in plan)
    return f"{len(table):,} texts in all, about {each * tokens:.0f} s here"
