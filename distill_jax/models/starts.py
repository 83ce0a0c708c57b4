"""Where a student starts, as text: ``--student-start``.

=================  ===============================================================================
``usual``          what a student of its name does: layers of the teacher's checkpoint (``l3``),
                   its embeddings (``bilstm``), or chance (``tiny``)
``random``         chance, whatever its name
``embeddings``     chance, but for the checkpoint's embeddings in fewer dimensions
``truncated``      the most important units of chosen layers of the checkpoint, see ``narrowed``
``0.5*teacher``    so much of the fine-tuned teacher, the rest chance: Stanton et al. 2021, "Does
                   Knowledge Distillation Really Work?", section 6
``0.5*checkpoint`` the same of the checkpoint before it was fine-tuned
=================  ===============================================================================
"""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from distill_jax.core.errors import UserError, unknown
from distill_jax.models.bert import Params
from distill_jax.models.family import Classifiers
from distill_jax.models.loaded import Loaded

USUAL, RANDOM = "usual", "random"
NARROWED = ("embeddings", "truncated")
NAMES = (USUAL, RANDOM, *NARROWED, "SHARE*teacher", "SHARE*checkpoint")
_BLEND = re.compile(r"(\d+|\d*\.\d+)\s*\*\s*(teacher|checkpoint)")


@dataclasses.dataclass(frozen=True)
class Blend:
    """A start between a trained model and chance.

    Attributes:
      share: of the trained model, from 0 to 1.
      trained: whether that is the fine-tuned teacher, or its checkpoint before.
    """

    share: float
    trained: bool


def parse_start(text: str) -> str | Blend:
    """A start from its text.

    Raises:
      UserError: for anything that the table above does not have.
    """
    if text in (USUAL, RANDOM, *NARROWED):
        return text
    found = _BLEND.fullmatch(text)
    if found is None:
        raise unknown("start of a student", text, NAMES)
    share = float(found[1])
    if share > 1:
        raise UserError(f"the share of the teacher in a start is from 0 to 1, not {share:g}")
    return Blend(share, found[2] == "teacher")


def check_start(family: Classifiers, name: str, text: str, teacher: Any, **options: Any) -> None:
    """Find now what ``started`` would refuse, from shapes alone.

    Args:
      teacher: the config of the teacher.
      options: as of ``Classifiers.student``.

    Raises:
      UserError: for a start that there is not, or that such a student of such a teacher cannot
        have.
    """
    start = parse_start(text)
    if isinstance(start, str):
        if start in NARROWED:
            family.check_narrowed(start, name, teacher, **options)
    elif not _blends(family, name, teacher, options):
        raise UserError(
            f"student {name!r} has no parameters that its teacher has too: a start of {text!r} is "
            "for students of the teacher's own shape, and for those made of its layers (l3)"
        )


def started(
    family: Classifiers,
    name: str,
    text: str,
    checkpoint: Loaded,
    trained: Any,
    rng: Array,
    **options: Any,
) -> Params:
    """Float32 parameters of a student, sharing no buffer with the teacher's.

    Args:
      family: of the student.
      text: see above.
      checkpoint: the teacher before it was fine-tuned.
      trained: the fine-tuned one, with ``config`` and ``params``.
      rng: of everything drawn.
      options: as of ``Classifiers.student``.

    Raises:
      UserError: see ``check_start``.
    """
    start = parse_start(text)
    if start == USUAL:
        return family.start(name, checkpoint, rng, **options)
    drawn = family.init(family.student(name, checkpoint.config, **options), rng)
    if start == RANDOM:
        return drawn
    if isinstance(start, str):
        return family.narrowed(start, name, checkpoint, rng, **options)
    source = dataclasses.replace(
        checkpoint,
        **({"config": trained.config, "params": trained.params} if start.trained else {}),
    )
    return blended(start.share, _whole(family, name, source, rng, options), drawn)


def blended(share: float, model: Params, drawn: Params) -> Params:
    """``share`` of a model's parameters and the rest of those drawn, leaf by leaf."""
    weight = jnp.float32(share)

    def mix(one: Any, other: Any) -> Array:
        return weight * jnp.asarray(one, jnp.float32) + (1 - weight) * other

    return jax.tree.map(mix, model, drawn)


def _blends(family: Classifiers, name: str, teacher: Any, options: dict[str, Any]) -> bool:
    return family.copies(name) or family.student(name, teacher, **options) == teacher


def _whole(
    family: Classifiers, name: str, source: Loaded, rng: Array, options: dict[str, Any]
) -> Params:
    """All parameters that a student can have of a model: its own where they are of one shape, else
    the layers that a copied student takes, with the head."""
    if family.student(name, source.config, **options) == source.config:
        return source.params
    return {**family.start(name, source, rng, **options), "classifier": source.params["classifier"]}
