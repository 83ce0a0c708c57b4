"""Several processes that train one run together, on JAX's own distributed runtime.

Every process runs the same program. Each reads its part of a batch; sums are over all parts.
Only the lead writes files and talks; the others wait for it where they need what it wrote.
"""

import os
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from distill_jax.core.errors import UserError, first_line

Tree = TypeVar("Tree")
COORDINATOR = "DISTILL_JAX_COORDINATOR"
NUM_PROCESSES = "DISTILL_JAX_NUM_PROCESSES"
PROCESS_ID = "DISTILL_JAX_PROCESS_ID"


def join_processes() -> None:
    """Join the processes that the environment names, if it names any; before JAX is used.

    ``DISTILL_JAX_COORDINATOR`` is the address of the first process, ``host:port``, and
    ``DISTILL_JAX_NUM_PROCESSES`` and ``DISTILL_JAX_PROCESS_ID`` say how many there are and which
    this is; with ``auto`` JAX finds all of it, as it can on TPU pods and under SLURM.

    Raises:
      UserError: when the variables do not fit together, or nobody answers.
    """
    address = os.environ.get(COORDINATOR)
    if not address:
        return
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    named: dict[str, Any] = {}
    if address != "auto":
        count, own = _number(NUM_PROCESSES), _number(PROCESS_ID)
        if not 0 <= own < count:
            raise UserError(f"{PROCESS_ID} must be from 0 to {count - 1}, not {own}")
        named = {"coordinator_address": address, "num_processes": count, "process_id": own}
    try:
        jax.distributed.initialize(**named)
    except (RuntimeError, ValueError) as error:
        raise UserError(f"cannot join the processes at {address}: {first_line(error)}") from error


def is_lead() -> bool:
    """Whether this process is the one that writes and talks."""
    return jax.process_index() == 0


def wait_for_all(where: str) -> None:
    """Return when every process has come here.

    Args:
      where: a name of the place, the same in all processes.
    """
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(where)


def any_says(flag: bool) -> bool:
    """Whether the flag is set in any process; all must ask."""
    if jax.process_count() == 1:
        return flag
    return bool(np.any(multihost_utils.process_allgather(np.asarray(flag))))


def to_host(tree: Tree) -> Tree:
    """Copies of arrays as numpy arrays, gathered from all processes; all must ask."""

    def gathered(x: Any) -> np.ndarray:
        if not isinstance(x, jax.Array) or x.is_fully_addressable or x.is_fully_replicated:
            return np.array(x)
        return np.array(multihost_utils.process_allgather(x, tiled=True))

    return jax.tree.map(gathered, tree)


def _number(name: str) -> int:
    value = os.environ.get(name, "")
    if not value.isdigit():
        raise UserError(f"{COORDINATOR} is set, so {name} must be a whole number, not {value!r}")
    return int(value)
