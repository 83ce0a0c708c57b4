"""Finished models exported, asked, timed together, and drawn: what experiments on size share."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill_jax.core.files import write_atomic

if TYPE_CHECKING:
    from distill_jax.engine.progress import Reporter
    from distill_jax.engine.sweep import Sweep
    from distill_jax.export.plan import BenchPlan
    from distill_jax.export.variants import Exported, Variant
    from distill_jax.tables.pareto import Point

TEACHER, AS_IS = "teacher", "as is"


def students_in(folder: Path) -> dict[str, Path]:
    """The runs of a finished table by their students, the teacher's first; of several seeds the
    first."""
    from distill_jax.tables.outputs import load_results

    spec, rows = load_results(folder)
    placed: dict[str, str] = {}
    for place in sorted(spec.places, key=lambda each: each.seed):
        placed.setdefault(place.group, place.hash)
    placed = {place.group: placed[place.group] for place in spec.places}
    teachers = [row.hash for row in rows if row.row == TEACHER]
    hashes = {TEACHER: teachers[-1], **placed}
    return {name: folder / "runs" / hash_ for name, hash_ in hashes.items()}


def measured(
    sweep: Sweep[Any],
    variants: Sequence[Variant],
    folder: Path,
    plan: BenchPlan,
    reporter: Reporter,
    first: str = AS_IS,
) -> list[Point]:
    """Every variant exported, asked about the test split, and timed.

    Args:
      first: the variant of the teacher with which all are compared.
    """
    import numpy as np

    from distill_jax.export.variants import costs_of, export_variant, point_of
    from distill_jax.tasks.classification.splits import load_texts

    test = load_texts(sweep.base.setup.data).splits["test"]
    exports: list[Exported] = []
    with reporter.stage("export", len(variants)) as bar:
        for variant in variants:
            exports.append(export_variant(variant, folder / "exports", test))
            bar.update(len(exports))
    columns = (test.texts,) if test.texts_b is None else (test.texts, test.texts_b)
    passes = len(exports) * (plan.warmup + plan.repeats)
    with reporter.stage("timing", passes) as bar:
        costs = costs_of(
            exports,
            columns,
            plan,
            folder / "costs.json",
            lambda done, _: bar.update(done, batch_size=plan.texts),
        )
    teacher_N = next(
        each.classes_N
        for each in exports
        if (each.variant.model, each.variant.name) == (TEACHER, first)
    )
    labels_N = np.asarray(test.labels_N)
    return [
        point_of(each, cost, labels_N, teacher_N) for each, cost in zip(exports, costs, strict=True)
    ]


def write_points(
    points: Sequence[Point],
    plan: BenchPlan,
    folder: Path,
    title: str,
    table: str,
    more: Sequence[str] = (),
) -> None:
    """The table, the figure, and the points that both are made of; the table is printed.

    Args:
      table: the file's name, Markdown.
      more: lines of text below the table.
    """
    from distill_jax.tables.drawing import save_drawing
    from distill_jax.tables.pareto import pareto_markdown, to_json
    from distill_jax.tables.pareto_figure import draw_pareto
    from distill_jax.tables.provenance import cpu_description, provenance

    about = [
        f"{title}. Accuracy on the test split with the 95% interval over its examples "
        "(percentile bootstrap), of one seed; agreement: of how many of them the teacher says the "
        "same class.",
        f"ONNX Runtime on {cpu_description()}: p50 and p95 of {plan.sentences} test texts, one at "
        f"a time, texts/s in {plan.batches} batches of {plan.batch_size}; medians of "
        f"{plan.repeats} rounds over all models, after {plan.warmup} that do not count.",
        *more,
    ]
    facts = {"title": title, "about": about, "plan": dataclasses.asdict(plan), **provenance()}
    write_atomic(folder / "points.json", to_json(points, facts))
    write_atomic(folder / table, text := pareto_markdown(points, about))
    save_drawing(lambda: draw_pareto(points, title=title), folder / "figure")
    print(text)
