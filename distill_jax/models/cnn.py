"""A small convolutional network for small images, fast to train many at once.

Blocks of 3 x 3 convolution (same padding), ReLU and 2 x 2 max pooling, then one hidden dense
layer and the classifier, after LeNet-5 (LeCun et al. 1998, "Gradient-based learning applied to
document recognition").

Shape suffixes: B batch, H height, W width, C channels, T = H * W positions, D channels.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jax import Array

from distill_jax.core.digests import digest, digest_arrays
from distill_jax.core.errors import UserError
from distill_jax.core.fields import check_fields
from distill_jax.core.files import atomic_folder, save_tensors
from distill_jax.core.types import Batch, ModelOutput, ModelShape
from distill_jax.models.bert import Params
from distill_jax.models.dropout import Dropout
from distill_jax.models.hf_config import read_json
from distill_jax.models.hf_weights import WEIGHTS, read_tensors

MAX_SIZE = 2**20
"""Of a layer or an image: a damaged or hostile config is refused before it is worked on."""
CONFIG = "config.json"
_MODEL_TYPE = "distill_jax_cnn"


@dataclasses.dataclass(frozen=True)
class CnnConfig:
    """What a CNN classifier is, apart from its weights.

    Attributes:
      channels: output channels of each convolution; each is followed by 2 x 2 pooling.
      dense: units of the hidden dense layer.
      num_labels: classes.
      image: height, width and channels of an image.
      dropout: rate before the classifier.
    """

    channels: tuple[int, ...]
    dense: int
    num_labels: int
    image: tuple[int, int, int] = (8, 8, 1)
    dropout: float = 0.0

    def __post_init__(self) -> None:
        check_fields(self)
        sizes = (*self.channels, self.dense, self.num_labels, *self.image)
        if not all(1 <= size <= MAX_SIZE for size in sizes) or not self.channels:
            raise UserError(
                f"CNN config: every size must be a whole number from 1 to {MAX_SIZE}, got {self}."
            )
        if any(side % 2 ** len(self.channels) for side in self.image[:2]):
            raise UserError(
                f"CNN config: {len(self.channels)} convolutions halve an image of "
                f"{self.image[0]} x {self.image[1]} pixels more often than it can be halved."
            )
        if not 0 <= self.dropout < 1:
            raise UserError(f"CNN config: dropout must be in [0, 1), got {self.dropout}.")

    @property
    def shape(self) -> ModelShape:
        """What objectives have to know of this model: the width is the last block's."""
        return ModelShape(
            num_layers=len(self.channels),
            hidden_size=self.channels[-1],
            num_heads=1,
            num_labels=self.num_labels,
        )


class Cnn(nn.Module):
    """A convolutional classifier; reads the pixels of a batch, nothing else.

    Attributes:
      config: sizes.
    """

    config: CnnConfig

    @nn.compact
    def __call__(self, batch: Batch, *, train: bool = False) -> ModelOutput:
        """Logits, and as hidden states the positions of each block as if they were tokens.

        Hidden state 0 are the pixels, [B, H * W, C]; number n the output of block n after its
        pooling, [B, H * W / 4^n, channels[n - 1]]. ``batch.where_BT`` knows one token an image
        and is no mask for them.

        Args:
          batch: with ``pixels_BHWC``.
          train: dropout on; needs the rng stream ``"dropout"`` if the rate is not 0.

        Raises:
          UserError: the batch has no images, or images of another size.
        """
        config = self.config
        if batch.pixels_BHWC is None:
            raise UserError("a CNN reads images, and this batch is text.")
        if batch.pixels_BHWC.shape[1:] != config.image:
            raise UserError(
                f"the batch has images of {list(batch.pixels_BHWC.shape[1:])}, the CNN reads "
                f"{list(config.image)} (height, width, channels)."
            )
        blocks_BHWC = jnp.asarray(batch.pixels_BHWC)
        output = ModelOutput(hidden_states={0: _positions(blocks_BHWC)})
        for number, width in enumerate(config.channels, start=1):
            patches = patches_3x3(blocks_BHWC)
            blocks_BHWC = nn.relu(_dense(width, f"conv_{number}")(patches))
            blocks_BHWC = max_pool_2x2(blocks_BHWC)
            output.hidden_states[number] = _positions(blocks_BHWC)
        flat_BF = blocks_BHWC.reshape(len(blocks_BHWC), -1)
        hidden_BF = nn.relu(_dense(config.dense, "dense")(flat_BF))
        hidden_BF = Dropout(config.dropout)(hidden_BF, train=train)
        logits_BC = nn.Dense(config.num_labels, name="classifier")(hidden_BF)
        return output.replace(logits_BC=logits_BC)  # type: ignore[attr-defined]


