"""Checkpoints with Orbax: the whole state of a run, atomically."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from distill_jax.core.errors import UserError
from distill_jax.training.state import Params, TrainState


@dataclass(frozen=True)
class Snapshot:
    """What a run needs to go on as if it had never stopped.

    Attributes:
      state: the training state, its step included; of a population, stacked over its members.
      best_params: the student's parameters at the best evaluation so far; likewise.
      record: JSON: the history of evaluations, best step and score, seconds spent.
    """

    state: TrainState
    best_params: Params
    record: dict[str, Any]

    @property
    def step(self) -> int:
        """The number of finished steps; all members of a population have taken as many."""
        return int(np.max(self.state.step))


class Checkpoints:
    """The latest snapshot of one run, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        options = ocp.CheckpointManagerOptions(max_to_keep=1, create=True)
        try:
            self._manager = ocp.CheckpointManager(folder.absolute(), options=options)
        except OSError as error:
            raise UserError(f"cannot write checkpoints to {folder}: {error.strerror}") from error

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *error: object) -> None:
        self._manager.close()

    def save(self, snapshot: Snapshot) -> None:
        """Write a snapshot and wait until it is whole on disk.

        Raises:
          UserError: when it cannot be written; the snapshot before it stays as it was.
        """
        step = snapshot.step
        if step == self._manager.latest_step():
            return
        items = ocp.args.Composite(
            state=ocp.args.StandardSave(snapshot.state),
            best=ocp.args.StandardSave(snapshot.best_params),
            record=ocp.args.JsonSave(snapshot.record),
        )
        try:
            self._manager.save(step, args=items, force=True)
            self._manager.wait_until_finished()
        except (OSError, ValueError, RuntimeError) as error:
            raise UserError(f"cannot write a checkpoint to {self._folder}: {error}") from error

    def restore(self, like: TrainState) -> Snapshot | None:
        """The latest snapshot, or None when there is none.

        Args:
          like: a state of the same shapes, of arrays where the snapshot's are to be: on devices,
            or numpy's on the host.

        Raises:
          UserError: when there is one that cannot be read; nothing starts afresh in silence.
        """
        step = self._manager.latest_step()
        if step is None:
            return None

        def target(x: jax.Array | np.ndarray) -> Any:
            if isinstance(x, np.ndarray):
                return x
            return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding)

        shapes = jax.tree.map(target, like)
        items = ocp.args.Composite(
            state=ocp.args.StandardRestore(shapes),
            best=ocp.args.StandardRestore(shapes.params),
            record=ocp.args.JsonRestore(),
        )
        try:
            restored = self._manager.restore(step, args=items)
            if jax.tree.map(np.shape, restored["state"]) != jax.tree.map(np.shape, like):
                raise ValueError("it is of a run of other shapes")
        except Exception as error:  # Orbax raises many kinds; every one means the same to a user
            first_line = (str(error).splitlines() or [type(error).__name__])[0]
            raise UserError(
                f"the checkpoint of step {step} in {self._folder} cannot be read "
                f"({first_line[:200]}); delete that folder to start this run afresh"
            ) from error
        return Snapshot(restored["state"], restored["best"], restored["record"])
