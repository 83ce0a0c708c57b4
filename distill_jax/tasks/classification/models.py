"""The models of a table by their names: teachers' checkpoints, and students of any family."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from distill_jax.core.errors import UserError
from distill_jax.data.assets import fetch
from distill_jax.data.split_files import listed
from distill_jax.evaluation.task_file import TaskFile, read_task
from distill_jax.models.build import (
    families,
    family_in,
    family_of,
    load_model,
    student_family,
    teacher_family,
)
from distill_jax.models.family import ImageShape, ModelConfig
from distill_jax.models.huggingface import Pretrained, load_pretrained
from distill_jax.models.loaded import Loaded, TextInputs, model_digest
from distill_jax.models.starts import check_start, started
from distill_jax.tasks.classification.cells import ClassifierCell, DataConfig, TrainingConfig
from distill_jax.tasks.classification.finished_models import located
from distill_jax.tasks.classification.label_map import Order
from distill_jax.tasks.classification.splits import Examples
from distill_jax.tasks.kinds.kind import Kind
from distill_jax.tasks.kinds.kinds import form_of, kind_named
from distill_jax.training.rates import check_matches
from distill_jax.training.recipe import parse_recipe
from distill_jax.training.state import Params

SAVED_EXAMPLES = 4
PACKAGED = ("minilm-l6",)
"""Teachers that travel as packages; every other name is a folder, a hub id or a model of images."""
POOLING = {"minilm-l6": "mean"}
"""all-MiniLM was trained with mean pooling; its pooler was never used."""


@dataclass(frozen=True, eq=False)
class Checkpoint(Loaded):
    """A model of any family, as loaded.

    Attributes:
      order: how its classes were put in the data's order; None for a head that is trained here, and
        for outputs without names.
      saved: what its folder keeps for answers, see ``Kind.saved``; None where it is no student of
        another task than classes.
    """

    order: Order | None = None
    saved: Mapping[str, Any] | None = None


def load_checkpoint(
    name: str,
    *,
    num_labels: int | None,
    fresh: bool,
    seed: int = 0,
    pooling: str = "auto",
    image: ImageShape | None = None,
    task: str = DataConfig.task,
) -> Checkpoint:
    """What a teacher starts from: a checkpoint (packaged, a folder, the hub), or chance for a model
    of images.

    Args:
      num_labels: classes of the data; None for those of a text checkpoint's own head.
      fresh: whether it gets a new head, to be fine-tuned, or keeps the one it has.
      seed: of what is drawn by chance.
      pooling: see ``TeacherConfig``.
      image: height, width and channels of the images that it is to read.
      task: what a head that it keeps must be for.

    Raises:
      UserError: when it cannot be had or is of a kind that is not supported.
    """
    family = teacher_family(name)
    if num_labels is not None and (config := family.alone(name, num_labels, image)):
        params = family.init(config, jax.random.key(seed))
        return Checkpoint(
            config, params, None, model_digest(config, params), None, fresh=("all of it",)
        )
    folder, kind = _folder(name), kind_named(task)
    told = _told_for(kind, folder) if folder is not None and not fresh else None
    if folder is not None and (own := family_in(folder)).keeps_its_own(folder):
        if fresh:
            raise UserError(
                f"teacher {name!r} is a {own.name}, which is not fine-tuned again: use it "
                "as it is, with --no-fine-tune"
            )
        if told is None and not kind.has_classes:
            raise UserError(f"teacher {name!r} is a classifier, which does not fit task {task}")
        loaded = load_model(folder)
    else:
        heads = None if fresh or kind.has_classes else kind.heads
        loaded = load_encoder(name, num_labels, fresh, seed, pooling, None, heads)
    if told is None:
        return Checkpoint(**vars(loaded))
    assert loaded.tokenizer_file is not None, "models of images have classes"
    form_of(told, loaded.label_names or (), loaded.tokenizer_file)  # raises for damaged ones
    return Checkpoint(**vars(loaded), saved=told.saved)


def _told_for(kind: Kind, folder: Path) -> TaskFile | None:
    """What a model's folder says of its task, a kind's; None for a classifier's.

    Raises:
      UserError: it is a student of another task.
    """
    found = read_task(folder)
    if found is None:
        return None
    if found.task != kind.name:
        raise UserError(
            f"{folder} holds a model of task {found.task}; teaching {kind.what} as it came is for "
            f"task {kind.name}; or leave out --no-fine-tune, and it gets a new head"
        )
    return found


def location_of(name: str) -> Path | str:
    """Where a text teacher's checkpoint is: a folder, or a hub id."""
    return fetch(name) if name in PACKAGED else located(name) or name


