"""What a cell of classifiers is: data, teacher, student, as data."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from distill_jax.core.digests import LATE, fields_that_count
from distill_jax.core.errors import UserError
from distill_jax.core.fields import check_fields
from distill_jax.data import wordpiece
from distill_jax.data.augment.augmentation import parse_augmentation
from distill_jax.engine.cell import Cell
from distill_jax.engine.options import Pooling, Precision
from distill_jax.models.starts import USUAL, parse_start
from distill_jax.objectives.reworded import listens
from distill_jax.tasks.classification.staged import expanded
from distill_jax.tasks.kinds.kind import Kind
from distill_jax.tasks.kinds.kinds import kind_named
from distill_jax.tasks.revisions import EXPERTS_REVISED, has_experts
from distill_jax.training.optimizer import OptimizerConfig
from distill_jax.training.recipe import parse_recipe

RECIPE = 2
"""Raised when the same cell would come out differently than before, so that old rows retire."""

MOST = 2**31 - 1
"""Steps are counted in 32 bits on the device."""

TEACHER = "teacher"
"""The name, among the students, of the teacher that is fine-tuned."""
FILE, RUN, NOBODY, SEED = "file:", "run:", "none", "{seed}"
"""In the names of teachers."""
PACKAGED_TOKENIZER = "minilm-l6"
MOST_PEERS = 8


OWN = ("files:", "tfds:", "images:")
"""How the names of the user's own data sets begin."""


def is_own(name: str) -> bool:
    """Whether a data set is the user's, so that no committed table rests on its defaults."""
    return name.startswith(OWN)


OCCURRING = "occurring"
"""A student's vocabulary: those of its teacher's tokens that occur in the training texts."""


def usual_fraction(name: str) -> float:
    """The share of the labels that is used where nobody says: all of the user's own; a tenth of
    the built-in data sets, so that there is something for a teacher to add."""
    return 1.0 if is_own(name) else 0.1


