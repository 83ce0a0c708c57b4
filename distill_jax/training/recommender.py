"""How recommenders are trained, as data."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from distill_jax.core.digests import LATE
from distill_jax.core.errors import UserError
from distill_jax.core.fields import check_fields
from distill_jax.data.histories import Hiding
from distill_jax.training.optimizer import OptimizerConfig

NDCG = "ndcg@10"
ADAM = OptimizerConfig(
    learning_rate=1e-3, schedule="constant", warmup=0.0, weight_decay=0.0, clip_norm=5.0
)


@dataclass(frozen=True)
class FitConfig:
    """How a recommender is trained.

    Attributes:
      epochs: passes over the users, or over their windows.
      eval_every: epochs between evaluations on the validation split.
      batch_size: users of a batch.
      max_shapes: batch lengths, each a compilation. With one, any users share a batch; with more,
        users of like history lengths do, which saves padding.
      optimizer: Adam at a constant rate, as SASRec's authors train it.
      hiding: which items are hidden from a model that finds hidden items.
      select: the validation metric that decides which evaluation was best.
      windows: whether histories longer than the model looks back are learned from as a whole, in
        several windows; else only the newest one is.
      kind_weights: how much a target of each kind of feedback counts, in the order of the data's;
        () where all do alike. What follows of a position's losses is divided by the sum of weights.
      patience: training ends when so many evaluations in a row were no better; 0 for never.
      watched: validation metrics beside ``select`` whose own best renews the patience.
    """

    epochs: int = 100
    eval_every: int = 1
    batch_size: int = 128
    max_shapes: int = 1
    optimizer: OptimizerConfig = ADAM
    hiding: Hiding = field(default_factory=Hiding)
    select: str = NDCG
    windows: bool = field(default=False, metadata=LATE)
    kind_weights: tuple[float, ...] = field(default=(), metadata=LATE)
    patience: int = field(default=0, metadata=LATE)
    watched: tuple[str, ...] = field(default=(), metadata=LATE)

    def __post_init__(self) -> None:
        check_fields(self)
        if min(self.epochs, self.eval_every, self.batch_size, self.max_shapes) < 1:
            raise UserError("epochs, eval_every, batch_size and max_shapes must be at least 1.")
        if self.kind_weights and not (self.kind_weights[0] > 0 <= min(self.kind_weights)):
            raise UserError("weights of kinds are at least 0, that of the first is above.")

    def check_kinds(self, names: Sequence[str]) -> None:
        """Raises ``UserError`` for weights that are not of the data's kinds of feedback."""
        if self.kind_weights and len(self.kind_weights) != len(names):
            raise UserError(
                f"{len(self.kind_weights)} weights of kinds for data with "
                f"{', '.join(names) or 'one kind'}."
            )