def reads_of(name: str) -> str:
    """What a teacher reads: ``texts`` or ``images``."""
    folder = _folder(name)
    return (family_in(folder) if folder is not None else teacher_family(name)).reads


def _folder(name: str) -> Path | None:
    """Where a teacher lies, if it is a folder."""
    return None if name in PACKAGED else located(name)


def load_encoder(
    name: str,
    num_labels: int | None,
    fresh: bool,
    seed: int = 0,
    pooling: str = "auto",
    model_types: Collection[str] | None = ("bert",),
    heads: Collection[str] | None = None,
) -> Pretrained:
    """``load_checkpoint`` of a checkpoint of text.

    Args:
      model_types, heads: see ``load_pretrained``.

    Raises:
      UserError: when it cannot be had or is of no such kind.
    """
    loaded = load_pretrained(
        location_of(name),
        pooling=POOLING.get(name) if pooling == "auto" else pooling,
        num_labels=num_labels,
        fresh_classifier=fresh,
        seed=seed,
        model_types=model_types,
        heads=heads,
    )
    if loaded.config.pooling == "tokens" != pooling:
        raise UserError(
            f"teacher {name!r} has a head that reads every token; for one answer a text choose "
            "what it reads: --teacher-pooling mean or cls"
        )
    return loaded


def with_classes(
    checkpoint: Checkpoint, columns: tuple[int, ...], label_names: tuple[str, ...] | None
) -> Checkpoint:
    """A classifier with the outputs of these columns of its head, and no others.

    What is left is the softmax over the classes that are taken. Its digest is that of what is left.
    """
    if columns == tuple(range(checkpoint.config.num_labels)):
        return dataclasses.replace(checkpoint, label_names=label_names)
    config = dataclasses.replace(checkpoint.config, num_labels=len(columns))
    head = checkpoint.params["classifier"]
    taken = {name: jnp.asarray(np.asarray(leaf)[..., columns]) for name, leaf in head.items()}
    params = {**checkpoint.params, "classifier": taken}
    return dataclasses.replace(
        checkpoint,
        config=config,
        params=params,
        digest=model_digest(config, params),
        label_names=label_names,
    )


def in_units(checkpoint: Checkpoint, units: tuple[float, float] | None) -> Checkpoint:
    """A checkpoint whose outputs are multiplied by the first number, and moved by the second."""
    if units is None:
        return checkpoint
    scale, shift = map(np.float32, units)
    head = checkpoint.params["classifier"]
    moved = {"kernel": head["kernel"] * scale, "bias": head["bias"] * scale + shift}
    params = {**checkpoint.params, "classifier": moved}
    digest = model_digest(checkpoint.config, params)
    return dataclasses.replace(checkpoint, params=params, digest=digest)