def patches_3x3(x_BHWC: Array) -> Array:
    """The 3 x 3 neighbourhood of every position, zeros beyond the edge: [B, H, W, 9 C].

    Channels run fastest, so a dense layer on this is the convolution with its kernel reshaped to
    [3, 3, C, out]. It is written so because ``vmap`` over kernels turns a convolution into a
    grouped one, which is slow on CPUs, and a dense layer into a batched matrix product.
    """
    height, width = x_BHWC.shape[1:3]
    padded = jnp.pad(x_BHWC, ((0, 0), (1, 1), (1, 1), (0, 0)))
    shifted = [padded[:, i : i + height, j : j + width] for i in range(3) for j in range(3)]
    return jnp.concatenate(shifted, axis=-1)


def max_pool_2x2(x_BHWC: Array) -> Array:
    """The largest of every 2 x 2 positions: [B, H / 2, W / 2, C]."""
    B, H, W, C = x_BHWC.shape
    return x_BHWC.reshape(B, H // 2, 2, W // 2, 2, C).max(axis=(2, 4))


@partial(jax.jit, static_argnums=0)
def init_cnn(config: CnnConfig, rng: Array) -> Params:
    """Fresh float32 parameters of ``Cnn(config)``: He et al. 2015 before ReLU, zero biases.

    Args:
      config: hashable, so one compilation serves every seed.
      rng: a jax random key; ``vmap`` over keys gives a population.
    """
    tokens_BT, row_B = jnp.zeros((1, 1), jnp.int32), jnp.zeros((1,), jnp.int32)
    batch = Batch(
        example_ids_B=row_B,
        input_ids_BT=tokens_BT,
        token_type_ids_BT=tokens_BT,
        where_BT=jnp.ones((1, 1), bool),
        labels_B=row_B,
        label_where_B=jnp.zeros((1,), bool),
        pixels_BHWC=jnp.zeros((1, *config.image), jnp.float32),
    )
    return Cnn(config).init(rng, batch)["params"]


_PRESET = re.compile(r"cnn((?:-[1-9]\d*){2,})")
_EXAMPLES = "cnn-16-32-64 (convolutions of 16 and 32 channels, dense layer of 64), cnn-4-16"


def parse_cnn(
    text: str, *, num_labels: int = 10, image: tuple[int, int, int] = (8, 8, 1)
) -> CnnConfig | None:
    """The config of ``cnn-WIDTH-...-DENSE``: convolutions, and last the dense layer.

    Args:
      text: e.g. ``cnn-16-32-64``.
      num_labels: classes of the task.
      image: height, width and channels of its images.

    Returns:
      None for a text that does not begin with ``cnn``: another kind of model.

    Raises:
      UserError: it begins with ``cnn`` and goes wrong, or the image cannot be halved so often.
    """
    if not text.startswith("cnn"):
        return None
    match = _PRESET.fullmatch(text)
    if not match:
        raise UserError(
            f"model {text!r}: after cnn come the widths of the convolutions, at least one, and "
            f"of the dense layer, all above 0. Examples: {_EXAMPLES}."
        )
    *channels, dense = (int(width) for width in match[1].split("-")[1:])
    try:
        return CnnConfig(tuple(channels), dense, num_labels, image)
    except UserError as error:
        raise UserError(f"model {text!r}: {error}") from None


def cnn_digest(config: CnnConfig, params: Params) -> str:
    """Content digest of a model: its config, and every parameter's name, shape and bytes."""
    return digest({"config": config, "params": digest_arrays(_flat(params))})


@dataclasses.dataclass(frozen=True)
class SavedCnn:
    """A CNN as loaded.

    Attributes:
      config: sizes.
      params: float32, for ``Cnn(config).apply({"params": params}, ...)``.
      label_names: the classes, in order.
      digest: of the config and of every parameter's content.
    """

    config: CnnConfig
    params: Params
    label_names: tuple[str, ...]
    digest: str


def save_cnn(folder: Path, config: CnnConfig, params: Params, label_names: Sequence[str]) -> None:
    """Write a folder that ``load_cnn`` opens, whole or not at all.

    Raises:
      UserError: the folder exists and is not empty, or the label names do not fit the head.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} exists and is not empty; choose another folder.")
    if len(set(label_names)) != config.num_labels:
        raise UserError(
            f"{len(set(label_names))} different label names for a head of {config.num_labels}."
        )
    raw = {
        "model_type": _MODEL_TYPE,
        **dataclasses.asdict(config),
        "label_names": list(label_names),
        "digest": cnn_digest(config, params),
    }
    with atomic_folder(folder) as scratch:
        text = json.dumps(raw, indent=2, ensure_ascii=False)
        (scratch / CONFIG).write_text(text + "\n", encoding="utf-8")
        save_tensors(scratch / WEIGHTS, _flat(params))


def load_cnn(folder: Path) -> SavedCnn:
    """Read what ``save_cnn`` wrote, and verify it against the digest written with it.

    Raises:
      UserError: a file is missing, damaged, changed, or not of a CNN.
    """
    where = folder / CONFIG
    raw = read_json(where)
    if raw.pop("model_type", None) != _MODEL_TYPE:
        raise UserError(f"{where} is not of a CNN saved by distill_jax.")
    try:
        names, expected = tuple(map(str, raw.pop("label_names"))), raw.pop("digest")
        raw |= {name: tuple(raw[name]) for name in ("channels", "image")}
        config = CnnConfig(**raw)
    except (KeyError, TypeError, UserError) as error:
        raise UserError(f"{where} is damaged: {error}") from error
    if len(names) != config.num_labels:
        raise UserError(f"{where}: {len(names)} label names for a head of {config.num_labels}.")
    flat = read_tensors(folder)
    template = jax.eval_shape(partial(init_cnn, config), jax.random.key(0))
    shapes = {name: leaf.shape for name, leaf in flatten_dict(template, sep="/").items()}
    if {name: array.shape for name, array in flat.items()} != shapes:
        raise UserError(f"{folder / WEIGHTS} does not hold the parameters that {where} asks for.")
    params = unflatten_dict({name: jnp.asarray(array) for name, array in flat.items()}, sep="/")
    found = cnn_digest(config, params)
    if found != expected:
        raise UserError(f"{folder} is damaged: its content has changed since it was saved.")
    return SavedCnn(config, params, names, found)


def _flat(params: Params) -> dict[str, np.ndarray]:
    return {name: np.asarray(leaf) for name, leaf in flatten_dict(params, sep="/").items()}


def _positions(x_BHWC: Array) -> Array:
    """[B, H, W, C] -> [B, H * W, C]."""
    return x_BHWC.reshape(len(x_BHWC), -1, x_BHWC.shape[-1])


def _dense(width: int, name: str) -> Any:
    return nn.Dense(width, kernel_init=nn.initializers.he_normal(), name=name)
