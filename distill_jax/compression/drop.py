"""``drop``: heads, feed-forward neurons and layers that matter least are cut out of the arrays."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from distill_jax.compression.steps import Step, StepContext, Student, register
from distill_jax.core.errors import UserError
from distill_jax.core.fields import check_fields
from distill_jax.models.build import family_of
from distill_jax.models.compact_bert import compact
from distill_jax.training.state import Params

BATCHES = 32
"""Of training examples, on which importance is estimated."""
QUERY, KEY, VALUE = (("attention", name) for name in ("query", "key", "value"))


@register
@dataclass(frozen=True)
class Drop(Step):
    """Parts of a BERT are cut out, of each layer as many.

    A head's or neuron's importance is ``|sum w g|`` over the weights that read its output, g their
    gradient by the run's objective, averaged over batches of training examples: what the loss
    would change by if it were scaled down (Michel et al. 2019, "Are Sixteen Heads Really Better
    than One?", eq. 2, where the mean is over examples). Layers go one by one, each time the one
    without which the loss on validation is lowest.

    Attributes:
      heads, ffn: share of the heads and of the feed-forward neurons that goes, rounded down.
      layers: how many layers go.
    """

    kind: ClassVar[str] = "drop"

    heads: float = 0.0
    ffn: float = 0.0
    layers: int = 0

    def __post_init__(self) -> None:
        check_fields(self)
        for name in ("heads", "ffn"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"the share of {name} to drop must be in [0, 1)")
        if self.layers < 0 or not (self.heads or self.ffn or self.layers):
            raise UserError("drop what? drop(heads=0.5), drop(ffn=0.5) or drop(layers=1)")

    def __str__(self) -> str:
        named = ((name, getattr(self, name)) for name in ("heads", "ffn", "layers"))
        return f"drop({', '.join(f'{name}={value!r}' for name, value in named if value)})"

    def apply(self, student: Student, context: StepContext) -> Student:
        config: Any = student.config
        if not family_of(config).compacts:
            raise UserError("drop is for BERTs")
        if self.layers >= config.num_layers:
            raise UserError(f"the student has {config.num_layers} layers, one at least stays")
        notes = []
        if self.layers:
            student, gone = without_layers(student, self.layers, _loss_on_validation(context))
            notes.append(f"layers that went: {', '.join(map(str, gone))}")
            config = student.config
        if self.heads or self.ffn:
            slopes = context.gradients(student, BATCHES)
            if self.heads:
                keep = config.num_heads - int(self.heads * config.num_heads)
                student = with_heads(student, best(head_importance(student, slopes), keep))
                notes.append(f"{keep} of {config.num_heads} heads a layer are left")
            if self.ffn:
                size = config.intermediate_size
                keep = size - int(self.ffn * size)
                student = with_neurons(student, best(neuron_importance(student, slopes), keep))
                notes.append(f"{keep} of {size} neurons a layer are left")
        return student.but(notes=tuple(notes))


def _loss_on_validation(context: StepContext) -> Callable[[Student], float]:
    def loss(student: Student) -> float:
        said, splits = context.logits(student, "validation"), student.splits
        kind = splits.kind
        return kind.scores(said, splits.validation, splits.fitted)[kind.decides["loss"]]

    return loss


def head_importance(student: Student, slopes: Sequence[Params]) -> np.ndarray:
    """[layers, heads], by the rows of the attention's output that read a head."""
    return _importance(student, slopes, "attention_output", student.config.num_heads)  # type: ignore


def neuron_importance(student: Student, slopes: Sequence[Params]) -> np.ndarray:
    """[layers, neurons], by the row of the block's output that reads a neuron."""
    size = student.config.intermediate_size  # type: ignore[attr-defined]
    return _importance(student, slopes, "output", size)


def _importance(student: Student, slopes: Sequence[Params], name: str, groups: int) -> np.ndarray:
    layers = []
    for number in range(1, student.config.num_layers + 1):  # type: ignore[attr-defined]
        weight_KD = np.asarray(student.params[f"layer_{number}"][name]["kernel"])
        total_G = np.zeros(groups)
        for found in slopes:
            slope_KD = np.asarray(found[f"layer_{number}"][name]["kernel"])
            total_G += np.abs((weight_KD * slope_KD).reshape(groups, -1).sum(axis=1))
        layers.append(total_G / len(slopes))
    return np.stack(layers)


def best(importance_LG: np.ndarray, keep: int) -> np.ndarray:
    """[layers, keep]: the most important of each layer, in their order."""
    order_LG = np.argsort(-importance_LG, axis=1, kind="stable")
    return np.sort(order_LG[:, :keep], axis=1)


def with_heads(student: Student, heads_LG: np.ndarray) -> Student:
    """A student of these heads alone, as many in each layer."""
    config: Any = student.config
    size = config.attention_width // config.num_heads
    columns_LK = (heads_LG[:, :, None] * size + np.arange(size)).reshape(len(heads_LG), -1)
    smaller = compact(config, num_heads=heads_LG.shape[1], head_size=size)
    params = _cut(student.params, columns_LK, (QUERY, KEY, VALUE), ("attention_output",))
    return student.but(config=smaller, params=params)


def with_neurons(student: Student, neurons_LG: np.ndarray) -> Student:
    """A student of these feed-forward neurons alone, as many in each layer."""
    params = _cut(student.params, neurons_LG, (("intermediate",),), ("output",))
    smaller = dataclasses.replace(student.config, intermediate_size=neurons_LG.shape[1])  # type: ignore
    return student.but(config=smaller, params=params)


def _cut(
    params: Params, kept_LK: np.ndarray, writers: Sequence[tuple[str, ...]], reader: tuple[str, ...]
) -> Params:
    """The layers' kernels and biases with some of the units between writers and reader."""
    flat = flatten_dict(params)
    for number, kept_K in enumerate(kept_LK, start=1):
        layer = f"layer_{number}"
        for writer in writers:
            for name in ("kernel", "bias"):
                path = (layer, *writer, name)
                flat[path] = jnp.asarray(np.asarray(flat[path])[..., kept_K])
        path = (layer, *reader, "kernel")
        flat[path] = jnp.asarray(np.asarray(flat[path])[kept_K])
    return unflatten_dict(flat)


def without_layers(
    student: Student, count: int, loss: Callable[[Student], float]
) -> tuple[Student, tuple[int, ...]]:
    """A student of fewer layers, and which went, by their first numbers."""
    numbers = list(range(1, student.config.num_layers + 1))  # type: ignore[attr-defined]
    gone = []
    for _ in range(count):
        tried = {place: without_layer(student, place) for place in range(1, len(numbers) + 1)}
        losses = {place: loss(each) for place, each in tried.items()}
        place = min(losses, key=lambda each: losses[each])
        student = tried[place]
        gone.append(numbers.pop(place - 1))
    return student, tuple(gone)


def without_layer(student: Student, place: int) -> Student:
    """A student without its layer of this number, from 1."""
    layers = student.config.num_layers  # type: ignore[attr-defined]
    params = {k: own for k, own in student.params.items() if not k.startswith("layer_")}
    stay = [number for number in range(1, layers + 1) if number != place]
    for number, old in enumerate(stay, start=1):
        params[f"layer_{number}"] = student.params[f"layer_{old}"]
    smaller = dataclasses.replace(student.config, num_layers=layers - 1)  # type: ignore[type-var]
    return student.but(config=smaller, params=params)
