"""What became of an update: old and new scores, what was forgotten, how far the new data are."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from distill_jax.compression.pipeline import Line
from distill_jax.compression.update import SAID, Update, new_data, read_new
from distill_jax.core.files import write_atomic
from distill_jax.evaluation.answers import softmax
from distill_jax.tables.names import MODEL
from distill_jax.tasks.classification.cells import TEACHER
from distill_jax.tasks.classification.runs import ClassifierRun

REPORT, DATA = "update.md", "update.json"
MOST = 10
"""Forgotten examples that are shown, those of which the student is surest now."""
MOST_CLASSES = 12
HEAD = (
    "test", "examples", "before %", "after %", "gain", "forgotten", "learnt", "p",
)  # fmt: skip
EXPLAINED = """
Accuracy of the student before and after; *gain* with the interval of the paired bootstrap over
examples. *forgotten*: right before and wrong now, *learnt*: the other way round, *p*: McNemar's
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
      before: accuracy of the run on the old test.
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
    first, last = line.hops
    run, names = line.run, line.run.splits.label_names
    test = run.splits.test
    own = line.engine.run_folder(last.row.hash)
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
    before = first.row.metrics["test/accuracy"]
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
    paths = [folder / REPORT, folder / DATA]
    write_atomic(paths[0], to_markdown(found))
    data = json.dumps(to_data(found), indent=1, ensure_ascii=False, allow_nan=False)
    write_atomic(paths[1], f"{data}\n")
    return paths


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
            *_as_table(HEAD, score_rows(found)),
            EXPLAINED,
            *_teachers(found),
            "## How far the new training examples are from the old",
            "",
            *_as_table(("", "old", "new"), list(_distances(found))),
            "",
            f"Half the sum of the differences of the teacher's mean probabilities: "
            f"{found.metrics['drift']:.3f} (0: the same, 1: other classes altogether).",
            "",
            *_examples(found),
            f"Model: `{found.folder / MODEL}`",
            *(["", "Notes:", *(f"- {note}" for note in found.notes)] if found.notes else []),
            "",
        ]
    )


def score_rows(found: Updated) -> list[tuple[str, ...]]:
    """A row for the old test, and one for the new where there is one."""
    at = found.metrics
    rows = [_scored(at, "old", "test", found.before)]
    if "new/accuracy" in at:
        rows.append(_scored(at, "new", "new", at["new/before"]))
    return rows


def _scored(at: Mapping[str, float], title: str, name: str, before: float) -> tuple[str, ...]:
    gain = ""
    if f"{name}/gain" in at:
        low, high = at[f"{name}/gain_low"], at[f"{name}/gain_high"]
        gain = f"{100 * at[f'{name}/gain']:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"
    p = at[f"{name}/forgotten_p"]
    return (
        title,
        f"{int(at[f'{name}/tested']):,}",
        f"{100 * before:.1f}",
        f"{100 * at[f'{name}/accuracy']:.1f}",
        gain,
        f"{int(at[f'{name}/forgotten']):,}",
        f"{int(at[f'{name}/learnt']):,}",
        "<0.001" if p < 0.001 else f"{p:.3f}",
    )


def _teachers(found: Updated) -> Iterator[str]:
    """A line for each teacher: its accuracy, before and after where it was taught."""
    at = found.metrics
    for number in range(len(found.run.teachers)):
        which = f"{TEACHER} {number + 1}" if number else TEACHER
        said = []
        for title, name in (("old", "test"), ("new", "new")):
            if (key := f"{which}/{name}/before") in at:
                now = at[f"{which}/{name}/after"]
                then = f" (before: {100 * at[key]:.1f}%)" if found.update.teacher_too else ""
                said.append(f"{100 * now:.1f}% of the {title} test{then}")
        yield f"The {which} is right in {' and in '.join(said)}."
        yield ""


def _distances(found: Updated) -> Iterator[tuple[str, ...]]:
    at = found.metrics

    def row(title: str, name: str, form: str, factor: float = 1) -> tuple[str, ...]:
        return (title, *(format(factor * at[f"{side}/{name}"], form) for side in ("old", "new")))

    yield row("examples", "examples", ",.0f")
    if "old/tokens" in at:
        yield row("tokens unknown to the vocabulary %", "unknown", ".1f", 100)
        yield row("mean length in tokens", "tokens", ".1f")
    yield row("teacher's mean probability of its likeliest class", "confidence", ".3f")
    for name in found.run.splits.label_names[:MOST_CLASSES]:
        yield row(f"teacher's mean probability of {name}", f"mean of {name}", ".3f")


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
        yield from _as_table(("example", "label", "now"), rows)
        yield ""


def _as_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [head, tuple("---" for _ in head), *rows]
    return [f"| {' | '.join(_cell(text) for text in line)} |" for line in lines]


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
