"""Where the teacher and the data of a teacher cache come from, so that it can be checked."""

import dataclasses
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from distill_jax.core.errors import UserError
from distill_jax.core.files import home
from distill_jax.data.augment.base import Tools
from distill_jax.data.load_images import is_images, load_images
from distill_jax.models.build import build_model, load_model
from distill_jax.models.family import ImageShape
from distill_jax.models.loaded import Loaded
from distill_jax.tasks.classification.augment_tools import tools_for
from distill_jax.tasks.classification.cells import DataConfig
from distill_jax.tasks.classification.label_map import Order
from distill_jax.tasks.classification.models import (
    Checkpoint,
    in_units,
    load_checkpoint,
    with_classes,
)
from distill_jax.tasks.classification.splits import (
    Examples,
    Splits,
    load_texts,
    prepare_images,
    prepare_texts,
)
from distill_jax.teachers.cache import Provenance
from distill_jax.teachers.live import LiveTeacher


def origin_of(
    name: str,
    folder: Path | None,
    splits: Splits,
    pooling: str = "auto",
    order: Order | None = None,
) -> dict[str, Any]:
    """What a cache's manifest says of its origin.

    Args:
      name: of the teacher's checkpoint.
      folder: of the fine-tuned teacher, None for one that is used as it came.
      splits: whose training examples the teacher was asked about.
      pooling: of the teacher, see ``TeacherConfig``.
      order: of its classes, where it is used as it came.
    """
    return {
        "teacher": name,
        "fine_tuned": folder.name if folder else None,
        "classes": len(splits.label_names),
        "data": dataclasses.asdict(splits.config),
        "pooling": pooling,
        "columns": list(order.columns) if order and not order.as_it_is else None,
    }


def load_origin(
    origin: Mapping[str, Any], provenance: Provenance, ids: Collection[str] | None = None
) -> tuple[LiveTeacher, Examples]:
    """The teacher of a cache and the examples it was asked about, found again.

    Args:
      ids: of these examples; all of the data by default.

    Raises:
      UserError: when they cannot be found, or are not what they were.
    """
    try:
        named = dict(origin["data"])
        lists = {"more_texts": named["more_texts"], "left_out": named.get("left_out", ())}
        data = DataConfig(**{**named, **{key: tuple(value) for key, value in lists.items()}})
        name, classes = str(origin["teacher"]), int(origin["classes"])
        fine_tuned, pooling = origin["fine_tuned"], str(origin.get("pooling", "auto"))
        moved = origin.get("columns")
        columns = None if moved is None else tuple(int(column) for column in moved)
    except (LookupError, TypeError, ValueError) as error:
        raise UserError(f"the cache does not say where teacher and data are ({error!r})") from error
    image = load_images(data.name).splits["train"].image if is_images(data.name) else None
    teacher = _teacher(name, fine_tuned, classes, pooling, columns, image, data.task)
    splits = _splits(data, teacher, name, pooling)
    if fine_tuned is None:
        teacher = in_units(teacher, splits.kind.units(teacher.saved, splits.fitted))
    if teacher.digest != provenance.teacher:
        raise UserError(f"the teacher {name} has changed since the cache was made")
    table = splits.everything
    if ids is not None:
        asked = set(ids)
        table = table.take(np.flatnonzero([example in asked for example in table.ids]))
    if table.without_labels(np.arange(len(table))).digest != provenance.data:
        raise UserError(f"the data {data.name} have changed since the cache was made")
    dtype = jnp.bfloat16 if provenance.precision == "bf16" else jnp.float32
    model = build_model(teacher.config, dtype=dtype)
    return LiveTeacher(model, teacher.params, provenance.capture), table


def _teacher(
    name: str,
    fine_tuned: str | None,
    classes: int,
    pooling: str,
    columns: tuple[int, ...] | None,
    image: ImageShape | None,
    task: str,
) -> Checkpoint:
    how: dict[str, Any] = {"fresh": False, "pooling": pooling, "task": task}
    if fine_tuned is None and columns is None:
        return load_checkpoint(name, num_labels=classes, image=image, **how)
    if fine_tuned is None:
        assert columns is not None
        own = load_checkpoint(name, num_labels=None, **how)
        if not all(0 <= column < own.config.num_labels for column in columns):
            raise UserError(f"the teacher {name} has changed since the cache was made")
        return with_classes(own, columns, None)
    folder = home() / "teachers" / fine_tuned
    if not re.fullmatch(r"[0-9a-f]+", fine_tuned) or not folder.is_dir():
        raise UserError(f"the fine-tuned teacher is not at {folder}")
    return Checkpoint(**vars(load_model(folder)))


def _splits(data: DataConfig, teacher: Loaded, name: str, pooling: str) -> Splits:
    if is_images(data.name):
        return prepare_images(data)
    if teacher.tokenizer_file is None:
        raise UserError("the teacher has no tokeniser")
    tools = Tools(name)
    if data.augment:  # which uses the checkpoint before it was fine-tuned
        classes = teacher.config.num_labels
        tools = tools_for(
            data, name, load_checkpoint(name, num_labels=classes, fresh=True, pooling=pooling)
        )
    return prepare_texts(data, load_texts(data), teacher.tokenizer_file, tools)
