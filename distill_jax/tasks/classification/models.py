"""The models of a table by their names: BERT checkpoints and their students, CNNs for images."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from distill_jax.core.errors import UserError
from distill_jax.core.files import user_path
from distill_jax.data.assets import fetch
from distill_jax.data.tokenise import TokenTable
from distill_jax.models.bert import BertConfig
from distill_jax.models.build import ModelConfig, init_model
from distill_jax.models.cnn import CnnConfig, cnn_digest, load_cnn, parse_cnn, save_cnn
from distill_jax.models.hf_reference import reference_logits
from distill_jax.models.huggingface import (
    UNSAID,
    TextInputs,
    load_pretrained,
    params_digest,
    save_pretrained,
)
from distill_jax.models.students import (
    choose_layers,
    init_student,
    parse_preset,
    student_config,
)
from distill_jax.tasks.classification.cells import ClassifierCell, DataConfig
from distill_jax.tasks.classification.label_map import Order
from distill_jax.tasks.classification.task import Examples
from distill_jax.training.state import Params

SAVED_EXAMPLES = 4
PACKAGED = ("minilm-l6",)
"""Teachers that travel as packages; every other name is a folder, a hub id or a CNN."""
POOLING = {"minilm-l6": "mean"}
"""all-MiniLM was trained with mean pooling; its pooler was never used."""


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A model of either kind, as loaded.

    Attributes:
      tokenizer_file: None for models of images.
      digest: of the config and of every parameter's content.
      label_names: the classes the head was trained for; None where it does not say.
      fresh: parts that were drawn by chance.
      notes: what was left out, a line each.
      inputs: what texts it was trained on.
      order: how its classes were put in the data's order; None for a head that is trained here.
    """

    config: ModelConfig
    params: Params
    tokenizer_file: Path | None
    digest: str
    label_names: tuple[str, ...] | None
    fresh: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    inputs: TextInputs = UNSAID
    order: Order | None = None


def is_cnn(name: str) -> bool:
    """Whether a model's name is that of a CNN, ``cnn-16-32-64``."""
    return name.startswith("cnn-")


def load_checkpoint(
    name: str, *, num_labels: int | None, fresh: bool, seed: int = 0, pooling: str = "auto"
) -> Checkpoint:
    """What a teacher starts from: a checkpoint (packaged, a folder, the hub), or chance for a CNN.

    Args:
      num_labels: classes of the data; None for those of a text checkpoint's own head.
      fresh: whether it gets a new head, to be fine-tuned, or keeps the one it has.
      seed: of what is drawn by chance.
      pooling: see ``TeacherConfig``.

    Raises:
      UserError: when it cannot be had or is not a BERT checkpoint.
    """
    if is_cnn(name):
        assert num_labels is not None
        config = _cnn(name, num_labels)
        params = init_model(config, jax.random.key(seed))
        return Checkpoint(config, params, None, cnn_digest(config, params), None, ("all of it",))
    if name in PACKAGED:
        location: Path | str = fetch(name)
    else:
        path = user_path(name)
        location = path if path.is_dir() else name
    loaded = load_pretrained(
        location,
        pooling=POOLING.get(name) if pooling == "auto" else pooling,
        num_labels=num_labels,
        fresh_classifier=fresh,
        seed=seed,
    )
    return Checkpoint(**vars(loaded))


def with_classes(
    checkpoint: Checkpoint, columns: tuple[int, ...], label_names: tuple[str, ...] | None
) -> Checkpoint:
    """A text classifier with the outputs of these columns of its head, and no others.

    What is left is the softmax over the classes that are taken. Its digest is that of what is left.
    """
    assert isinstance(checkpoint.config, BertConfig)
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
        digest=params_digest(config, params),
        label_names=label_names,
    )


def config_of_student(cell: ClassifierCell, teacher: ModelConfig) -> ModelConfig:
    """The shape of a cell's student.

    Raises:
      UserError: for an unknown student, or a text student of an image teacher.
    """
    name = cell.setup.student
    if is_cnn(name) != isinstance(teacher, CnnConfig):
        raise UserError(
            f"student {name!r} does not fit teacher {cell.setup.teacher.name!r}: "
            "images want two CNNs (cnn-4-8-16), texts two BERTs (tiny, l2, 3x256x4)"
        )
    if isinstance(teacher, CnnConfig):
        if cell.setup.pooling != "teacher":
            raise UserError(f"student {name!r} of images has no pooling {cell.setup.pooling!r}")
        return _cnn(name, teacher.num_labels)
    return student_config(name, teacher, pooling=cell.setup.pooling)


