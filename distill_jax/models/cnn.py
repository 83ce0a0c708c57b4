"""A small convolutional network for small images, fast to train many at once.

Blocks of 3 x 3 convolution (same padding), ReLU and 2 x 2 max pooling, then one hidden dense
layer and the classifier, after LeNet-5 (LeCun et al. 1998, "Gradient-based learning applied to
document recognition").

Shape suffixes: B batch, H height, W width, C channels, T = H * W positions, D channels.
"""

from __future__ import annotations

import dataclasses
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
from distill_jax.models.bert import Params
from distill_jax.models.dropout import Dropout
from distill_jax.models.family import ImageShape, register
from distill_jax.models.image_family import DIGITS_IMAGE, MAX_SIZE, ImageClassifiers


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
    image: ImageShape = DIGITS_IMAGE
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
        return ModelShape(len(self.channels), self.channels[-1], 1, self.num_labels)

    @property
    def token_range(self) -> TokenRange:
        """An image is one token."""
        return TokenRange()


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
    pixels_BHWC = jnp.zeros((1, *config.image), jnp.float32)
    batch = as_batch(jnp.zeros((1, 1), jnp.int32), jnp.ones((1, 1), bool), None, pixels_BHWC)
    return Cnn(config).init(rng, batch)["params"]


_PRESET = re.compile(r"cnn((?:-[1-9]\d*){2,})")
_EXAMPLES = "cnn-16-32-64 (convolutions of 16 and 32 channels, dense layer of 64), cnn-4-16"


def parse_cnn(text: str, num_labels: int = 10, image: ImageShape = DIGITS_IMAGE) -> CnnConfig:
    """The config of ``cnn-WIDTH-...-DENSE``: convolutions, and last the dense layer.

    Args:
      text: e.g. ``cnn-16-32-64``.
      num_labels: classes of the task.
      image: height, width and channels of its images.

    Raises:
      UserError: for another text, or where the image cannot be halved so often.
    """
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


class Cnns(ImageClassifiers):
    """Students and teachers ``cnn-WIDTH-...-DENSE``."""

    init: Any = staticmethod(init_cnn)
    parse: Any = staticmethod(parse_cnn)

    def build(self, config: Any, dtype: Any = jnp.float32, remat: bool = False) -> nn.Module:
        """Too small to gain by another dtype or by ``remat``: it stays as it is."""
        return Cnn(config)


CNNS = register(Cnns("cnn", CnnConfig, Cnn, ("cnn-WIDTH-...-DENSE (cnn-4-8-16)",), "images"))


def _positions(x_BHWC: Array) -> Array:
    """[B, H, W, C] -> [B, H * W, C]."""
    return x_BHWC.reshape(len(x_BHWC), -1, x_BHWC.shape[-1])


def _dense(width: int, name: str) -> Any:
    return nn.Dense(width, kernel_init=nn.initializers.he_normal(), name=name)
