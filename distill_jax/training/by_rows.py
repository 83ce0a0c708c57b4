"""Steps that touch few rows of a large table: the others are moved when they are next looked at.

Adam moves a row that gets no gradient all the same, by its mean gradient so far, a little less at
each step. Such steps are made up for a row when a batch touches it, or when the parameters are
asked for, one by one, with the rates that they had; so the result is that of the whole table,
within rounding. After some 150 steps nothing is left to be made up.

State: of every table the parameters and Adam's two means as of the step that last touched the row.

Shape suffixes: I rows of the table, D width, R rows that a step touches, S steps.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array, lax

from distill_jax.models.occurring import at, put_at
from distill_jax.training.optimizer import OptimizerConfig
from distill_jax.training.state import Params, TrainState
from distill_jax.training.step import Step

SINCE, RATES = "since", "rates"
STEPS = 2**20
"""Learning rates that are remembered."""
LEFT = 1e-7
"""Share of a row's movement that is no longer made up for."""
PART = 1024
"""Rows that are moved at a time: what a processor's cache holds."""


@dataclasses.dataclass(frozen=True)
class ByRows:
    """How tables are trained by rows.

    Attributes:
      tables: paths to them in the student's parameters.
      optimizer: see ``can_go_by_rows``.
      read: a batch and what the teacher says of it as ``step`` takes them, on the host.
    """

    tables: tuple[tuple[str, ...], ...]
    optimizer: OptimizerConfig
    read: Callable[[Any, Any], tuple[Any, Any]]

    @property
    def longest(self) -> int:
        """Steps after which a row without gradients stands still."""
        per_step = self.optimizer.b1 / math.sqrt(self.optimizer.b2)
        return math.ceil(math.log(LEFT) / math.log(per_step))

    def start(self, params: Params) -> dict[str, np.ndarray]:
        """What a state remembers beside the tables: how many updates each row has had, those that
        are made up for too, and the rate of each."""
        (size,) = {len(at(params, path)) for path in self.tables}
        return {SINCE: np.zeros(size, np.int32), RATES: np.zeros(STEPS, np.float32)}

    def step(self, step: Step) -> Step:
        """A step of the whole tables.

        Args:
          step: of a student whose tables have the rows that stand in ``batch.rows_BC``, in that
            order; numbers behind the last row are padding.
        """

        def stepped(
            state: TrainState, batch: Any, said: Any, numbers: Any
        ) -> tuple[TrainState, Any]:
            rows_R = batch.rows_BC.reshape(-1)
            small = self._cut(state, rows_R)
            new, metrics = step(small, batch.replace(rows_BC=None), said, numbers)
            now = jnp.where(metrics.applied, new.step, jnp.maximum(state.step, 0))
            place = jnp.where(metrics.applied, state.step % jnp.int32(STEPS), jnp.int32(STEPS))
            rate = jnp.asarray(numbers.learning_rate)
            kept = {
                SINCE: state.rows[SINCE].at[rows_R].max(now, mode="drop"),
                RATES: state.rows[RATES].at[place].set(rate, mode="drop"),
            }
            return dataclasses.replace(self._put(state, new, rows_R), rows=kept), metrics

        return stepped

    def params(self, state: TrainState) -> Params:
        """The student's parameters with all rows moved to where they belong by now."""
        mean, square = _moments(state.opt_state)
        params = state.params
        for path in self.tables:
            table = at(params, path)
            moved = self._moved(at(mean, path), at(square, path), state, state.rows[SINCE])
            params = put_at(params, path, (table - moved).astype(table.dtype))
        return params

    def _cut(self, state: TrainState, rows_R: Array) -> TrainState:
        """The state of the small tables, moved to the step before this one."""
        since_R = _rows(state.rows[SINCE], rows_R)
        steps_R = jnp.maximum(state.step - since_R, 0).astype(jnp.float32)
        params, (mean, square) = state.params, _moments(state.opt_state)
        for path in self.tables:
            table, first, second = (
                _rows(at(tree, path), rows_R) for tree in (params, mean, square)
            )
            moved = self._moved(first, second, state, since_R)
            lead = (-1,) + (1,) * (table.ndim - 1)
            fades = (x**steps_R for x in (self.optimizer.b1, self.optimizer.b2))
            first, second = (
                x * fade.reshape(lead) for x, fade in zip((first, second), fades, strict=True)
            )
            params = put_at(params, path, table - moved)
            mean, square = put_at(mean, path, first), put_at(square, path, second)
        moments = _with_moments(state.opt_state, mean, square)
        return state.replace(params=params, opt_state=moments, rows={})  # type: ignore[attr-defined]

    def _put(self, state: TrainState, small: TrainState, rows_R: Array) -> TrainState:
        """The state of the whole tables after a step."""
        whole = [state.params, *_moments(state.opt_state)]
        own = [small.params, *_moments(small.opt_state)]
        for number, (tree, part) in enumerate(zip(whole, own, strict=True)):
            for path in self.tables:
                part = put_at(
                    part, path, at(tree, path).at[rows_R].set(at(part, path), mode="drop")
                )
            own[number] = part
        params, mean, square = own
        moments = _with_moments(small.opt_state, mean, square)
        return small.replace(params=params, opt_state=moments)  # type: ignore[attr-defined]

    def _moved(self, mean: Array, square: Array, state: TrainState, since_R: Array) -> Array:
        """How far rows have moved since the update that they are at, to be subtracted."""
        flat = (len(mean), -1)
        moved_RD = moved_without_gradients(
            mean.reshape(flat),
            square.reshape(flat),
            since_R,
            state.step,
            state.rows[RATES],
            self.optimizer,
            longest=self.longest,
        )
        return moved_RD.reshape(mean.shape)