def params_of_student(cell: ClassifierCell, pretrained: Checkpoint) -> Params:
    """Where a cell's student starts: chance, or layers of the checkpoint before fine-tuning."""
    rng = jax.random.key(cell.seed)
    config = config_of_student(cell, pretrained.config)
    if isinstance(config, CnnConfig):
        return init_model(config, rng)
    assert isinstance(pretrained.config, BertConfig)
    return init_student(
        cell.setup.student,
        pretrained.config,
        pretrained.params,
        rng,
        layers=cell.setup.layers,
        pooling=cell.setup.pooling,
    )


def check_student(cell: ClassifierCell, teacher: ModelConfig) -> ModelConfig:
    """The student's shape, with everything about its start that can be wrong found now."""
    config, setup = config_of_student(cell, teacher), cell.setup
    if isinstance(teacher, BertConfig) and isinstance(config, BertConfig):
        if parse_preset(setup.student).copies_teacher:
            choose_layers(
                setup.layers, student_layers=config.num_layers, teacher_layers=teacher.num_layers
            )
        elif setup.layers != "spread":
            raise UserError(f"student {setup.student!r} is drawn at random: it copies no layers")
    return config


def save_model(
    folder: Path,
    config: ModelConfig,
    params: Params,
    tokenizer_file: Path | None,
    label_names: tuple[str, ...],
    inputs: TextInputs = UNSAID,
) -> None:
    """A folder that can be loaded again: Hugging Face's layout for BERTs."""
    if isinstance(config, CnnConfig):
        save_cnn(folder, config, params, label_names)
        return
    assert tokenizer_file is not None
    save_pretrained(folder, config, params, tokenizer_file, label_names, inputs)


def inputs_of(data: DataConfig) -> TextInputs:
    """What texts a model reads that is trained on such data."""
    return TextInputs(data.max_length, data.text_b is not None)


def check_saved(folder: Path, table: Examples, logits_NC: np.ndarray) -> None:
    """What was written answers as the model did: by transformers' computation, from the files.

    Asked are a few of the shorter examples; models of images have no such files.

    Args:
      folder: a saved model's.
      logits_NC: what the model said of the table before it was saved.

    Raises:
      UserError: when it does not.
    """
    if not isinstance(table, TokenTable):
        return
    shorter = np.argsort(table.lengths_N, kind="stable")[: max(1, len(table) // 2)]
    rows = np.unique(shorter[np.linspace(0, len(shorter) - 1, SAVED_EXAMPLES).astype(int)])
    batch = table.batch(rows, int(table.lengths_N[rows].max()), len(rows))
    tokens = np.asarray(batch.input_ids_BT), np.asarray(batch.token_type_ids_BT)
    said_NC = reference_logits(folder, *tokens, np.asarray(batch.where_BT))
    expected_NC = logits_NC[rows]
    gap, scale = np.abs(said_NC - expected_NC).max(), np.abs(expected_NC).max()
    # Where matrices are multiplied in half the digits, the model is the one that rounds.
    tolerance = 1e-3 if jax.default_backend() == "cpu" else 5e-2
    if np.isfinite(expected_NC).all() and not gap <= tolerance * max(1.0, scale):
        raise UserError(
            f"the model written to {folder} answers otherwise than the trained one: logits differ "
            f"by {gap:.3g}, of {scale:.3g}. Delete the folder and run again"
        )


def load_model(folder: Path) -> Checkpoint:
    """What ``save_model`` wrote."""
    if (folder / "tokenizer.json").is_file():
        return Checkpoint(**vars(load_pretrained(folder)))
    saved = load_cnn(folder)
    return Checkpoint(saved.config, saved.params, None, saved.digest, saved.label_names)


def _cnn(name: str, num_labels: int) -> CnnConfig:
    config = parse_cnn(name, num_labels=num_labels)
    assert config is not None, "is_cnn decides"
    return config
