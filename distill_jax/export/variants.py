"""Students in variants: exported, asked about the test split, measured, and put into points."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from distill_jax.core.digests import digest
from distill_jax.core.errors import UserError
from distill_jax.core.files import write_atomic
from distill_jax.data.table import TextTable
from distill_jax.export.bench import Contender, Measured, measure
from distill_jax.export.contenders import exported
from distill_jax.export.formats import format_named
from distill_jax.export.manifest import (
    Manifest,
    check_files,
    is_export,
    read_manifest,
)
from distill_jax.export.own_data import NoData
from distill_jax.export.parity import logits_of_texts
from distill_jax.export.plan import BenchPlan
from distill_jax.export.runtime import open_any
from distill_jax.export.source import open_source
from distill_jax.export.write import export_model
from distill_jax.tables.pareto import Point
from distill_jax.tables.statistics import paired_bootstrap

_UNREAD = NoData("the whole test split is asked about afterwards")


@dataclasses.dataclass(frozen=True)
class Variant:
    """A model as it is to be used.

    Attributes:
      model: the student's name.
      name: of the variant.
      folder: of the run or of the hop of a pipeline that it is.
      format: in which it is exported.
    """

    model: str
    name: str
    folder: Path
    format: str


@dataclasses.dataclass(frozen=True, eq=False)
class Exported:
    """A variant in its format.

    Attributes:
      classes_N: what it says of each test example.
    """

    variant: Variant
    folder: Path
    manifest: Manifest
    classes_N: np.ndarray


def export_variant(variant: Variant, place: Path, test: TextTable) -> Exported:
    """Export a variant and ask it about the test split; what is there already is taken, if whole.

    Args:
      place: where its folder and what it said of the split are kept.

    Raises:
      UserError: the format cannot hold it, or what is there has changed.
    """
    folder = place / f"{variant.model}, {variant.name}"
    source = open_source(variant.folder)
    if is_export(folder):
        manifest = read_manifest(folder)
        check_files(folder, manifest)
        if manifest.source.get("model") != source.model.digest:
            raise UserError(
                f"{folder} was made of another model than {variant.folder} holds; delete it"
            )
    else:
        manifest = export_model(
            source, format_named(variant.format), folder, data=_UNREAD, max_drop=math.inf
        )
    kept = place / f"{variant.model}, {variant.name}.json"
    about = {"export": digest(dict(manifest.files)), "test": digest(list(test.ids))}
    if (said := _kept(kept, about)) is None:
        columns = (test.texts,) if test.texts_b is None else (test.texts, test.texts_b)
        said = logits_of_texts(open_any(folder), columns).argmax(axis=1)
        write_atomic(kept, json.dumps({**about, "classes": said.tolist()}) + "\n")
    return Exported(variant, folder, manifest, said)


def _kept(path: Path, about: Mapping[str, str]) -> np.ndarray | None:
    """What was said before, of this export and these texts."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        same = all(raw[name] == value for name, value in about.items())
        return np.asarray(raw["classes"], np.int64) if same else None
    except (OSError, ValueError, LookupError, TypeError):
        return None


def costs_of(
    variants: Sequence[Exported],
    columns: Sequence[Sequence[str]],
    plan: BenchPlan,
    kept: Path,
    on_pass: Callable[[int, int], None] = lambda done, total: None,
) -> list[Measured]:
    """What each variant costs, all timed together, or what was kept of the same before."""
    contenders = [_contender(each) for each in variants]
    about = digest(
        {
            "plan": plan,
            "exports": [dict(each.manifest.files) for each in variants],
            "texts": [list(column) for column in columns],
        }
    )
    try:
        raw = json.loads(kept.read_text(encoding="utf-8"))
        if raw["of"] == about:
            return [Measured.from_row(row) for row in raw["rows"]]
    except (OSError, ValueError, LookupError, TypeError):
        pass
    measured = measure(contenders, columns, plan, on_pass)
    rows = [each.as_row() for each in measured]
    write_atomic(kept, json.dumps({"of": about, "rows": rows}, indent=1) + "\n")
    return measured


def point_of(each: Exported, cost: Measured, labels_N: np.ndarray, teacher_N: np.ndarray) -> Point:
    """A variant's score with its interval over the test examples, and what it costs."""
    right_N = each.classes_N == labels_N
    interval = paired_bootstrap(right_N, np.zeros(len(right_N)))
    score = float(right_N.mean())
    low, high = (interval.low, interval.high) if interval else (math.nan, math.nan)
    return Point(
        model=each.variant.model,
        variant=each.variant.name,
        score=score,
        low=low,
        high=high,
        agreement=float(np.mean(each.classes_N == teacher_N)),
        parameters=cost.parameters,
        bytes_on_disk=cost.bytes_on_disk,
        peak_bytes=cost.peak_bytes,
        p50_ms=cost.latency.p50_ms,
        p95_ms=cost.latency.p95_ms,
        texts_per_second=cost.texts_per_second,
    )


def _contender(each: Exported) -> Contender:
    return exported(f"{each.variant.model}, {each.variant.name}", each.folder, each.manifest)
