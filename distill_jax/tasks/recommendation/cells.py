"""A cell of a table of recommenders, as data. Its hash is its identity in the ledger."""

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal

from distill_jax.core.digests import LATE, digest, fields_that_count
from distill_jax.core.fields import check_fields
from distill_jax.engine.options import Precision
from distill_jax.models.recommenders.build import parse_model
from distill_jax.tasks.revisions import EXPERTS_REVISED, has_experts
from distill_jax.training.recommender import FitConfig

RECIPE = 1
"""Raised when the same cell would come out differently than before, so that old rows retire."""

AS_HASHED = {"accumulate": 1, "log_every": 20, "checkpoint_seconds": 60.0, "on_nan": "stop"}
"""What once was part of a training; how runs are carried out changes nothing of what comes out."""

CLOSED_FORMS = ("popularity", "item_knn", "ease")
"""Recommenders without training, for comparison."""


@dataclass(frozen=True)
class RecData:
    """Which interactions, and how they are divided.

    Attributes:
      name: as ``--data`` takes it, see ``data.load_interactions``.
      split: ``leave-one-out``, ``temporal`` ..., or None for the data's own, else leave-one-out.
    """

    name: str = "movielens-100k"
    split: str | None = None

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class RecModel:
    """A model and how far it looks back.

    Attributes:
      name: see ``ModelName``.
      max_length: the newest so many items of a history are read.
      dropout: everywhere in it.
      heads: attention heads of a transformer.
    """

    name: str = "sasrec-1x16"
    max_length: int = 50
    dropout: float = 0.1
    heads: int = 1

    def __post_init__(self) -> None:
        check_fields(self)
        parse_model(self.name)


@dataclass(frozen=True)
class RecTeacher:
    """Who teaches.

    Attributes:
      model: what it is.
      objective: what it is trained with, on labels.
      training: how.
      seed: of its training.
      top: how many of its likeliest items are kept at each position.
    """

    model: RecModel = field(default_factory=lambda: RecModel("sasrec-2x64", dropout=0.2, heads=2))
    objective: str = "full_softmax"
    training: FitConfig = field(default_factory=FitConfig)
    seed: int = 0
    top: int = 100

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class RecCell:
    """One training run of a table.

    Attributes:
      data: what is learnt from.
      model: what is trained.
      objective: canonical text.
      training: epochs, batch, optimiser.
      seed: of initialisation, dropout, order and draws.
      start: ``random``, or ``teacher_items``: item vectors begin as the teacher's, turned to their
        principal directions and cut to the student's width.
      placebo: whether each position is taught what the teacher says of another one.
      data_digest: of the split.
      teacher_digest: of the teacher; "" where there is none to listen to or to start from.
      top: how many items the teacher's cache keeps; 0 without a teacher.
      precision: in which it is trained.
      plugin: digest of the user's code behind its losses; None where they are the library's.
    """

    data: RecData
    model: RecModel
    objective: str
    training: FitConfig
    seed: int = 0
    start: Literal["random", "teacher_items"] = "random"
    placebo: bool = False
    data_digest: str = ""
    teacher_digest: str = ""
    top: int = 0
    precision: Precision = field(default="f32", metadata=LATE)
    plugin: str | None = field(default=None, metadata=LATE)

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def hash(self) -> str:
        """Content digest. What the data is called does not count, its content does.

        Raises:
          ValueError: before the data's content is known.
        """
        if not self.data_digest:
            raise ValueError("a cell has a hash when its data is known")
        every = fields_that_count(self)
        fields = {key: value for key, value in every.items() if key != "data"}
        fields["training"] = {**fields_that_count(self.training), **AS_HASHED}
        changed = self.seed != 0 or self.training.optimizer.weight_decay > 0
        revised = EXPERTS_REVISED if changed and has_experts(self.objective) else {}
        return digest({"recommender_recipe": RECIPE, **revised, **fields})

    @property
    def config(self) -> dict[str, Any]:
        """As the ledger and the checkpoints keep it."""
        return dataclasses.asdict(self)
