"""What became of a recommender's update: old and new scores, what was forgotten, how far the new
interactions are from the old."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from distill_jax.tables.markdown import escape, plain_table
from distill_jax.tables.pages import write_page
from distill_jax.tasks.recommendation.updating import Updated

REPORT = "update.md"
TESTS = ("old", "new")
SCORES = {"ndcg@10": "NDCG@10", "hr@10": "HR@10"}
HEAD = ("test", "score", "before", "after", "gain", "forgotten", "learnt", "p")
EXPLAINED = """
Means over users, each of whom counts once; *gain* with the interval of the paired bootstrap over
users. *forgotten*: cases whose item was among the first ten before and is not now, *learnt*: the
other way round, *p*: McNemar's exact test of the two counts, where each user has one case. One
seed: they say nothing of another training.
"""


def write_report(found: Updated, folder: Path) -> list[Path]:
    """Write ``update.md`` and ``update.json``; returns their paths."""
    return write_page(folder / REPORT, to_markdown(found), to_data(found))


def to_data(found: Updated) -> dict[str, Any]:
    """The same as plain JSON; NaN becomes null."""
    numbers = {"metrics": found.metrics, "distances": found.distances}
    return {
        "run": found.run.row.hash,
        "data": found.new.data,
        "folder": str(found.folder),
        **{
            name: {key: x if math.isfinite(x) else None for key, x in some.items()}
            for name, some in numbers.items()
        },
        "notes": list(found.notes),
    }


def to_markdown(found: Updated) -> str:
    """Scores, distances, notes, and where the model is."""
    cell, at = found.run.cell, found.distances
    return "\n".join(
        [
            f"# Updated: {cell.setup.model.name}, {cell.hash}, with {escape(found.new.data)}",
            "",
            *plain_table(HEAD, score_rows(found)),
            EXPLAINED,
            "Cases: {old/tested:,.0f} of the old test, {new/tested:,.0f} of the new.".format_map(
                found.metrics
            ),
            "",
            *_teacher(found),
            "## How far the new interactions are from the old",
            "",
            *plain_table(("", "old", "new"), list(_distances(found))),
            "",
            f"Half the sum of the differences of the items' shares of all interactions: "
            f"{at['drift']:.3f} (0: the same popularity, 1: other items altogether); of a random "
            f"part of the old against the rest {at['drift/by chance']:.3f}.",
            "",
            f"Model: `{found.model}`",
            "",
            "Notes:",
            *(f"- {escape(note)}" for note in found.notes),
            "",
        ]
    )


def score_rows(found: Updated) -> list[tuple[str, ...]]:
    """Two rows for the old test, and two for the new."""
    at, rows = found.metrics, []
    for test in TESTS:
        p = at.get(f"{test}/forgotten_p")
        changed = (
            *(f"{int(at[f'{test}/{what}']):,}" for what in ("forgotten", "learnt")),
            "" if p is None else "<0.001" if p < 0.001 else f"{p:.3f}",
        )
        for score, title in SCORES.items():
            name = f"{test}_{score}"
            scores = (f"{at[f'{when}/{name}']:.4f}" for when in ("before", "test"))
            of_hits = changed if score == "hr@10" else ("", "", "")
            rows.append((test, title, *scores, _gain(found, name), *of_hits))
    return rows


def _gain(found: Updated, name: str) -> str:
    at = found.metrics
    if f"{name}/gain" not in at:
        return ""
    gain, low, high = (at[f"{name}/{which}"] for which in ("gain", "gain_low", "gain_high"))
    return f"{gain:+.4f} [{low:+.4f}, {high:+.4f}]"


def _teacher(found: Updated) -> Iterator[str]:
    """A line on the teacher, where somebody listens to it."""
    at = found.metrics
    said = []
    for test in TESTS:
        name = f"teacher/{test}_ndcg@10"
        if f"{name}/after" in at:
            taught = found.new.teacher_too
            then = f" (before: {at[f'{name}/before']:.4f})" if taught else ""
            said.append(f"{at[f'{name}/after']:.4f} on the {test} test{then}")
    if said:
        yield f"The teacher's NDCG@10 is {' and '.join(said)}."
        yield ""


def _distances(found: Updated) -> Iterator[tuple[str, ...]]:
    at = found.distances
    for name in ("interactions", "users", "items"):
        yield name, *(f"{at[f'{side}/{name}']:,.0f}" for side in TESTS)
    for name, which in (("users", "unknown_users"), ("items", "unknown_items")):
        yield f"{name} that the old do not have %", "", f"{100 * at[f'names/{which}']:.1f}"
        yield f"interactions with such {name} %", "", f"{100 * at[which]:.1f}"
