"""Which student layer learns from which teacher layer.

Layers are numbered from 1 everywhere; hidden state 0 is the embeddings. Maps are tuples of pairs
and keep the order in which they were given.
"""

from __future__ import annotations

from distill_jax.core.errors import UserError
from distill_jax.core.layer_choice import spread, uniform
from distill_jax.objectives.terms import LayerMap

NAMED = ("uniform", "spread", "last", "first", "skip")

Pairs = tuple[tuple[int, int], ...]


def layer_pairs(
    layers: str | LayerMap, student_layers: int, teacher_layers: int, *, lowest: int = 1
) -> Pairs:
    """The pairs (student layer, teacher layer) of a map.

    ``uniform``: i -> i * L_t / L_s for i = 1..L_s, to the nearest (TinyBERT's uniform).
    ``spread``: the same rounded down, as copied students start by default; see
    ``core.layer_choice``.
    ``last``: the student's layers against the teacher's last L_s (TinyBERT's top).
    ``first``: i -> i (TinyBERT's bottom). ``skip``: ``uniform`` without the last pair (PKD-Skip).
    Explicit maps may count from the end: -1 is the last layer.

    Args:
      layers: a name or an explicit map.
      student_layers: L_s.
      teacher_layers: L_t.
      lowest: the first layer that exists: 0 for hidden states, 1 for attention.

    Raises:
      UserError: for a layer that does not exist, or a named map that does not fit.
    """
    if isinstance(layers, LayerMap):
        students = [_layer(s, student_layers, lowest, "student") for s, _ in layers.pairs]
        teachers = [_layer(t, teacher_layers, lowest, "teacher") for _, t in layers.pairs]
        return tuple(zip(students, teachers, strict=True))
    numbers = range(1, student_layers + 1)
    if layers in ("last", "first") and student_layers > teacher_layers:
        raise UserError(
            f"layers={layers!r} needs a teacher at least as deep as the student: "
            f"{student_layers} student layers, {teacher_layers} teacher layers. Use an explicit "
            "map {student layer: teacher layer}."
        )
    if layers == "first":
        return tuple((i, i) for i in numbers)
    if layers == "last":
        return tuple((i, teacher_layers - student_layers + i) for i in numbers)
    evenly = spread if layers == "spread" else uniform
    pairs = tuple(zip(numbers, evenly(student_layers, teacher_layers), strict=True))
    if layers == "skip":
        if student_layers < 2:
            raise UserError("layers='skip' leaves nothing of a student with 1 layer.")
        return pairs[:-1]
    return pairs


def _layer(number: int, count: int, lowest: int, whose: str) -> int:
    """A layer number, counted from the end if negative, checked."""
    layer = count + 1 + number if number < 0 else number
    if not lowest <= layer <= count or (number < 0 and layer < 1):
        embeddings = " (0 is the embeddings)" if lowest == 0 else ""
        raise UserError(
            f"the {whose} has no layer {number}: allowed are {lowest} to {count}{embeddings}, "
            "or negative numbers from the end."
        )
    return layer


def table(pairs: Pairs) -> str:
    """The pairs in words: ``student 1 <- teacher 3, student 2 <- teacher 6``."""
    return ", ".join(f"student {s} <- teacher {t}" for s, t in pairs)
