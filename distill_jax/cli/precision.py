"""In which precision a table of texts is computed, and what is said of it."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from distill_jax.engine.options import Precision

if TYPE_CHECKING:
    from distill_jax.engine.sweep import Axis, Sweep
    from distill_jax.tasks.classification.cells import ClassifierCell


def computing_in(sweep: "Sweep[Any]", precision: Precision) -> "Sweep[Any]":
    """The same table whose students, and every teacher that is a model, compute in ``precision``;
    it is said below the table."""
    if precision == "f32":
        return sweep
    base = sweep.base
    setup = replace(base.setup, teacher=_heard(base.setup.teacher, precision))
    base = replace(base, precision=precision, setup=setup)
    rows, groups = (_axis(points, precision) for points in (sweep.rows, sweep.groups))
    protocol = (*sweep.protocol, *half_precision(base))
    return replace(sweep, base=base, rows=rows, groups=groups, protocol=protocol)


def half_precision(base: "ClassifierCell") -> list[str]:
    """What is said below a table of what was not computed in float32."""
    precisions = {
        "students compute": base.precision,
        "the teacher is fine-tuned": base.setup.teacher.training_precision,
        "the teacher speaks": base.setup.teacher.precision,
    }
    half = [what for what, precision in precisions.items() if precision != "f32"]
    if not half:
        return []
    who = "teacher and students compute" if len(half) == len(precisions) else ", ".join(half)
    return [f"In bfloat16 {who}; losses, sums, the optimiser and tests are in float32."]


def _axis(points: "Axis", precision: Precision) -> "Axis":
    return tuple(
        replace(
            point,
            changes=tuple((path, _heard(value, precision)) for path, value in point.changes),
            candidates=_axis(point.candidates, precision),
        )
        for point in points
    )


def _heard(value: Any, precision: Precision) -> Any:
    """A teacher that is a model in that precision; anything else as it is."""
    from distill_jax.tasks.classification.cells import TeacherConfig

    if not isinstance(value, TeacherConfig) or not value.is_model or precision == "f32":
        return value
    trained: Precision = "bf16" if value.fine_tune else value.training_precision
    return replace(value, precision="bf16", training_precision=trained)
