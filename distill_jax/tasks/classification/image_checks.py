"""What would go wrong in silence where images are moved, or classes left out."""

from __future__ import annotations

from collections.abc import Sequence

from distill_jax.core.errors import UserError
from distill_jax.tasks.classification.cells import DataConfig, TeacherConfig, TrainingConfig
from distill_jax.tasks.classification.splits import Examples


def check_jitter(
    training: TrainingConfig, table: Examples, heard: Sequence[TeacherConfig] = ()
) -> None:
    """Raises ``UserError`` for jitter of what is no image, of more pixels than there are, or of
    images that a teacher was asked about unmoved.

    Args:
      table: the training examples.
      heard: the teachers that are listened to while images are moved.
    """
    most = training.jitter
    if not most:
        return
    if table.image is None:
        raise UserError("jitter moves images; these examples are texts")
    if most >= min(table.image[:2]):
        height, width, _ = table.image
        raise UserError(f"jitter of {most} pixels moves images of {height} x {width} out of sight")
    if any(teacher.outputs == "cache" for teacher in heard):
        raise UserError(
            "jitter moves the student's images, and what is cached of the teacher is about the "
            "images as they are: let it be asked live (teacher outputs live)"
        )


def check_left_out(data: DataConfig, objective: str, hears: bool) -> None:
    """Raises ``UserError`` for classes left out of a transfer set that an objective does not read.

    Args:
      hears: whether the objective listens to a teacher.
    """
    if data.left_out and not hears:
        raise UserError(
            f"{objective!r} listens to no teacher: classes are left out of what a teacher speaks "
            f"of ({', '.join(data.left_out)})"
        )
