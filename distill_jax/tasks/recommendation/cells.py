"""What a cell of recommenders is: data, model, teacher, as data."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from distill_jax.core.digests import LATE, NAME, fields_that_count
from distill_jax.core.errors import UserError
from distill_jax.core.fields import check_fields
from distill_jax.data.build_interactions import Preparation
from distill_jax.data.column_names import FIELDS, parse_columns
from distill_jax.data.kinds import parse_kinds
from distill_jax.engine.cell import Cell
from distill_jax.models.recommenders.build import parse_model, recommender_family
from distill_jax.objectives.items import parse_ranking
from distill_jax.objectives.registry import lookup
from distill_jax.tasks.revisions import EXPERTS_REVISED, USERS_REVISED, has_experts
from distill_jax.training.recommender import FitConfig

RECIPE = 1
"""Raised when the same cell would come out differently than before, so that old rows retire."""

AS_HASHED = {"accumulate": 1, "log_every": 20, "checkpoint_seconds": 60.0, "on_nan": "stop"}
"""What once was part of a training; how runs are carried out changes nothing of what comes out."""


@dataclass(frozen=True)
class RecData:
    """Which interactions, and how they are divided.

    Attributes:
      name: as ``--data`` takes it, see ``data.load_interactions``.
      split: ``leave-one-out``, ``temporal`` ..., or None for the data's own, else leave-one-out.
      columns: ``user=userId,time=ts`` where the files' columns are not called as usual.
      min_rating, repeats: see ``Preparation``.
      k_core: users and items have so many interactions at least.
      asked: users of whom validation and test ask at most; None for all.
      item_vectors: a file of them, see ``data.item_vectors``, for models that read some.
      item_features: a table of their fields, see ``data.item_fields``, likewise.
      kinds: ``buy,cart,click``, the kinds of feedback that count, the first is asked for; None for
        all, "" where their column is not read.
      privileged: ``dwell,device``, columns that say more of each event, for teachers alone.
    """

    name: str = "movielens-100k"
    split: str | None = None
    columns: str | None = field(default=None, metadata=LATE)
    min_rating: float | None = field(default=None, metadata=LATE)
    k_core: int = field(default=1, metadata=LATE)
    repeats: str = field(default="first", metadata=LATE)
    item_vectors: str | None = field(default=None, metadata=LATE)
    asked: int | None = field(default=None, metadata=LATE)
    item_features: str | None = field(default=None, metadata=LATE)
    kinds: str | None = field(default=None, metadata=LATE)
    privileged: str | None = field(default=None, metadata=LATE)

    def __post_init__(self) -> None:
        check_fields(self)
        _ = self.read_columns
        if self.k_core < 1:
            raise UserError(f"--k-core is {self.k_core}; expected at least 1.")
        if self.asked is not None and self.asked < 1:
            raise UserError(f"--asked is {self.asked}; expected at least 1.")
        _ = self.preparation

    @property
    def read_columns(self) -> dict[str, str]:
        """Role -> column of the files, as ``load_interactions`` takes it."""
        fields = {FIELDS: self.privileged} if self.privileged else {}
        return {**parse_columns(self.columns), **fields}

    @property
    def preparation(self) -> Preparation:
        """What is done to the interactions before anything is learned from them."""
        weights = parse_kinds(self.kinds)
        kinds = None if weights is None else tuple(weights)
        return Preparation(self.repeats, self.min_rating, self.k_core, self.k_core, kinds=kinds)


@dataclass(frozen=True)
class RecModel:
    """A model and how far it looks back.

    Attributes:
      name: see ``ModelName``.
      max_length: the newest so many items of a history are read.
      dropout: everywhere in it.
      heads: attention heads of a transformer.
      vectors: digest of the item vectors that are given, of a model that reads some; known when
        they have been read.
      features: digest of the items' fields, likewise.
      item_bias: of a matrix factorisation, see ``BprMfConfig``.
      initial: standard deviation of fresh vectors and matrices.
    """

    name: str = "sasrec-1x16"
    max_length: int = 50
    dropout: float = 0.1
    heads: int = 1
    vectors: str = field(default="", metadata=LATE)
    features: str = field(default="", metadata=LATE)
    item_bias: bool = field(default=True, metadata=LATE)
    initial: float = field(default=0.02, metadata=LATE)

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
      users: it speaks of the histories of so many users at most, drawn once; None for all. Of the
        others' positions only the losses on labels learn.
    """

    model: RecModel = field(default_factory=lambda: RecModel("sasrec-2x64", dropout=0.2, heads=2))
    objective: str = "full_softmax"
    training: FitConfig = field(default_factory=FitConfig)
    seed: int = 0
    top: int = 100
    users: int | None = field(default=None, metadata=LATE)

    def __post_init__(self) -> None:
        check_fields(self)
        if self.users is not None and self.users < 1:
            raise UserError(f"--taught is {self.users}; expected at least 1.")


