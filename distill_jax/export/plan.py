"""How often what is timed."""

import dataclasses

from distill_jax.core.errors import UserError


@dataclasses.dataclass(frozen=True)
class BenchPlan:
    """How often what is timed.

    Attributes:
      sentences: asked one at a time, spread evenly over the texts.
      batches: of ``batch_size`` texts, drawn without replacement as far as they reach.
      warmup, repeats: rounds; those of the warm-up do not count.
      seed: of the draw, and of the order within rounds.
    """

    sentences: int = 100
    batches: int = 10
    batch_size: int = 32
    warmup: int = 2
    repeats: int = 7
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("sentences", "batches", "batch_size", "warmup", "repeats"):
            if getattr(self, name) < 1:
                raise UserError(f"{name.replace('_', ' ')} must be at least 1")

    @property
    def texts(self) -> int:
        """That a pass asks about."""
        return self.sentences + self.batches * self.batch_size