@dataclass(frozen=True)
class DataConfig:
    """Which examples, and how many of them have labels.

    Attributes:
      name: ``review_snippets/movie``, ``shopping_reviews_zh``, ``digits``, ``files:FOLDER``,
        ``tfds:NAME``, ``images:FILE.npz``, ``images:tfds:NAME``.
      text, text_b, label: columns of the user's own files and of TFDS sets.
      label_fraction: share of the training labels that is used.
      max_length: tokens after which a text is cut.
      transfer: ``rest``: the examples whose labels are not used are the transfer set, on which
        only the teacher speaks; ``none``: they are left out; ``only``: the others are, so that
        nothing is learnt but what a teacher says of examples without labels.
      more_texts: data sets whose training texts join the transfer set, without their labels.
      label_noise: share of the used labels that is replaced by another class, drawn uniformly
        and once for all seeds; validation and test stay as they are.
      label_seed: of the draw of the labels that are used and of those that are wrong; 0 for the
        draw of all committed tables.
      client: ``K/N``: of the labels that are used, the part of the K-th of N clients who share
        nothing; "" for all of them.
      client_alpha: how unlike the clients are: of each class they have shares drawn from a
        symmetric Dirichlet distribution of this concentration (Hsu et al. 2019, arXiv:1909.06335);
        0: parts of one size, drawn alike.
      task: what is predicted, a kind of ``tasks.kinds``.
      label_separator: between the labels of a cell, where an example has several.
      left_out: classes that students never see: their examples are not in the transfer set, nor
        any other that a student with a teacher learns from. The teacher was trained on them.
      augment: copies of the training texts that join the transfer set, see ``data.augment``;
        canonical text.
    """

    name: str = "review_snippets/movie"
    text: str = "sentence"
    text_b: str | None = None
    label: str = "label"
    label_fraction: float = 0.1
    max_length: int = 128
    transfer: Literal["rest", "none", "only"] = "rest"
    more_texts: tuple[str, ...] = ()
    label_noise: float = 0.0
    label_seed: int = 0
    client: str = field(default="", metadata=LATE)
    client_alpha: float = field(default=0.0, metadata=LATE)
    task: str = field(default="classes", metadata=LATE)
    label_separator: str = field(default=",", metadata=LATE)
    left_out: tuple[str, ...] = field(default=(), metadata=LATE)
    augment: str = field(default="", metadata=LATE)

    def __post_init__(self) -> None:
        check_fields(self)
        augmentation = parse_augmentation(self.augment)
        object.__setattr__(self, "augment", str(augmentation or ""))
        _check_seed("label", self.label_seed)
        parse_client(self.client)
        if not 0 <= self.client_alpha < math.inf:
            raise UserError(f"client_alpha must not be negative, not {self.client_alpha:g}")
        kind = self.kind  # raises for a task that there is not
        if self.augment and not kind.augments:
            raise UserError(
                f"augmentation ({self.augment}) is for tasks with an answer a text, not for task "
                f"{self.task}: its answers are of words, which copies change"
            )
        if self.label_noise and not kind.has_classes:
            raise UserError(f"label noise is for classes, not for task {self.task}")
        if self.text_b == self.text:
            raise UserError(f"both texts of a pair would be those of column {self.text!r}")
        if not self.label_separator.strip():
            raise UserError("the label separator must be more than white space")
        if not 0 < self.label_fraction <= 1:
            raise UserError(f"the label fraction must be in (0, 1], not {self.label_fraction}")
        if not 0 <= self.label_noise < 1:
            raise UserError(f"the label noise must be in [0, 1), not {self.label_noise}")
        if not 4 <= self.max_length <= 512:
            raise UserError(f"the maximal length must be from 4 to 512, not {self.max_length}")

    @property
    def kind(self) -> Kind:
        """Of what is predicted."""
        return kind_named(self.task)

    def pooling_of(self, chosen: str) -> str:
        """What a teacher's head reads: as chosen, or every token where the task is of tokens."""
        return "tokens" if self.kind.head == "tokens" else chosen

    @property
    def draws_labels(self) -> bool:
        """Whether chance has a say in the labels: not where all are used as they are."""
        return self.label_fraction < 1 or self.label_noise > 0 or bool(self.client)


