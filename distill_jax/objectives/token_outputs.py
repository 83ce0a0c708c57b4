"""Outputs a token: tags of words, and where answers start and end.

Shapes: B examples, T tokens, C outputs; ``logits`` [B, T, C], ``targets`` int32 [B, T], negative
where nothing is asked (padding, special tokens, pieces of a word after its first one).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import jax.numpy as jnp
from jax import Array

from distill_jax.core.errors import UserError
from distill_jax.core.spans import ENDS, STARTS
from distill_jax.core.types import Batch, ModelShape
from distill_jax.losses.numeric import FLOOR, masked_mean
from distill_jax.objectives.feeds import Feed, logits_of
from distill_jax.objectives.predictions import PredictionReader, Predictions, refuse_vectors
from distill_jax.objectives.readers import Loss, Options, Reader
from distill_jax.objectives.registry import Spec
from distill_jax.objectives.terms import Option

_DISTRIBUTIONS = (
    "soft_ce",
    "kl",
    "reverse_kl",
    "jeffreys",
    "js",
    "generalized_jsd",
    "skew_kl",
    "skew_reverse_kl",
    "tvd",
    "topk_kl",
)
"""Losses on two distributions, in which a class of probability 0 is as good as none."""


@dataclasses.dataclass(frozen=True)
class TokenTags(Predictions):
    """A class a token: each token that is asked about counts as an example does elsewhere."""

    losses: ClassVar[tuple[str, ...]] = (
        "ce",
        "focal",
        *_DISTRIBUTIONS,
        "mse_logits",
        "kl_infinite_temperature",
        "cosine_logits",
        "dist",
        "dkd",
        "mmi",
    )
    instead: ClassVar[Mapping[str, str]] = {"mse_regression": "mse_logits"}
    says: ClassVar[str] = "a tag a word"

    def where(self, batch: Batch, labelled: bool) -> Array:
        """bool [B * T]."""
        where_B = super().where(batch, labelled)
        return (where_B[:, None] & asked_BT(batch)).reshape(-1)

    def labels(self, batch: Batch) -> Array:
        """int32 [B * T]."""
        return jnp.maximum(_targets(batch), 0).reshape(-1)

    def values(self, loss: Loss, sides: list[Any], batch: Batch, *, labelled: bool) -> Array:
        """[B * T]."""
        args = [_flat(logits_of(side)) for side in sides]
        if labelled:
            args.append(self.labels(batch))
        return loss(*args, where=self.where(batch, labelled))

    def reader(self, spec: Spec, given: Options, student: ModelShape) -> Reader:
        check_class_weights(given, student.num_labels)
        return super().reader(spec, given, student)

    def check_vectors(self, spec: Spec) -> None:
        refuse_vectors(spec)


@dataclasses.dataclass(frozen=True)
class Positions(Predictions):
    """Two distributions over the tokens that are asked about: where an answer starts, and ends.

    Values are [2 B]: those of the start of every example, then those of the end, so that their mean
    is the mean of both (Devlin et al. 2019, section 4.2).
    """

    losses: ClassVar[tuple[str, ...]] = ("ce", *_DISTRIBUTIONS, "mse_logits")
    instead: ClassVar[Mapping[str, str]] = {"mse_regression": "mse_logits"}
    says: ClassVar[str] = "start and end of an answer"

    def where(self, batch: Batch, labelled: bool) -> Array:
        where_B = super().where(batch, labelled)
        return jnp.concatenate([where_B, where_B])

    def labels(self, batch: Batch) -> Array:
        """int32 [2 B], the token at which the answer starts, and ends."""
        targets_BT = jnp.maximum(_targets(batch), 0)
        ends = [jnp.argmax((targets_BT & part) > 0, axis=1) for part in (STARTS, ENDS)]
        return jnp.concatenate(ends).astype(jnp.int32)

    def values(self, loss: Loss, sides: list[Any], batch: Batch, *, labelled: bool) -> Array:
        there_BT = asked_BT(batch)
        args = []
        for side in sides:
            logits_BT2 = logits_of(side)
            lists = [jnp.where(there_BT, logits_BT2[..., end], -FLOOR) for end in (0, 1)]
            args.append(jnp.concatenate(lists))
        if labelled:
            args.append(self.labels(batch))
        return loss(*args, where=self.where(batch, labelled))

    def reader(self, spec: Spec, given: Options, student: ModelShape) -> Reader:
        for option in ("label_smoothing", "class_weights"):
            if given.get(option):
                raise UserError(f"{option} has no meaning for {self.says}: the classes are tokens.")
        return super().reader(spec, given, student)

    def check_vectors(self, spec: Spec) -> None:
        refuse_vectors(spec)


def asked_BT(batch: Batch) -> Array:
    """Which tokens are asked about."""
    return (_targets(batch) >= 0) & batch.where_BT


def check_class_weights(given: Options, count: int) -> None:
    """Raises ``UserError`` for class weights that are not one a class."""
    weights = given.get("class_weights", ())
    if weights and (len(weights) != count or not any(weights)):
        raise UserError(f"class_weights needs a number for each of {count} classes, not all 0.")


def _targets(batch: Batch) -> Array:
    if batch.targets is None:
        raise UserError("a loss on tokens needs a batch that asks about tokens.")
    return batch.targets


def _flat(logits_BTC: Array) -> Array:
    return logits_BTC.reshape(-1, logits_BTC.shape[-1])


@dataclasses.dataclass(frozen=True)
class IntentAndTags(TokenTags):
    """Two heads on one trunk: tags of the words, and a class of the sentence at [CLS].

    Chen et al. 2019, "BERT for Joint Intent Classification and Slot Filling", eq. 1 to 3. The
    outputs of every token are those of both heads; of the first token the classes are read, of
    words the tags. A sentence's value is the loss on its class plus the mean of that on its words;
    a term's ``head`` may name one of both alone.

    Attributes:
      tags: how many outputs are tags; they come first.
      head: which heads the loss is read at.
    """

    tags: int = 0
    head: str = "both"

    @property
    def says(self) -> str:  # type: ignore[override]
        return {"both": "an intent and tags", "intent": "an intent", "slots": "tags"}[self.head]

    def where(self, batch: Batch, labelled: bool) -> Array:
        """bool [B]."""
        return Predictions.where(self, batch, labelled)

    def values(self, loss: Loss, sides: list[Any], batch: Batch, *, labelled: bool) -> Array:
        """[B]."""
        where_B = self.where(batch, labelled)
        total_B = jnp.zeros(where_B.shape, jnp.float32)
        if self.head != "slots":
            args = [logits_of(side)[:, 0, self.tags :] for side in sides]
            labels = [batch.labels_B] if labelled else []
            total_B = total_B + loss(*args, *labels, where=where_B)
        if self.head != "intent":
            there_BT = where_B[:, None] & asked_BT(batch)
            args = [_flat(logits_of(side)[..., : self.tags]) for side in sides]
            labels = [self.labels(batch)] if labelled else []
            values = loss(*args, *labels, where=there_BT.reshape(-1))
            total_B = total_B + masked_mean(values.reshape(there_BT.shape), there_BT, axis=1)
        return total_B

    def options_of(self, feed: Feed) -> Mapping[str, Option]:
        on_outputs = feed.reads_logits or feed.labelled
        heads = {"head": Option("both", choices=("both", "intent", "slots"))}
        return {**super().options_of(feed), **(heads if on_outputs else {})}

    def reader(self, spec: Spec, given: Options, student: ModelShape) -> Reader:
        own = dataclasses.replace(self, head=given.get("head", "both"))
        if given.get("class_weights") and own.head == "both":
            raise UserError("class_weights are of one head: head='intent' or head='slots'.")
        counts = {"intent": student.num_labels - self.tags, "slots": self.tags}
        check_class_weights(given, counts.get(own.head, 0))
        return PredictionReader(own, spec.feed.labelled)
