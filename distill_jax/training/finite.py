"""A step whose loss or gradients are not finite changes nothing, and says so.

It is decided inside the compiled step, so the host need not look at every one. A run that is to
stop there must not take further steps before the host looks: its state is frozen, marked by a
negative step, and is the last good one whenever somebody comes.
"""

import jax
import jax.numpy as jnp

from distill_jax.training.state import TrainState


def guard(
    new: TrainState, old: TrainState, loss: jax.Array, grad_norm: jax.Array, *, skip: bool
) -> tuple[TrainState, jax.Array]:
    """The state after a step, and whether the step was applied.

    Args:
      new, old: after the update and before it.
      loss: the objective's total.
      grad_norm: global norm of all gradients; not finite when any of them is not.
      skip: leave a step out that is not finite and go on, with the next batch; else freeze.

    Returns:
      ``new`` where all is finite; ``old`` elsewhere, with its step counted (``skip``) or marked
      (``-1 - updates``). And a bool scalar.
    """
    finite = jnp.isfinite(loss) & jnp.isfinite(grad_norm)
    applied = finite & (old.step >= 0)
    after = jnp.where(applied, new.step, jnp.where(old.step >= 0, ~old.step, old.step))
    if skip:
        after = new.step
    state = jax.tree.map(lambda n, o: jnp.where(applied, n, o), new, old)
    return state.replace(step=after), applied


def thaw(state: TrainState) -> TrainState:
    """A frozen state as it was before the step that was not finite; others as they are."""
    return state.replace(  # type: ignore[attr-defined]
        step=jnp.where(state.step >= 0, state.step, ~state.step)
    )
