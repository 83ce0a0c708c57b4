"""What the reader must know to read a table rightly."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from distill_jax.sweeps.columns import ACCURACY
from distill_jax.sweeps.identical import notes_of_identical
from distill_jax.sweeps.published_notes import notes_of_published
from distill_jax.sweeps.significance import baselines_of, count_comparisons, obstacle
from distill_jax.sweeps.statistics import MIN_PAIRS, RESAMPLES

if TYPE_CHECKING:
    from distill_jax.sweeps.table import Table, TableRow


def notes_of(table: "Table", unfinished: tuple[int, int]) -> tuple[str, ...]:
    """Footnotes; labels stand between backticks."""
    notes = []
    missing, planned = unfinished
    if missing:
        notes.append(f"{missing} of {planned} runs are not finished.")
    if any(len(row.seeds) > 1 for row in table.students):
        counts = [len(row.seeds) for row in table.students if row.seeds]
        notes.append(f"Mean ± standard deviation over {_count(counts, 'seed')}.")
    elif any(row.seeds for row in table.students):
        notes.append("One seed: no spread.")
    notes += _tests(table)
    for key in table.tested:
        notes += [f"{table.column(key).title}: {note}" for note in _untested(table, key)]
    notes += notes_of_identical(table)
    notes += notes_of_published(table)
    return tuple(notes)


def _tests(table: "Table") -> list[str]:
    """What each test asks, and what bold means."""
    entries = [(key, row.entries[key]) for row in table.rows for key in table.tested]
    seeds = [(key, entry.test) for key, entry in entries if entry.test]
    examples = [(key, entry.examples) for key, entry in entries if entry.examples]
    if not seeds:
        return []
    titles = dict.fromkeys(table.column(key).title for key, _ in seeds)
    pairs = _count([test.n for _, test in seeds], "seed")
    notes = [
        f"p seeds: {', '.join(titles)} against `{table.baseline}` of the same "
        f"{table.group_title}, two-sided t-test paired over {pairs}, Holm-corrected over "
        f"{_count([count_comparisons(table, 'test')], 'comparison')}. It asks whether training "
        "again, with other seeds, would show the same sign on these test examples."
    ]
    if examples:
        keys = dict.fromkeys(key for key, _ in examples)
        score = "mean correctness" if set(keys) == {ACCURACY.key} else "mean"
        notes.append(
            f"p examples: {', '.join(table.column(key).title for key in keys)} against the same "
            f"baseline, two-sided paired bootstrap over "
            f"{_count([test.n for _, test in examples], 'test example')} "
            f"({RESAMPLES:,} resamples; an example's score is its {score} over the seeds "
            "that both rows have), Holm-corrected over "
            f"{_count([count_comparisons(table, 'examples')], 'comparison')}. It asks whether "
            "other test examples would show the same sign with these trained models."
        )
        if table.layout == "metrics":
            notes.append(
                "Δ: difference to the baseline, with its 95% percentile interval over test "
                "examples (not corrected)."
            )
    where = ["Every test in numbers is in table.csv."] if table.layout == "grid" else []
    return [*notes, _bold(table), *where]


def _bold(table: "Table") -> str:
    tested = [(row, key) for row in table.rows for key in table.tested if row.entries[key].test]
    without = [(row, key) for row, key in tested if row.entries[key].examples is None]
    if not without:
        return "Bold: better than the baseline at 5% in both tests."
    if len(without) == len(tested):
        return (
            "Bold: better than the baseline at 5% over seeds. There is no test over examples: "
            "the runs did not keep which examples they had right."
        )
    by_example = {key for row, key in tested if row.entries[key].examples}
    rows = [row for row, key in without if key in by_example]
    others = dict.fromkeys(table.column(key).title for _, key in without if key not in by_example)
    which = [f"of {_names(rows)}"] if rows else []
    which += [f"in {', '.join(others)}"] if others else []
    return (
        "Bold: better than the baseline at 5% in both tests; "
        f"{' and '.join(which)} over seeds alone, where there is no test over examples."
    )


def _untested(table: "Table", key: str) -> list[str]:
    """Why some rows have no test."""
    baselines = baselines_of(table)
    why: dict[str | None, list[TableRow]] = {}
    for row in table.rows:
        why.setdefault(obstacle(row, baselines, key), []).append(row)
    compared = sum(row.role == "compared" for row in table.rows)
    few, notes = why.get("few", []), []
    if few and len(few) == compared:
        notes.append(f"no test: fewer than {MIN_PAIRS} seeds.")
    elif few:
        notes.append(
            f"no test: fewer than {MIN_PAIRS} seeds in common with the baseline: {_names(few)}."
        )
    if "same" in why:
        notes.append(f"no test: the baseline's own runs: {_names(why['same'])}.")
    if "diverged" in why:
        notes.append(f"no test: a score is not a finite number: {_names(why['diverged'])}.")
    return notes


def _names(rows: Sequence["TableRow"]) -> str:
    return ", ".join(f"{row.group} `{row.row}`" for row in rows)


def _count(numbers: Sequence[int], noun: str) -> str:
    """``3 seeds``, ``1 seed`` or ``2 to 5 seeds``."""
    low, high = min(numbers), max(numbers)
    plural = "" if high == 1 else "s"
    return f"{low:,} {noun}{plural}" if low == high else f"{low:,} to {high:,} {noun}{plural}"