@dataclass(frozen=True)
class Update:
    """How a student is brought up to date when new interactions have come, see ``continual``.

    Attributes:
      rehearse: users without anything new who come again, as a share of those who have something.
      anew: forget the old student: start at random, on everything.
      data: the new interactions' name, where they are not those of the table.
      teacher_too: whether the teacher goes on learning, from everything.
      columns: of the new interactions' files, as of ``RecData``.
      began: the run that it began with, from the folder of its own runs; "" in a table.
    """

    rehearse: float = 0.0
    anew: bool = False
    data: str = field(default="", metadata=NAME)
    teacher_too: bool = field(default=True, metadata=LATE)
    columns: str | None = field(default=None, metadata=NAME)
    began: str = field(default="", metadata=NAME)

    def __post_init__(self) -> None:
        check_fields(self)
        if not 0 <= self.rehearse <= 1000:
            raise UserError(f"the share to rehearse must be from 0 to 1000, not {self.rehearse:g}")


@dataclass(frozen=True)
class RecommenderSetup:
    """What a cell of recommenders is.

    Attributes:
      data: what is learnt from.
      model: what is trained.
      teacher: who teaches; None where everybody learns from labels alone.
      start: ``random``, or ``teacher_items``: item vectors begin as the teacher's, turned to their
        principal directions and cut to the student's width.
      placebo: whether each position is taught what the teacher says of another one.
      top: how many items the teacher's cache keeps, where it is heard; found when settled.
      taught: of how many users' histories the teacher speaks at most, where it is heard; found when
        settled.
      update: of a student that was distilled before; None for the first time.
      among: the item that is asked for is ranked among so many others too, of those that the user
        never took, drawn by the seed of the run; on the validation split among them alone. 0 for
        all items and nothing else.
    """

    Training: ClassVar[type] = FitConfig

    data: RecData = field(default_factory=RecData)
    model: RecModel = field(default_factory=RecModel)
    teacher: RecTeacher | None = None
    start: Literal["random", "teacher_items"] = "random"
    placebo: bool = False
    top: int = 0
    update: Update | None = None
    taught: int | None = field(default=None, metadata=LATE)
    among: int = field(default=0, metadata=LATE)

    def __post_init__(self) -> None:
        check_fields(self)
        if self.among < 0:
            raise UserError(f"{self.among} sampled items were asked for; expected 0 or more.")

    def settled(self, cell: RecommenderCell) -> RecommenderCell:
        """Objectives in canonical form, and how much is kept of what the teacher says."""
        stages = tuple(
            dataclasses.replace(stage, objective=str(parse_ranking(stage.objective)))
            for stage in cell.making
        )
        terms = [term for each in stages for term in parse_ranking(each.objective).terms]
        heard = any(lookup(term.name).feed.needs_teacher for term in terms)
        goes_on = self.update is not None and self.teacher is not None
        listens = heard or self.start != "random" or goes_on
        if listens and self.teacher is None:
            raise UserError(
                f"{stages[-1].objective!r} with start {self.start!r} needs a teacher, and the "
                "table has none."
            )
        top = self.teacher.top if self.teacher and listens else 0
        taught = self.teacher.users if self.teacher and top else None
        return dataclasses.replace(cell, stages=(*stages, *cell.steps)).but(top=top, taught=taught)

    def identity(self, cell: RecommenderCell) -> dict[str, Any]:
        """What the data and the teacher are called does not count, their content does."""
        fields = cell.counted("data", "teacher", "update")
        fields["training"] = {**fields_that_count(cell.training), **AS_HASHED}
        changed = cell.seed != 0 or cell.training.optimizer.weight_decay > 0
        revised = EXPERTS_REVISED if changed and has_experts(cell.objective) else {}
        kind: Any = recommender_family(parse_model(self.model.name).kind).config_type
        users = USERS_REVISED if kind.knows_users else {}
        return {"recommender_recipe": RECIPE, **revised, **users, **fields}


RecommenderCell = Cell[RecommenderSetup]