@functools.lru_cache(maxsize=8)
def moved_params(by_rows: ByRows) -> Callable[[TrainState], Params]:
    """``by_rows.params``, compiled once for all runs."""
    return jax.jit(by_rows.params)


def can_go_by_rows(config: OptimizerConfig) -> bool:
    """Whether an optimiser moves rows without gradients by Adam's means alone, and ever less."""
    plain = config.weight_decay == 0 and not config.has_factors
    return plain and 0 < config.b1 < math.sqrt(config.b2)


def moved_without_gradients(
    mean_RD: Array,
    square_RD: Array,
    since_R: Array,
    now: Array,
    rates_S: Array,
    config: OptimizerConfig,
    *,
    longest: int,
) -> Array:
    """The sum of Adam's updates ``since_R + 1`` to ``now`` of rows whose gradients are 0 in them.

    ``sum_u rate_u m_u / (sqrt(v_u) + eps)`` with ``m_u = b1^j m / (1 - b1^u)``, ``j = u - since``,
    and ``v_u`` likewise (Kingma and Ba 2015, "Adam", algorithm 1).

    Args:
      mean_RD, square_RD: Adam's means after update ``since_R`` of each row.
      rates_S: the learning rate of update u at u - 1, modulo its size.
      longest: updates of a row that are summed, at most.

    Returns:
      [R, D].
    """
    size = min(PART, len(mean_RD))
    moving_R = jnp.any(mean_RD != 0, axis=1)
    due_R = jnp.where(moving_R, jnp.clip(now - since_R, 0, longest), 0).astype(jnp.int32)
    order_R = jnp.argsort(due_R)  # rows with like numbers of updates share a part

    def of_part(number: Array, moved_RD: Array) -> Array:
        start = jnp.minimum(number * jnp.int32(size), jnp.int32(len(due_R) - size))
        rows_P = lax.dynamic_slice_in_dim(order_R, start, size)
        mean_PD, root_PD = mean_RD[rows_P], jnp.sqrt(square_RD[rows_P])
        since_P, due_P = since_R[rows_P], due_R[rows_P]

        def of_update(j: Array, moved_PD: Array) -> Array:
            update_P = since_P + j
            rate_P = jnp.where(j <= due_P, rates_S[(update_P - 1) % len(rates_S)], 0)
            count_P, gone = update_P.astype(jnp.float32), j.astype(jnp.float32)
            first_P = rate_P * config.b1**gone / (1 - config.b1**count_P)
            second_P = jnp.sqrt(config.b2**gone / (1 - config.b2**count_P))
            return moved_PD + first_P[:, None] * mean_PD / (
                root_PD * second_P[:, None] + config.eps
            )

        most = jnp.max(due_P)
        moved_PD = lax.fori_loop(jnp.int32(1), most + 1, of_update, jnp.zeros_like(mean_PD))
        return moved_RD.at[rows_P].set(moved_PD)

    parts = -(-len(due_R) // size)
    return lax.fori_loop(jnp.int32(0), jnp.int32(parts), of_part, jnp.zeros_like(mean_RD))


def _rows(table: Array, rows_R: Array) -> Array:
    """Rows of a table, 0 behind its end."""
    return table.at[rows_R].get(mode="fill", fill_value=0)


def _is_adam(x: Any) -> bool:
    return isinstance(x, optax.ScaleByAdamState)


def _moments(opt_state: Any) -> tuple[Params, Params]:
    """Adam's two means of the student's parameters."""
    (adam,) = filter(_is_adam, jax.tree.leaves(opt_state, is_leaf=_is_adam))
    return adam.mu["student"], adam.nu["student"]


def _with_moments(opt_state: Any, mean: Params, square: Params) -> Any:
    def changed(adam: Any) -> Any:
        if not _is_adam(adam):
            return adam
        own = {"mu": {**adam.mu, "student": mean}, "nu": {**adam.nu, "student": square}}
        return adam._replace(**own)

    return jax.tree.map(changed, opt_state, is_leaf=_is_adam)
