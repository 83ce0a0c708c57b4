"""What small students of texts have in common: a table of vectors, a token each, and its start.

They start from their teacher's embeddings in fewer dimensions, or (``-random``) by chance.
"""

from __future__ import annotations

import dataclasses
import re
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from distill_jax.core.digests import LATE
from distill_jax.core.errors import UserError, unknown
from distill_jax.core.fields import check_fields
from distill_jax.core.types import TokenRange, as_batch
from distill_jax.models.bert import Params
from distill_jax.models.family import Classifiers, family_of
from distill_jax.models.loaded import Loaded

SCALE = 0.3
"""Root of the mean square of a vector's elements at the start."""
SIF = 1e-4
"""Arora et al. 2017, section 3: a token of probability p weighs SIF / (SIF + p) in a mean."""
MAX_SIZE = 2**24
"""Of anything: a damaged or hostile config is refused before it is worked on."""


@dataclasses.dataclass(frozen=True)
class WordConfig:
    """What such a classifier is, apart from its weights.

    Attributes:
      vocab_size: tokens.
      width: see the family.
      num_labels: classes.
      max_positions, type_vocab_size: the teacher's, for the same texts; none of its own.
      dropout: rate before the hidden layer's product, and before the classifier's.
      per_token: whether the classes are said of every token, of families that can.
    """

    vocab_size: int
    width: int
    num_labels: int
    max_positions: int = 512
    type_vocab_size: int = 2
    dropout: float = 0.1
    per_token: bool = dataclasses.field(default=False, metadata=LATE)

    def __post_init__(self) -> None:
        check_fields(self)
        kind = type(self).__name__
        for name in (each.name for each in dataclasses.fields(self) if each.type == "int"):
            if not 1 <= getattr(self, name) <= MAX_SIZE:
                raise UserError(
                    f"{kind}: {name} must be from 1 to {MAX_SIZE}, not {getattr(self, name)}"
                )
        if not 0 <= self.dropout < 1:
            raise UserError(f"{kind}: dropout must be in [0, 1), not {self.dropout}")

    @property
    def token_range(self) -> TokenRange:
        """What it has embeddings for, and may read."""
        return TokenRange(self.vocab_size, self.type_vocab_size, self.max_positions)


@dataclasses.dataclass(frozen=True)
class WordClassifiers(Classifiers):
    """Students FAMILY[-random][-WIDTH].

    Attributes:
      width: of a student whose name says none.
      directions: how many times ``width`` its vectors are wide.
      weighs: whether rare tokens weigh more at the start.
    """

    width: int = 1
    directions: int = 1
    weighs: bool = False
    embeddings: tuple[str, ...] = dataclasses.field(
        default=("embeddings", "embedding"), kw_only=True
    )

    def claims(self, name: str) -> bool:
        return name.split("-")[0] == self.name

    def student(self, name: str, teacher: Any, **options: Any) -> Any:
        random, width = self._parsed(name)
        if not random:
            width = self._width_within(name, width, teacher)
        own = teacher.token_range
        return self.config_type(
            own.tokens,
            width or self.width,
            teacher.num_labels,
            own.positions,
            own.types,
            per_token=self.tokens and teacher.shape.per_token,
        )

    def init(self, config: Any, rng: Array) -> Params:
        return _drawn(self.module, config, rng)

    def start(self, name: str, teacher: Loaded, rng: Array, **options: Any) -> Params:
        config = self.student(name, teacher.config)
        params = self.init(config, rng)
        if self._parsed(name)[0]:
            return params
        vectors_VD = principal_vectors(teacher, self.directions * config.width)
        if self.weighs:
            vectors_VD *= rarity_weights(config.vocab_size)[:, None]
        table_VD = jnp.asarray(SCALE * vectors_VD, jnp.float32)
        return {**params, "embeddings": {"embedding": table_VD}}

    def _parsed(self, name: str) -> tuple[bool, int | None]:
        """Whether a student is random, and its width where its name has one."""
        parts = re.fullmatch(rf"{self.name}(-random)?(?:-([1-9]\d{{0,7}}))?", name)
        if parts is None:
            raise unknown("student", name, self.names)
        return parts[1] is not None, int(parts[2]) if parts[2] else None

    def _width_within(self, name: str, width: int | None, teacher: Any) -> int:
        """The width of a student that starts from this teacher."""
        family = family_of(teacher)
        if not family.embeddings:
            raise UserError(
                f"student {name!r} starts from its teacher's embeddings of tokens, and a "
                f"{family.name} does not say where it has them: take {self.name}-random"
            )
        wide = family.embedding_width(teacher)
        most = max(1, wide // self.directions)
        if width is not None and width > most:
            raise UserError(
                f"student {name!r} has vectors of {self.directions * width} and would start from "
                f"its teacher's embeddings, which have {wide}: take {self.name}-{most} or "
                f"narrower, or {self.name}-random-{width}"
            )
        return width or min(self.width, most)


def principal_vectors(teacher: Loaded, width: int) -> np.ndarray:
    """The teacher's embeddings of tokens on their principal axes: [V, width], mean square 1.

    Args:
      teacher: of a family that says where its embeddings are.
      width: no more than the embeddings have.
    """
    table: Any = teacher.params
    for name in family_of(teacher.config).embeddings:
        table = table[name]
    table_VD = np.asarray(table, np.float64)
    centred_VD = table_VD - table_VD.mean(axis=0)
    _, axes_DD = np.linalg.eigh(centred_VD.T @ centred_VD)  # ascending
    axes_DW = axes_DD[:, ::-1][:, :width]
    # Of an axis and its negative the one whose largest element is positive: the same everywhere.
    axes_DW = axes_DW * np.sign(axes_DW[np.abs(axes_DW).argmax(axis=0), np.arange(width)])
    vectors_VW = centred_VD @ axes_DW
    return vectors_VW / max(np.sqrt(np.mean(vectors_VW**2)), np.finfo(np.float64).tiny)


def rarity_weights(count: int) -> np.ndarray:
    """How much tokens weigh in a mean, the first ones least: [V], in (0, 1).

    Their probabilities are those of Zipf's law by their place in the vocabulary, as in Model2Vec
    (Tulkens and van Dongen 2024): word pieces are filed by frequency, and no text is needed.
    """
    inverse_V = 1 / np.arange(2.0, count + 2)
    return SIF / (SIF + inverse_V / inverse_V.sum())


def names_of(family: str, example: int) -> tuple[str, ...]:
    """What students of a family are called, for people."""
    forms = (family, f"{family}-random")
    return tuple(name for form in forms for name in (form, f"{form}-WIDTH ({form}-{example})"))


@partial(jax.jit, static_argnums=(0, 1))
def _drawn(module: Any, config: Any, rng: Array) -> Params:
    """Fresh parameters, one compilation for every seed."""
    batch = as_batch(jnp.zeros((1, 2), jnp.int32), jnp.ones((1, 2), bool))
    return module(config).init(rng, batch)["params"]
