"""Hidden layers of rectified linear units for small images: the nets of Hinton et al.

Hinton, Vinyals and Dean 2015, "Distilling the Knowledge in a Neural Network", section 3: two layers
of 1200 with dropout teach two layers of 800. Dropout as Hinton et al. 2012, "Improving neural
networks by preventing co-adaptation of feature detectors", have it on MNIST: a fifth of the pixels,
half of the hidden units. Their constraint on the norm of a unit's weights is not here.

Shape suffixes: B batch, H height, W width, C channels, F = H * W * C pixels, D width of a layer.
"""

from __future__ import annotations

import dataclasses
import math
import re
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from distill_jax.core.errors import UserError
from distill_jax.core.fields import check_fields
from distill_jax.core.types import Batch, ModelOutput, ModelShape, TokenRange, as_batch
from distill_jax.models.bert import Dense, Params
from distill_jax.models.dropout import Dropout
from distill_jax.models.family import ImageShape, register
from distill_jax.models.image_family import DIGITS_IMAGE, MAX_SIZE, ImageClassifiers

DROPPED = {"input_dropout": 0.2, "dropout": 0.5}
"""The rates of a model whose name ends with ``-drop``."""


@dataclasses.dataclass(frozen=True)
class MlpConfig:
    """What such a classifier is, apart from its weights.

    Attributes:
      widths: units of each hidden layer.
      num_labels: classes.
      image: height, width and channels of an image.
      input_dropout: rate of the pixels.
      dropout: rate of the hidden units.
    """

    widths: tuple[int, ...]
    num_labels: int
    image: ImageShape = DIGITS_IMAGE
    input_dropout: float = 0.0
    dropout: float = 0.0

    def __post_init__(self) -> None:
        check_fields(self)
        sizes = (*self.widths, self.num_labels, *self.image)
        if not all(1 <= size <= MAX_SIZE for size in sizes) or not self.widths:
            raise UserError(
                f"MLP config: every size must be a whole number from 1 to {MAX_SIZE}, got {self}."
            )
        if not (0 <= self.dropout < 1 and 0 <= self.input_dropout < 1):
            raise UserError(f"MLP config: dropout must be in [0, 1), got {self}.")

    @property
    def shape(self) -> ModelShape:
        """What objectives have to know of this model: the width is the last layer's."""
        return ModelShape(len(self.widths), self.widths[-1], 1, self.num_labels)

    @property
    def token_range(self) -> TokenRange:
        """An image is one token."""
        return TokenRange()


class Mlp(nn.Module):
    """A classifier of pixels in a row; reads the pixels of a batch, nothing else.

    Attributes:
      config: sizes.
      dtype: of the factors of matrix products; the logits are float32.
    """

    config: MlpConfig
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, batch: Batch, *, train: bool = False) -> ModelOutput:
        """Logits, and as hidden states what each layer says of the image as one token.

        Hidden state 0 are the pixels, [B, 1, F]; number n the units of layer n, [B, 1, D].

        Args:
          batch: with ``pixels_BHWC``.
          train: dropout on; needs the rng stream ``"dropout"`` if a rate is not 0.

        Raises:
          UserError: the batch has no images, or images of another size.
        """
        config = self.config
        if batch.pixels_BHWC is None:
            raise UserError("an MLP reads images, and this batch is text.")
        if batch.pixels_BHWC.shape[1:] != config.image:
            raise UserError(
                f"the batch has images of {list(batch.pixels_BHWC.shape[1:])}, the MLP reads "
                f"{list(config.image)} (height, width, channels)."
            )
        x_BD = jnp.asarray(batch.pixels_BHWC).reshape(len(batch.pixels_BHWC), -1)
        output = ModelOutput(hidden_states={0: x_BD[:, None]})
        x_BD = Dropout(config.input_dropout)(x_BD, train=train)
        for number, width in enumerate(config.widths, start=1):
            layer = Dense(width, self.dtype, math.sqrt(2 / x_BD.shape[-1]), name=f"layer_{number}")
            x_BD = nn.relu(layer(x_BD)).astype(jnp.float32)
            output.hidden_states[number] = x_BD[:, None]
            x_BD = Dropout(config.dropout)(x_BD, train=train)
        head = Dense(
            config.num_labels, jnp.float32, math.sqrt(1 / x_BD.shape[-1]), name="classifier"
        )
        return output.replace(logits_BC=head(x_BD))  # type: ignore[attr-defined]


@partial(jax.jit, static_argnums=0)
def init_mlp(config: MlpConfig, rng: Array) -> Params:
    """Fresh float32 parameters of ``Mlp(config)``: He et al. 2015 before ReLU, zero biases.

    Args:
      config: hashable, so one compilation serves every seed.
      rng: a jax random key.
    """
    pixels_BHWC = jnp.zeros((1, *config.image), jnp.float32)
    batch = as_batch(jnp.zeros((1, 1), jnp.int32), jnp.ones((1, 1), bool), None, pixels_BHWC)
    return Mlp(config).init(rng, batch)["params"]


_PRESET = re.compile(r"mlp((?:-[1-9]\d*)+)(-drop)?")


def parse_mlp(text: str, num_labels: int, image: ImageShape = DIGITS_IMAGE) -> MlpConfig:
    """The config of ``mlp-WIDTH-...``, with dropout where ``-drop`` follows.

    Args:
      text: e.g. ``mlp-1200-1200-drop``.
      num_labels: classes of the task.
      image: height, width and channels of its images.

    Raises:
      UserError: for another text.
    """
    match = _PRESET.fullmatch(text)
    if not match:
        raise UserError(
            f"model {text!r}: after mlp come the widths of the hidden layers, at least one, all "
            "above 0, and -drop for dropout. Examples: mlp-800-800, mlp-1200-1200-drop."
        )
    widths = tuple(int(width) for width in match[1].split("-")[1:])
    try:
        return MlpConfig(widths, num_labels, image, **(DROPPED if match[2] else {}))
    except UserError as error:
        raise UserError(f"model {text!r}: {error}") from None


class Mlps(ImageClassifiers):
    """Students and teachers ``mlp-WIDTH-...[-drop]``."""

    init: Any = staticmethod(init_mlp)
    parse: Any = staticmethod(parse_mlp)


MLPS = register(
    Mlps("mlp", MlpConfig, Mlp, ("mlp-WIDTH-...[-drop] (mlp-1200-1200-drop)",), "images")
)
