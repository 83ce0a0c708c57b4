"""``int8``: weights, word embeddings and activations as 8-bit integers, see ``models.int8``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jax import Array

from distill_jax.compression.distil import Training
from distill_jax.compression.steps import StepContext, Student, register
from distill_jax.core.errors import UserError
from distill_jax.core.types import Batch
from distill_jax.models.bert import BertConfig, Dense
from distill_jax.models.build import build_model, family_of
from distill_jax.models.compact_bert import compact
from distill_jax.models.int8 import LEVELS, rounded, scales
from distill_jax.training.state import Params

BATCHES = 16
"""Of training examples, on which static scales are found."""
Activations = Literal["token", "static", "float"]
_ARITHMETIC: dict[str, str] = {"token": "int8", "static": "int8_static", "float": "int8_weights"}
_QUANTISED = "layer_"
"""Of the parts of a BERT, those whose kernels become integers."""


@register
@dataclass(frozen=True)
class Int8(Training):
    """The layers' kernels and the word embeddings become integers; with ``train=true`` after
    training that computes as they will (quantisation-aware, with the straight-through gradient).

    Attributes:
      activations: ``token``: integers of a scale for each token, found as they come. ``static``:
        of one scale a layer, found on training examples. ``float``: float32, only the weights are
        integers.
      train: whether it trains first, as ``distil`` does and with its options.
    """

    kind: ClassVar[str] = "int8"
    last: ClassVar[bool] = True

    activations: Activations = "token"
    train: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.train and (self.objective or self.epochs or self.steps or self.rate):
            raise UserError("int8 without train=true takes no steps: leave out how it trains")
        if self.train and self.activations != "token":
            raise UserError("int8(train=true) is for activations=token: leave one out")

    @property
    def trains(self) -> bool:  # type: ignore[override]
        return self.train

    @property
    def objectives(self) -> tuple[str, ...]:
        return super().objectives if self.train else ()

    def apply(self, student: Student, context: StepContext) -> Student:
        config: Any = student.config
        if not family_of(config).compacts:
            raise UserError("int8 is for BERTs")
        if self.train:
            config = compact(config, arithmetic="rounded")
            settings = self.settings(context.training)
            student = context.train(student.but(config=config), self.objective, settings)
        largest = None
        if self.activations == "static":
            largest = largest_inputs(config, student.params, context.batches(student, BATCHES))
        config, params = quantised(config, student.params, self.activations, largest)
        return student.but(config=config, params=params, notes=())


def quantised(
    config: BertConfig,
    params: Params,
    activations: Activations = "token",
    largest: dict[tuple[str, ...], float] | None = None,
) -> tuple[BertConfig, Params]:
    """A BERT in integers: its config and parameters, of which no kernel of a layer is a float.

    Args:
      params: float32.
      largest: for static scales: path of a layer's kernel without its last name -> the largest
        |x| of what it reads.
    """
    flat: dict[tuple[str, ...], Any] = {}
    for path, leaf in flatten_dict(params).items():
        if path == ("embeddings", "word", "embedding"):
            axis = 1
        elif path[0].startswith(_QUANTISED) and path[-1] == "kernel":
            axis = 0
        else:
            flat[path] = jnp.asarray(leaf)
            continue
        scale = scales(jnp.asarray(leaf, jnp.float32), axis)
        flat[path] = rounded(jnp.asarray(leaf, jnp.float32), scale).astype(jnp.int8)
        flat[*path[:-1], "scale"] = scale.reshape(-1)
        if largest is not None and axis == 0:
            found = largest[path[:-1]]
            value = np.float32(found) / np.float32(LEVELS) if found > 0 else np.float32(1)
            flat[*path[:-1], "input_scale"] = jnp.asarray([value], jnp.float32)
    return compact(config, arithmetic=_ARITHMETIC[activations]), unflatten_dict(flat)


def largest_inputs(
    config: BertConfig, params: Params, batches: Sequence[Batch]
) -> dict[tuple[str, ...], float]:
    """The largest |x| that each dense layer reads at real tokens of some batches, by its path."""
    model = build_model(config)

    @jax.jit
    def of_batch(params: Params, batch: Any) -> dict[str, Array]:
        seen: dict[str, Array] = {}

        def watch(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
            module = context.module
            if isinstance(module, Dense) and (x := args[0]).ndim == 3:
                there = batch.where_BT[:, :, None]
                seen["/".join(module.path)] = jnp.max(jnp.abs(x), where=there, initial=0.0)
            return call(*args, **kwargs)

        with nn.intercept_methods(watch):
            model.apply({"params": params}, batch)
        return seen

    found: dict[str, float] = {}
    for batch in batches:
        for name, value in jax.device_get(of_batch(params, batch)).items():
            found[name] = max(found.get(name, 0.0), float(value))
    return {tuple(name.split("/")): value for name, value in found.items()}
