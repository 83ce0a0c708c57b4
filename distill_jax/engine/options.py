"""How runs are carried out: what may change without changing what comes out."""

from dataclasses import dataclass
from typing import Literal

from distill_jax.core.errors import UserError
from distill_jax.core.fields import check_fields
from distill_jax.engine.parts import Part

Precision = Literal["f32", "bf16", "bf16-params"]
"""``bf16``: the student computes in bfloat16, its parameters are float32; ``bf16-params``: they are
bfloat16 too. Losses, reductions and the optimiser are float32 always."""
Strategy = Literal["auto", "sequential", "vmap", "sharded"]
TrackTo = Literal["none", "tensorboard", "wandb"]
Pooling = Literal["teacher", "pooler", "mean", "cls"]
"""What a student's head reads: as the teacher's, or one of ``models.bert.POOLINGS``."""
Select = Literal["accuracy", "macro_f1", "loss"]


@dataclass(frozen=True)
class RunOptions:
    """How runs are carried out. None of this is part of a run's hash: the same cell gives the same
    result, within rounding.
    """

    parallel: Literal["jit", "pmap"] = "jit"
    """jit: one program over all devices. pmap: one program a device, parameters on each."""
    fsdp: int = 1
    """Devices over which each parameter is cut (jit only); the others cut the batch."""
    accumulate: int = 1
    """Parts into which a batch is cut, one after another, to save memory."""
    remat: bool = False
    """Compute activations again in the backward pass instead of keeping them."""
    resume: Literal["auto", "must", "never"] = "auto"
    """auto: go on where there is something to go on from. must: refuse where there is nothing, or
    it is damaged. never: start unfinished runs afresh."""
    allow_change: tuple[str, ...] = ()
    """Settings that may differ from those of the runs in the folder, e.g. training.epochs."""
    on_nan: Literal["stop", "skip"] = "stop"
    """A loss or gradient that is not finite: stop the run, or leave that step out."""
    checkpoint_seconds: float = 60.0
    """Seconds between two checkpoints of a run."""
    teacher_check: Literal["warn", "refuse", "off"] = "warn"
    """A teacher that is no better on validation than always saying the commonest class, or whose
    classes seem to be in another order: warn, refuse before anything is trained, or do not ask."""
    part: str = "1/1"
    """I/N: run the I-th of N parts of the table, with a ledger of its own; for many machines."""
    keep_checkpoints: int = 2
    """How many of its last checkpoints are kept until a run is finished. Each takes about four
    times the memory of the student's parameters."""

    def __post_init__(self) -> None:
        check_fields(self)
        for name in ("fsdp", "accumulate", "keep_checkpoints"):
            if getattr(self, name) < 1:
                raise UserError(
                    f"--{name.replace('_', '-')} must be at least 1, not {getattr(self, name)}"
                )
        if self.parallel == "pmap" and self.fsdp > 1:
            raise UserError("--fsdp needs --parallel jit: pmap keeps all parameters on each device")
        if not self.checkpoint_seconds >= 0:
            raise UserError("--checkpoint-seconds must not be negative")
        Part.parse(self.part)

    @property
    def share(self) -> Part:
        """The part, parsed."""
        return Part.parse(self.part)


DEFAULTS = RunOptions()
"""Of every command."""
