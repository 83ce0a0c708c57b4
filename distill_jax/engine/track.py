"""Scalars of a run for TensorBoard or Weights & Biases."""

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distill_jax.core.errors import UserError
from distill_jax.core.files import readable_os_errors
from distill_jax.engine.options import TrackTo


class Tracker:
    """Writes scalars nowhere; the others write them somewhere."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Record named numbers at an optimiser step."""

    def resume(self, step: int) -> None:
        """Say that a run goes on after so many steps; later ones come again."""

    def close(self) -> None:
        """Flush what is left."""

    def __enter__(self) -> "Tracker":
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()


class _TensorBoard(Tracker):
    """Event files, written at once: a run that is killed has lost no step that it had logged.

    Every process that works at a run has a file of its own. What an earlier one logged after the
    checkpoint that is gone on from is done again; a session's start says so to TensorBoard.
    """

    def __init__(self, folder: Path) -> None:
        from tensorboardX.event_file_writer import EventsWriter

        self._folder = folder
        with readable_os_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            same = f".{os.getpid()}.{len(list(folder.iterdir()))}"
            self._writer = EventsWriter(str(folder / "events"), same)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        from tensorboardX.proto.summary_pb2 import Summary

        each = [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        self._write(step=step, summary=Summary(value=each))

    def resume(self, step: int) -> None:
        from tensorboardX.proto.event_pb2 import SessionLog

        self._write(step=step + 1, session_log=SessionLog(status=SessionLog.START))

    def _write(self, **fields: Any) -> None:
        from tensorboardX.proto.event_pb2 import Event

        with readable_os_errors(self._folder):
            self._writer.write_event(Event(wall_time=time.time(), **fields))
            self._writer.flush()

    def close(self) -> None:
        with readable_os_errors(self._folder):
            self._writer.close()


class _Wandb(Tracker):
    def __init__(self, folder: Path, name: str, config: Mapping[str, Any]) -> None:
        try:
            import wandb
        except ImportError as error:
            raise UserError(
                "--track wandb needs the extra: pip install 'distill_jax[wandb]'"
            ) from error
        folder.mkdir(parents=True, exist_ok=True)
        mode = os.environ.get("WANDB_MODE", "offline")
        self._run = wandb.init(
            project="distill_jax",
            name=name,
            id=name,
            resume="allow",
            dir=str(folder),
            mode=mode,
            config=dict(config),
        )

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        self._run.finish()


def open_tracker(to: TrackTo, folder: Path, name: str, config: Mapping[str, Any]) -> Tracker:
    """A tracker for one run, to be used as a context.

    Args:
      to: ``none``, ``tensorboard`` (event files in ``folder``) or ``wandb`` (an optional extra;
        offline unless ``WANDB_MODE`` says otherwise).
      name, config: how Weights & Biases shows the run.
    """
    match to:
        case "none":
            return Tracker()
        case "tensorboard":
            return _TensorBoard(folder)
        case "wandb":
            return _Wandb(folder, name, config)
