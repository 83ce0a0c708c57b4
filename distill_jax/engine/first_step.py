"""Self-checks of any task, by its own first step: what would spoil a table in silence is an error.

The step is the one that training takes, so nothing is compiled for it beside. Classifiers have
checks that know more of them, see ``self_checks``.
"""

import time
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import optax

from distill_jax.core.errors import UserError
from distill_jax.engine.engine import Engine
from distill_jax.engine.interface import Run
from distill_jax.engine.work import Work
from distill_jax.training.loop import step_numbers
from distill_jax.training.state import TrainState

PASSED = (
    "a step read twice is the same, with the same words of the teacher, all trained parameters get "
    "gradients"
)


def check_first_steps(engine: Engine, runs: Sequence[Run]) -> None:
    """The first step of each structure among the runs; says that all is well.

    Args:
      runs: that are not finished yet; none, and nothing is checked or said.

    Raises:
      UserError: for the first check that fails. A loss that is not finite is left to training,
        which says more of it.
    """
    if not runs:
        return
    started, seen = time.perf_counter(), set()
    with engine.reporter.stage("self-checks", len(runs)) as stage:
        for done, run in enumerate(runs, 1):
            engine.check_stop()
            work = run.works[0]
            if work.structure not in seen:
                seen.add(work.structure)
                check_first_step(engine, run, work)
            stage.update(done)
    seconds = time.perf_counter() - started
    objectives = f"{len(seen)} objective{'s' * (len(seen) > 1)}"
    engine.reporter.say(f"self-checks: {PASSED}: passed ({objectives}, {seconds:.1f} s)")


def check_first_step(engine: Engine, run: Run, work: Work) -> None:
    """The checks of one run.

    Raises:
      UserError: see ``check_first_steps``.
    """
    params = run.start()
    work = engine.by_rows(work, params)
    feed = work.feed(run.outputs(), engine.own_rows(work))
    batch, said = feed(0)
    if not _equal((batch, said), feed(0)):
        raise UserError(
            f"{run.title}: read twice, step 1 is not the same: its batches, or what its teacher "
            "says of them, are no function of seed and step"
        )
    layout = engine.layout
    state = layout.put_state(engine.new_state(work, params))
    numbers = step_numbers(work.objective, work.optimizer, work.seed, 0, work.steps)
    if work.by_rows:
        batch, said = work.by_rows.read(batch, said)
    given = (*layout.put_batch(batch, said), layout.put_numbers(numbers))
    state, metrics = engine.step(work)(state, *given)
    if not bool(np.asarray(metrics.applied)):
        return
    if names := unreached(state):
        raise UserError(
            f"{run.title}: {', '.join(names)} get no gradient from {work.objective.objective}; "
            "add a term that reads what they make"
        )


def unreached(state: TrainState) -> list[str]:
    """Names of the parameters whose gradients of the steps so far were all 0."""
    means = optax.tree_utils.tree_get(state.opt_state, "mu")
    leaves = jax.tree_util.tree_flatten_with_path(means)[0]
    return [
        "/".join(str(getattr(key, "key", key)) for key in path[1:])
        for path, mean in leaves
        if mean.size and not bool(np.any(np.asarray(mean)))
    ]


def _equal(one: Any, other: Any) -> bool:
    leaves, others = jax.tree.leaves(one), jax.tree.leaves(other)
    return len(leaves) == len(others) and all(
        np.array_equal(np.asarray(a), np.asarray(b), equal_nan=np.asarray(a).dtype.kind == "f")
        for a, b in zip(leaves, others, strict=True)
    )
