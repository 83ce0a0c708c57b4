"""What became of an update: old and new scores, what was forgotten, how far the new data are."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from distill_jax.compression.pipeline import Line
from distill_jax.compression.update import SAID, Update, new_data, read_new, shown_of
from distill_jax.evaluation.answers import softmax
from distill_jax.tables.markdown import plain_table
from distill_jax.tables.names import MODEL
from distill_jax.tables.pages import write_page
from distill_jax.tasks.classification.cells import TEACHER
from distill_jax.tasks.classification.runs import ClassifierRun

REPORT = "update.md"
MOST = 10
"""Forgotten examples that are shown, those of which the student is surest now."""
MOST_CLASSES = 12
HEAD = (
    "test", "examples", "score", "before", "after", "gain", "forgotten", "learnt", "p",
)  # fmt: skip
EXPLAINED = """
Scores of the student before and after; *gain* with the interval of the paired bootstrap over
examples. *forgotten*: all right before and not now, *learnt*: the other way round, *p*: McNemar's
exact test of the two counts. One seed: they say nothing of another training.
"""


@dataclasses.dataclass(frozen=True)
class Forgotten:
    """A test example that was right before and is wrong now."""

    id: str
    texts: tuple[str, ...]
    label: str
    given: str
    probability: float


@dataclasses.dataclass(frozen=True, eq=False)
class Updated:
    """A finished update.

    Attributes:
      run: what it began with.
      update: what was done.
      metrics: of its row in the ledger.
      before: the main score of the run on the old test.
      folder: of the student that came out.
      forgotten: test -> those of which the student is surest now, ``MOST`` at most.
      notes: what was told on the way.
    """

    run: ClassifierRun
    update: Update
    metrics: Mapping[str, float]
    before: float
    folder: Path
    forgotten: Mapping[str, Sequence[Forgotten]]
    notes: tuple[str, ...]


def updated(line: Line, update: Update) -> Updated:
    """What has come of a pipeline of one update."""
    last = line.hops[-1]
    run, names = line.run, line.run.splits.label_names
    test = run.splits.test
    own = line.engine.run_folder(last.row.hash)
    kind = run.splits.kind
    before = last.row.metrics["test/before"]
    if not kind.has_classes:
        return Updated(run, update, last.row.metrics, before, last.folder, {}, last.notes)
    forgotten = {
        "old": surest_forgotten(
            test.ids, test.labels_N, line.answers[0].said["test"], line.answers[1].said["test"],
            names, run.splits.test_texts,
        )
    }  # fmt: skip
    if "new/accuracy" in last.row.metrics:
        new = read_new(own / SAID)
        ids = tuple(map(str, new["ids"]))
        texts = new_data(update, run).test_texts
        columns = (new["labels_N"], new["before_NC"], new["after_NC"])
        forgotten["new"] = surest_forgotten(ids, *columns, names, texts)
    return Updated(run, update, last.row.metrics, before, last.folder, forgotten, last.notes)


def surest_forgotten(
    ids: Sequence[str],
    labels_N: np.ndarray,
    before_NC: np.ndarray,
    after_NC: np.ndarray,
    names: Sequence[str],
    texts: Mapping[str, tuple[str, ...]],
) -> list[Forgotten]:
    """Examples right before and wrong now, the surest first, of equals by their ids."""
    given_N, probs_NC = after_NC.argmax(axis=1), softmax(after_NC)
    lost = np.flatnonzero((before_NC.argmax(axis=1) == labels_N) & (given_N != labels_N)).tolist()
    lost.sort(key=lambda n: (-probs_NC[n, given_N[n]], ids[n]))
    return [
        Forgotten(
            ids[n],
            tuple(texts.get(ids[n], ())),
            names[labels_N[n]],
            names[given_N[n]],
            float(probs_NC[n, given_N[n]]),
        )
        for n in lost[:MOST]
    ]


def write_report(found: Updated, folder: Path) -> list[Path]:
    """Write ``update.md`` and ``update.json``; returns their paths."""
    return write_page(folder / REPORT, to_markdown(found), to_data(found))


def to_data(found: Updated) -> dict[str, Any]:
    """The same as plain JSON; NaN becomes null."""
    plain = {n: x if math.isfinite(x) else None for n, x in found.metrics.items()}
    return {
        "run": found.run.hash,
        "update": str(found.update),
        "folder": str(found.folder),
        "before": found.before,
        "metrics": plain,
        "forgotten": {
            name: [dataclasses.asdict(each) for each in some]
            for name, some in found.forgotten.items()
        },
        "notes": list(found.notes),
    }


def to_markdown(found: Updated) -> str:
    """Scores, distances, examples, and where the model is."""
    cell = found.run.cell
    return "\n".join(
        [
            f"# Updated: {cell.setup.student}, {cell.hash}, with {found.update.data}",
            "",
            *plain_table(HEAD, score_rows(found)),
            EXPLAINED,
            *_teachers(found),
            "## How far the new training examples are from the old",
            "",
            *plain_table(("", "old", "new"), list(_distances(found))),
            "",
            *_drift(found),
            *_examples(found),
            f"Model: `{found.folder / MODEL}`",
            *(["", "Notes:", *(f"- {note}" for note in found.notes)] if found.notes else []),
            "",
        ]
    )


def score_rows(found: Updated) -> list[tuple[str, ...]]:
    """Rows for the old test, and for the new where there is one: one a score."""
    kind, at = found.run.splits.kind, found.metrics
    tests = [("old", "test"), *([("new", "new")] if "new/tested" in at else [])]
    return [
        _scored(found, title, name, metric) for title, name in tests for metric in shown_of(kind)
    ]


def _scored(found: Updated, title: str, name: str, metric: str) -> tuple[str, ...]:
    kind, at = found.run.splits.kind, found.metrics
    prefix = name if metric == kind.main else f"{name}/{metric}"
    plain = metric in kind.plain
    factor, digits, unit = (1, 3, "") if plain else (100, 1, " %")
    gain = ""
    if f"{prefix}/gain" in at:
        numbers = (factor * at[f"{prefix}/{which}"] for which in ("gain", "gain_low", "gain_high"))
        mean, low, high = (f"{number:+.{digits}f}" for number in numbers)
        gain = f"{mean} [{low}, {high}]"
    changed: tuple[str, ...] = ("", "", "")
    if metric == kind.main and f"{name}/forgotten" in at:
        p = at[f"{name}/forgotten_p"]
        counts = (f"{int(at[f'{name}/{which}']):,}" for which in ("forgotten", "learnt"))
        changed = (*counts, "<0.001" if p < 0.001 else f"{p:.3f}")
    scores = (f"{factor * at[key]:.{digits}f}" for key in (f"{prefix}/before", f"{name}/{metric}"))
    return (title, f"{int(at[f'{name}/tested']):,}", metric + unit, *scores, gain, *changed)


def _teachers(found: Updated) -> Iterator[str]:
    """A line for each teacher: its main score, before and after where it was taught."""
    at, kind = found.metrics, found.run.splits.kind
    for number in range(len(found.run.teachers)):
        which = f"{TEACHER} {number + 1}" if number else TEACHER
        said = []
        for title, name in (("old", "test"), ("new", "new")):
            if (key := f"{which}/{name}/before") in at:
                now = kind.shown(kind.main, at[f"{which}/{name}/after"])
                then = kind.shown(kind.main, at[key])
                then = f" (before: {then})" if found.update.teacher_too else ""
                said.append(f"{now} on the {title} test{then}")
        yield f"The {which}'s {kind.main} is {' and '.join(said)}."
        yield ""


def _distances(found: Updated) -> Iterator[tuple[str, ...]]:
    at = found.metrics

    def row(title: str, name: str, form: str, factor: float = 1) -> tuple[str, ...]:
        return (title, *(format(factor * at[f"{side}/{name}"], form) for side in ("old", "new")))

    yield row("examples", "examples", ",.0f")
    if "old/tokens" in at:
        yield row("tokens unknown to the vocabulary %", "unknown", ".1f", 100)
        yield row("mean length in tokens", "tokens", ".1f")
    if "old/confidence" in at:
        yield row("teacher's mean probability of its likeliest class", "confidence", ".3f")
    what = found.run.splits.kind.averaged
    named = [name for name in found.run.splits.label_names if f"old/mean of {name}" in at]
    for name in named[:MOST_CLASSES]:
        yield row(f"teacher's {what} of {name}", f"mean of {name}", ".3f")


def _drift(found: Updated) -> list[str]:
    """How far the teacher's mean probabilities are from each other, where they sum to 1."""
    if "drift" not in found.metrics:
        return []
    return [
        "Half the sum of the differences of the teacher's mean probabilities: "
        f"{found.metrics['drift']:.3f} (0: the same, 1: other classes altogether).",
        "",
    ]


def _examples(found: Updated) -> Iterator[str]:
    """The surest of what was forgotten, of each test."""
    for name, some in found.forgotten.items():
        if not some:
            continue
        yield f"## Forgotten of the {name} test: the surest"
        yield ""
        rows = [
            (
                " / ".join(each.texts) or each.id,
                each.label,
                f"{each.given} ({each.probability:.2f})",
            )
            for each in some
        ]
        yield from plain_table(("example", "label", "now"), rows)
        yield ""