def check_student(cell: ClassifierCell, teacher: ModelConfig) -> ModelConfig:
    """The shape of a cell's student, with everything about its start that can be wrong found now.

    Raises:
      UserError: for an unknown student, or one that cannot have this teacher or such a start.
    """
    setup = cell.setup
    name, family = setup.student, student_family(setup.student)
    reads = family_of(teacher).reads
    if family.reads != reads:
        raise UserError(
            f"student {name!r} reads {family.reads}, which does not fit teacher "
            f"{setup.teacher.name!r}: that reads {reads}"
        )
    if setup.kind.head == "tokens" and not family.tokens:
        able = [name for each in families() if each.tokens for name in each.names]
        raise UserError(
            f"student {name!r} says one thing of a text, and task {setup.data.task} asks about "
            f"every token: take {listed(able)}"
        )
    if setup.kind.head == "tokens" and setup.pooling != "teacher":
        raise UserError(f"task {setup.data.task} reads every token: --student-pooling does nothing")
    if setup.pooling != "teacher" and not family.pools:
        raise UserError(f"student {name!r} of {reads} has no pooling {setup.pooling!r}")
    if setup.layers != "spread" and not (family.copies(name) or setup.start == "truncated"):
        raise UserError(f"student {name!r} is drawn at random: it copies no layers")
    options = {"pooling": setup.pooling, "layers": setup.layers}
    check_start(family, name, setup.start, teacher, **options)
    return family.student(name, teacher, **options)


def check_training(training: TrainingConfig, config: ModelConfig, kind: Kind) -> None:
    """Raises ``UserError`` for a recipe or for learning-rate factors that a model cannot have."""
    recipe, optimizer, family = parse_recipe(training.recipe), training.moved, family_of(config)
    recipe.check(config.num_labels if kind.has_classes else 0, family.embeddings)
    if not optimizer.has_factors:
        return
    shapes = jax.eval_shape(partial(family.init, config), jax.random.key(0))
    if recipe.adapter is not None:
        shapes = jax.eval_shape(partial(recipe.adapter.start, seed=0), shapes)
    check_matches(optimizer.rates, optimizer.layer_decay, shapes)


def params_of_student(cell: ClassifierCell, pretrained: Checkpoint, trained: Any = None) -> Params:
    """Where a cell's student starts, see ``models.starts``: by default chance, or layers of the
    checkpoint before fine-tuning.

    Args:
      trained: the fine-tuned teacher, with ``config`` and ``params``; None for the checkpoint.
    """
    setup = cell.setup
    return started(
        student_family(setup.student),
        setup.student,
        setup.start,
        pretrained,
        pretrained if trained is None else trained,
        jax.random.key(cell.seed),
        pooling=setup.pooling,
        layers=setup.layers,
    )


def inputs_of(data: DataConfig) -> TextInputs:
    """What texts a model reads that is trained on such data."""
    return TextInputs(data.max_length, data.kind.pairs or data.text_b is not None)


def check_saved(folder: Path, table: Examples, logits_NC: np.ndarray) -> None:
    """What was written answers as the model did: by transformers' computation, from the files.

    Asked are a few of the shorter examples, where other software reads models of the family.

    Args:
      folder: a saved model's.
      logits_NC: what the model said of the table before it was saved.

    Raises:
      UserError: when it does not.
    """
    reference = family_in(folder).reference
    if reference is None:
        return
    shorter = np.argsort(table.lengths_N, kind="stable")[: max(1, len(table) // 2)]
    rows = np.unique(shorter[np.linspace(0, len(shorter) - 1, SAVED_EXAMPLES).astype(int)])
    batch = table.batch(rows, int(table.lengths_N[rows].max()), len(rows))
    tokens = np.asarray(batch.input_ids_BT), np.asarray(batch.token_type_ids_BT)
    where_BT = np.asarray(batch.where_BT)
    said_NC, expected_NC = reference(folder, *tokens, where_BT), logits_NC[rows]
    if said_NC.ndim == 3:  # an answer a token; behind the last one of an example anything
        expected_NC = expected_NC[:, : where_BT.shape[1]][where_BT]
        said_NC = said_NC[where_BT]
    gap, scale = np.abs(said_NC - expected_NC).max(), np.abs(expected_NC).max()
    # Where matrices are multiplied in half the digits, the model is the one that rounds.
    tolerance = 1e-3 if jax.default_backend() == "cpu" else 5e-2
    if np.isfinite(expected_NC).all() and not gap <= tolerance * max(1.0, scale):
        raise UserError(
            f"the model written to {folder} answers otherwise than the trained one: logits differ "
            f"by {gap:.3g}, of {scale:.3g}. Delete the folder and run again"
        )
