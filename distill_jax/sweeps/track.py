"""Scalars of a run for TensorBoard or Weights & Biases."""

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from distill_jax.core.errors import UserError

TrackTo = Literal["none", "tensorboard", "wandb"]


class Tracker:
    """Writes scalars nowhere; the others write them somewhere."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Record named numbers at an optimiser step."""

    def close(self) -> None:
        """Flush what is left."""

    def __enter__(self) -> "Tracker":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class _TensorBoard(Tracker):
    def __init__(self, folder: Path) -> None:
        from tensorboardX import SummaryWriter

        self._writer = SummaryWriter(str(folder), write_to_disk=True)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


class _Wandb(Tracker):
    def __init__(self, folder: Path, name: str, config: Mapping[str, Any]) -> None:
        import os

        try:
            import wandb
        except ImportError as error:
            raise UserError(
                "--track wandb needs the extra: pip install 'distill_jax[wandb]'"
            ) from error
        folder.mkdir(parents=True, exist_ok=True)
        mode = os.environ.get("WANDB_MODE", "offline")
        self._run = wandb.init(
            project="distill_jax", name=name, dir=str(folder), mode=mode, config=dict(config)
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