@dataclass(frozen=True)
class TrainingConfig:
    """How a model is trained.

    Attributes:
      epochs: passes over the training examples of the cell; decides the number of steps.
      steps: optimiser steps; 0 leaves it to ``epochs``.
      evaluations: how often the validation split is looked at, evenly spread.
      batch_size: examples a step.
      max_shapes: the most lengths that batches are padded to; each is a compilation. As many
        are used as keep the padding under a tenth.
      optimizer: AdamW's settings.
      select: what decides on validation which step is kept, a word of the kind's ``decides``: of
        classes the highest ``accuracy`` or ``macro_f1``, or the lowest ``loss``, the mean negative
        log-likelihood of the labels.
      ties: of steps that are equal in that, the ``earliest`` or the one of the lowest ``loss``.
      min_steps: the least that ``epochs`` come to.
      patience: training ends when so many evaluations in a row were no better; 0 for never.
      jitter: pixels by which an image is moved at most, anew in every epoch, see ``data.jitter``.
      recipe: what is done beside the objective, see ``training.recipe``; canonical text.
    """

    epochs: float = 2.0
    steps: int = 0
    evaluations: int = 4
    batch_size: int = 64
    max_shapes: int = 16
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    select: str = field(default="accuracy", metadata=LATE)
    ties: Literal["earliest", "loss"] = field(default="earliest", metadata=LATE)
    min_steps: int = field(default=0, metadata=LATE)
    patience: int = field(default=0, metadata=LATE)
    jitter: int = field(default=0, metadata=LATE)
    recipe: str = field(default="", metadata=LATE)

    def __post_init__(self) -> None:
        check_fields(self)
        if not 0 < self.epochs < math.inf:
            raise UserError(f"epochs must be positive, not {self.epochs:g}")
        counts = ("evaluations", "batch_size", "max_shapes")
        from_none = ("steps", "min_steps", "patience", "jitter")
        for name, least in {**dict.fromkeys(from_none, 0), **dict.fromkeys(counts, 1)}.items():
            if not least <= (number := getattr(self, name)) <= MOST:
                said = f"{name.replace('_', ' ')} must be from {least} to {MOST}, not {number}"
                raise UserError(said + (" (0 leaves them to epochs)" if name == "steps" else ""))
        object.__setattr__(self, "recipe", str(parse_recipe(self.recipe)))

    @property
    def moved(self) -> OptimizerConfig:
        """The optimiser, with what the recipe makes of it."""
        return parse_recipe(self.recipe).optimizer(self.optimizer)

    def at_rate(self, learning_rate: float) -> TrainingConfig:
        """The same with another peak learning rate."""
        optimizer = dataclasses.replace(self.optimizer, learning_rate=learning_rate)
        return dataclasses.replace(self, optimizer=optimizer)

    def total_steps(self, examples: int) -> int:
        """Optimiser steps over a training set of so many examples.

        Raises:
          UserError: when they cannot be counted in 32 bits.
        """
        steps = self.epochs * -(-examples // self.batch_size)
        if steps > MOST:
            raise UserError(f"{self.epochs:g} epochs are more than {MOST} steps")
        return self.steps or max(1, round(steps), self.min_steps)


@dataclass(frozen=True)
class AssistantConfig:
    """A student who learns of a teacher and then teaches in its place.

    Attributes:
      student: see ``ClassifierSetup``.
      objective: by which it learns; one that hears nobody makes a first generation of born-again
        networks (Furlanello et al. 2018).
      training: how.
      pooling: see ``ClassifierSetup``.
    """

    student: str
    objective: str = "kl"
    training: TrainingConfig = field(default_factory=TrainingConfig)
    pooling: Pooling = "teacher"

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class TeacherConfig:
    """Who teaches, and how it is heard.

    Attributes:
      name: ``minilm-l6``, a local folder, a hub id of any BERT checkpoint, or a model of images,
        ``cnn-16-32-64`` or ``mlp-1200-1200-drop``; ``run:HASH``, a finished student of any table;
        ``file:PREDICTIONS``, what somebody said of the examples; ``none`` for nobody. ``{seed}``
        in it stands for ``seed``.
      fine_tune: whether it is trained on the labels first; off for one that is already.
      training: of that fine-tuning.
      outputs: ``cache`` asks the teacher once, ``live`` at every step.
      cache_dtype: of cached token-level outputs; logits are always float32.
      cache_top_k: of more classes than this, a cache keeps the largest logits and the mass of
        the rest; None keeps all.
      precision: in which it speaks.
      seed: of its fine-tuning: the new head, dropout and the order of the data.
      pooling: what its head reads, see ``BertConfig``; ``auto`` for what its checkpoint says.
      label_map: of one that is used as it came: (its class, by name or number; the data's class)
        each, see ``label_map``; () for the same names in any order.
      rates: learning rates of the fine-tuning, of which validation chooses one; none for that of
        ``training``.
      rates_within: steps of fine-tuning up to which one is chosen; beyond, it is that of
        ``training``. 0 for no bound.
      training_precision: in which it is fine-tuned.
      tokenizer: of a file's pupils: a checkpoint with the tokeniser of students, whose layers
        copied ones start from; "" for ``minilm-l6``.
      tail: what becomes of the probability that a row of a file leaves over.
      most_silent: share of the training examples that a file may say nothing of.
      assistants: students who learn one from another, the first from this teacher; the last one
        teaches (Mirzadeh et al. 2020, "Improved Knowledge Distillation via Teacher Assistant").
    """

    name: str = "minilm-l6"
    fine_tune: bool = True
    training: TrainingConfig = field(
        default_factory=lambda: TrainingConfig(
            epochs=3, evaluations=3, batch_size=32, optimizer=OptimizerConfig(learning_rate=1e-4)
        )
    )
    outputs: Literal["cache", "live"] = "cache"
    cache_dtype: Literal["bfloat16", "float16", "float32"] = "float16"
    precision: Literal["f32", "bf16"] = "f32"
    cache_top_k: int | None = None
    seed: int = 0
    pooling: Literal["auto", "pooler", "mean", "cls"] = field(default="auto", metadata=LATE)
    label_map: tuple[tuple[str, str], ...] = field(default=(), metadata=LATE)
    rates: tuple[float, ...] = field(default=(), metadata=LATE)
    rates_within: int = field(default=0, metadata=LATE)
    training_precision: Precision = field(default="f32", metadata=LATE)
    tokenizer: str = field(default="", metadata=LATE)
    tail: Literal["spread", "drop"] = field(default="spread", metadata=LATE)
    most_silent: float = field(default=0.5, metadata=LATE)
    assistants: tuple[AssistantConfig, ...] = field(default=(), metadata=LATE)

    def __post_init__(self) -> None:
        check_fields(self)
        _check_seed("teacher", self.seed)
        self._check_source()
        if len(set(self.rates)) < len(self.rates):
            shown = ", ".join(f"{rate:g}" for rate in self.rates)
            raise UserError(f"the teacher's learning rates repeat themselves: {shown}")
        for rate in self.rates:
            self.training.at_rate(rate)
        if self.rates_within < 0:
            raise UserError(f"rates_within must not be negative, not {self.rates_within}")
        if self.label_map and self.fine_tune:
            raise UserError(
                "--label-map is for a teacher that is used as it came (--no-fine-tune): a "
                "fine-tuned one gets a new head, in the data's order"
            )
        if self.cache_top_k is not None and self.cache_top_k < 1:
            raise UserError(f"cache_top_k must be at least 1, not {self.cache_top_k}")

    def _check_source(self) -> None:
        if self.fine_tune and not self.is_model:
            raise UserError(f"--teacher {self.name} is no model and cannot be fine-tuned")
        if self.tokenizer and self.is_model:
            raise UserError("--tokenizer is for teachers that are no model: file:PREDICTIONS, none")
        if not 0 <= self.most_silent < 1:
            raise UserError(f"--teacher-gaps must be in [0, 1), not {self.most_silent:g}")

    @property
    def source(self) -> str:
        """The name, with the seed in its place."""
        return self.name.replace(SEED, str(self.seed))

    @property
    def varies(self) -> bool:
        """Whether another seed is another teacher."""
        return self.fine_tune or bool(self.assistants) or SEED in self.name

    def after(self, first: TeacherConfig) -> TeacherConfig:
        """The same beside another: with its seed, where the name has it and none was given."""
        if SEED not in self.name or self.seed:
            return self
        return dataclasses.replace(self, seed=first.seed)

    @property
    def is_model(self) -> bool:
        """Whether there is a model to ask, not a file, nor nobody."""
        return not self.name.startswith(FILE) and self.name != NOBODY

    @property
    def checkpoint(self) -> str:
        """Whose tokeniser reads the texts, and whose layers copied students start from."""
        return self.source if self.is_model else self.tokenizer or PACKAGED_TOKENIZER

    @property
    def is_nobody(self) -> bool:
        """Whether there is nobody to listen to."""
        return self.name == NOBODY and not self.assistants

    @property
    def is_plain(self) -> bool:
        """Whether it is one checkpoint, and no more need be said of it in a table."""
        return self.is_model and not self.assistants

    @property
    def says_logits_alone(self) -> bool:
        """Whether pupils can compare nothing but classes."""
        return not self.is_model and not self.assistants

    @property
    def new_head(self) -> bool:
        """Whether that checkpoint gets a head of its own for the data's classes."""
        return self.fine_tune or not self.is_model


@dataclass(frozen=True)
class ClassifierSetup:
    """What a cell of classifiers is.

    Attributes:
      data: what is learnt from.
      teacher: who teaches.
      student: preset, ``LAYERSxWIDTHxHEADS``, ``cnn-4-8-16``, or ``teacher`` for the teacher's own
        fine-tuning.
      layers: which of the teacher's layers a copied student starts from.
      teacher_dtype: of the teacher's token-level outputs; live ones are float32.
      pooling: what a text student's head reads, see ``BertConfig``; ``teacher`` for the same as
        the teacher's.
      placebo: whether each example is taught what the teacher says of another one, drawn by the
        seed; for objectives that read logits.
      more_teachers: who teaches beside the first, number 1 and on in objectives. Copied students
        are made of the first.
      peers: students of this kind who are trained in one step, each against what the others say in
        the teacher's place; the first is kept (Zhang et al. 2018, "Deep Mutual Learning"). 0: none.
      weigh: of several teachers, ``validation``: weights at which their mean probabilities give
        the labels of validation the lowest loss, in all terms that do not say so themselves.
      assists: whether it is an assistant, see ``TeacherConfig``.
      start: where the student starts, see ``models.starts``; ``usual`` for what its name says.
      vocabulary: of the student, where it is not the teacher's: ``OCCURRING``, or how many tokens
        a tokeniser trained on the training texts has; "" for the teacher's. For objectives that
        compare no tokens.
    """

    Training: ClassVar[type] = TrainingConfig

    data: DataConfig = field(default_factory=DataConfig)
    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    student: str = "tiny"
    layers: str | Sequence[int] = "spread"
    teacher_dtype: str = "float32"
    pooling: Pooling = field(default="teacher", metadata=LATE)
    placebo: bool = field(default=False, metadata=LATE)
    more_teachers: tuple[TeacherConfig, ...] = field(default=(), metadata=LATE)
    peers: int = field(default=0, metadata=LATE)
    weigh: Literal["", "validation"] = field(default="", metadata=LATE)
    assists: bool = field(default=False, metadata=LATE)
    start: str = field(default=USUAL, metadata=LATE)
    vocabulary: str = field(default="", metadata=LATE)

    def __post_init__(self) -> None:
        check_fields(self)
        parse_start(self.start)
        for teacher in self.teachers:
            if teacher.fine_tune:
                self.kind.metric_of(teacher.training.select)
        if self.kind.head == "tokens" and any(each.cache_top_k for each in self.teachers):
            raise UserError(f"cache_top_k is for one answer a text, not for task {self.data.task}")
        if self.placebo and self.more_teachers:
            raise UserError("a placebo gives one teacher's words to other examples: name one")
        if self.peers and not 2 <= self.peers <= MOST_PEERS:
            raise UserError(f"students teach each other by 2 to {MOST_PEERS}, not {self.peers}")
        if self.peers and (self.placebo or self.more_teachers):
            raise UserError(
                "students who teach each other hear nobody else: one teacher, no placebo"
            )
        if self.weigh and not (self.more_teachers and self.kind.has_classes):
            raise UserError("weights by validation are for several teachers of classes")
        if self.peers > 2 and not self.kind.has_classes:
            raise UserError(
                f"more than two students teach each other classes, not {self.data.task}"
            )
        if self.kind.spoken is None:
            for teacher in self.teachers:
                if not teacher.is_model and teacher.name != NOBODY:
                    raise UserError(
                        f"a file of predictions is of one answer a text, not for task "
                        f"{self.data.task}"
                    )
        if self.data.client and not self.kind.has_classes:
            raise UserError(f"clients share out labels of classes, not of task {self.data.task}")
        _check_vocabulary(self.vocabulary)
        if self.vocabulary and self.data.augment:
            raise UserError("--augment copies a teacher's tokens; leave --student-vocab out")

    @property
    def teachers(self) -> tuple[TeacherConfig, ...]:
        """All of them."""
        return self.teacher, *self.more_teachers

    @property
    def kind(self) -> Kind:
        """Of what is predicted."""
        return self.data.kind

    def settled(self, cell: ClassifierCell) -> ClassifierCell:
        """Objectives in canonical form, those of several stages as many; students who listen to
        nobody have no peers; a teacher who is the same whatever the seed has none, and one named by
        it has that of the first."""
        for stage in cell.making:
            self.kind.metric_of(stage.training.select)
        making = [each for stage in cell.making for each in expanded(stage, self.kind.parse)]
        heard = any(listens(self.kind.parse(stage.objective)) for stage in making)
        first, *others = self.teachers
        teachers = [
            first if first.varies else dataclasses.replace(first, seed=0),
            *(each.after(first) for each in others),
        ]
        setup = dataclasses.replace(
            self,
            teacher=teachers[0],
            more_teachers=tuple(teachers[1:]),
            peers=self.peers if heard else 0,
        )
        return dataclasses.replace(cell, setup=setup, stages=(*making, *cell.steps))

    def identity(self, cell: ClassifierCell) -> dict[str, Any]:
        """What data and teacher are called does not count, their content does.

        Raises:
          ValueError: before the teacher's content is known.
        """
        if not cell.teacher_digest:
            raise ValueError("a cell has a hash when its teacher is known")
        revised = EXPERTS_REVISED if any(map(has_experts, cell.objectives)) else {}
        always = {"intermediate": None, "plugin": None}  # they were there from the beginning
        return {
            "recipe": RECIPE,
            **revised,
            **always,
            **cell.counted("data", "teacher", "more_teachers"),
        }


ClassifierCell = Cell[ClassifierSetup]


def with_each_teacher(cell: ClassifierCell) -> list[ClassifierCell]:
    """The cell with each of its teachers alone."""
    alone = cell.but(weigh="", more_teachers=())
    return [alone.but(teacher=teacher) for teacher in cell.setup.teachers]


def parse_client(text: str) -> tuple[int, int] | None:
    """``2/3`` as (2, 3), the second of three clients; None for "".

    Raises:
      UserError: for anything else.
    """
    if not text:
        return None
    number, _, count = text.partition("/")
    if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count) <= 1000):
        raise UserError(f"client {text!r}: expected K/N, 2/3 say, for the second of three")
    return int(number), int(count)


def used_as_it_is(name: str) -> bool:
    """Whether a teacher of this name is never fine-tuned: a file, a finished run, nobody."""
    return name.startswith((FILE, RUN)) or name == NOBODY


def _check_vocabulary(vocabulary: str) -> None:
    if vocabulary in ("", OCCURRING):
        return
    least, most = wordpiece.LEAST, wordpiece.MOST
    if not (vocabulary.isdecimal() and least <= int(vocabulary) <= most):
        raise UserError(
            f"a student's vocabulary is {OCCURRING} or from {least} to {most} tokens, not "
            f"{vocabulary!r}"
        )


def _check_seed(whose: str, seed: int) -> None:
    if not 0 <= seed < 2**32:
        raise UserError(f"{whose} seeds are from 0 to 4294967295, not {seed}")


def config_of(cell: ClassifierCell, model: Any) -> dict[str, Any]:
    """The configuration of a run as the ledger and its checkpoints keep it.

    Args:
      model: the configuration of its student, a dataclass; None where there is no model.
    """
    if model is None:
        return {**cell.config, "model": None}
    counting = fields_that_count(model)
    whole = dataclasses.asdict(model)
    return {**cell.config, "model": {k: v for k, v in whole.items() if k in counting}}
