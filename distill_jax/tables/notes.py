"""What the reader must know to read a table rightly."""

import statistics
from collections.abc import Sequence

from distill_jax.tables.cautions import (
    notes_of_coverage,
    notes_of_identical,
    notes_of_teachers,
    notes_of_yardsticks,
)
from distill_jax.tables.published import Number
from distill_jax.tables.significance import obstacle, reference
from distill_jax.tables.statistics import MIN_BOOTSTRAP, MIN_PAIRS, RESAMPLES
from distill_jax.tables.table import Comparison, Table, TableRow


def notes_of(table: Table) -> tuple[str, ...]:
    """Footnotes; labels stand between backticks."""
    notes = []
    missing, planned = table.unfinished
    if missing:
        notes.append(f"{missing} of {planned} runs are not finished.")
    if any(len(row.seeds) > 1 for row in table.students):
        counts = [len(row.seeds) for row in table.students if row.seeds]
        notes.append(f"Mean ± standard deviation over {_count(counts, 'seed')}.")
    elif any(row.seeds for row in table.students):
        notes.append("One seed: no spread.")
    notes += _tests(table)
    for key in table.spec.tested:
        notes += [f"{table.column(key).title}: {note}" for note in _untested(table, key)]
    notes += notes_of_identical(table)
    notes += _published(table)
    notes += notes_of_coverage(table)
    notes += notes_of_teachers(table)
    notes += notes_of_yardsticks(table)
    return tuple(notes)


def _tests(table: Table) -> list[str]:
    """What each test asks, and what bold means."""
    made = table.comparisons
    if not made:
        return []
    titles = _titles(table, [c.key for c in made])
    pairs = _count([c.tests.seeds.n for c in made], "seed")
    against = f"against `{table.spec.baseline}` of the same {table.spec.group_title}"
    if table.spec.against == "best":
        against = f"against the best row of the same {table.spec.group_title}"
    joint = [c for c in made if c.tests.joint]
    notes = []
    if joint:
        examples = _count([c.tests.joint.examples for c in joint if c.tests.joint], "test example")
        notes.append(
            f"p: {_titles(table, [c.key for c in joint])} {against}, two-sided t-test over "
            f"{_count([c.tests.seeds.n for c in joint], 'seed')} and {examples} at once, both "
            f"random, {_holm(joint)}. It asks whether other seeds and other test examples would "
            "show the same sign."
        )
    notes.append(
        f"p seeds: {titles} {against}, two-sided t-test paired over {pairs}, {_holm(made)}. It "
        "asks whether training again would show the same sign on these test examples."
    )
    if joint:
        notes.append(
            f"p examples: the same over test examples, {_resampling(table)}, {_holm(joint)}. It "
            "asks whether other test examples would show the same sign with these trained models."
        )
        if table.spec.layout == "metrics":
            notes.append("Δ: the difference, with its 95% interval by p's test (not corrected).")
    where = ["Every test in numbers is in table.csv."] if table.spec.layout == "grid" else []
    return [*notes, _bold(table, joint), *_detectable(table), *where]


def _titles(table: Table, keys: Sequence[str]) -> str:
    return ", ".join(table.column(key).title for key in dict.fromkeys(keys))


def _holm(made: Sequence[Comparison]) -> str:
    """Over how many comparisons the correction ran; one of the same runs counts once."""
    return f"Holm-corrected over {_count([len({(c.key, c.runs) for c in made})], 'comparison')}"


def _resampling(table: Table) -> str:
    sizes = [c.tests.examples.n for c in table.comparisons if c.tests.examples]
    few, many = min(sizes) < MIN_BOOTSTRAP, max(sizes) >= MIN_BOOTSTRAP
    names = ["sign flips"] * few + ["bootstrap"] * many
    return f"two-sided paired {' or '.join(names)} ({RESAMPLES:,} resamples)"


def _bold(table: Table, joint: Sequence[Comparison]) -> str:
    without = [c for c in table.comparisons if not c.tests.joint]
    if table.spec.against == "best":
        return (
            f"All pairs of a {table.spec.group_title} are tested; rows without a common letter "
            "differ at 5% by p's test. Bold: not worse than the best row by it."
        )
    if not joint:
        return (
            "Nothing is bold: the runs did not keep what each test example contributed, so that "
            "nothing is known about other test examples."
        )
    note = "Bold: better than the baseline at 5% by p's test."
    if without:
        by_example = {c.key for c in joint}
        rows = [table.rows[c.line] for c in without if c.key in by_example]
        keys = [c.key for c in without if c.key not in by_example]
        which = [_names(rows)] if rows else []
        which += [_titles(table, keys)] if keys else []
        note += (
            f" Never bold: {' and '.join(which)}, for want of what each test example contributed."
        )
    return note


def _detectable(table: Table) -> list[str]:
    """The smallest differences that the table could have found."""
    notes = []
    comparisons = len({(c.key, c.runs) for c in table.comparisons if c.tests.joint})
    for key in table.spec.tested:
        tests = [c.tests.joint for c in table.comparisons if c.key == key and c.tests.joint]
        if tests:
            column = table.column(key)
            found = [test.detectable(comparisons) * column.scale for test in tests]
            usual, most = (
                f"{x:.{column.decimals}f}" for x in (statistics.median(found), max(found))
            )
            notes.append(
                f"{column.title}: a true difference of {usual} would be significant in four of "
                f"five such tables (in the median comparison; in the noisiest one, {most})."
            )
    return notes


def _untested(table: Table, key: str) -> list[str]:
    """Why some rows have no test."""
    why: dict[str | None, list[TableRow]] = {}
    for row in table.rows:
        other = reference(table, row, key)
        if other is not None or (row.role == "compared" and table.spec.against == "baseline"):
            why.setdefault(obstacle(row, other, key), []).append(row)
    compared = sum(map(len, why.values()))
    few, notes = why.get("few", []), []
    whom = "the baseline" if table.spec.against == "baseline" else "the best row"
    if few and len(few) == compared:
        notes.append(f"no test: fewer than {MIN_PAIRS} seeds.")
    elif few:
        notes.append(f"no test: fewer than {MIN_PAIRS} seeds in common with {whom}: {_names(few)}.")
    if "same" in why:
        notes.append(f"no test: {whom}'s own runs: {_names(why['same'])}.")
    if "diverged" in why:
        notes.append(f"no test: a score is not a finite number: {_names(why['diverged'])}.")
    return notes


def _names(rows: Sequence[TableRow]) -> str:
    return ", ".join(f"{row.group} `{row.row}`" for row in rows)


def _count(numbers: Sequence[int], noun: str) -> str:
    """``3 seeds``, ``1 seed`` or ``2 to 5 seeds``."""
    low, high = min(numbers), max(numbers)
    plural = "" if high == 1 else "s"
    return f"{low:,} {noun}{plural}" if low == high else f"{low:,} to {high:,} {noun}{plural}"


def _published(table: Table) -> list[str]:
    """Footnotes: whose numbers they are, which row is which, and each remark with its number.

    Remarks on rows of the table come first, under the name that the row has here.
    """
    published = table.published
    if published is None:
        return []
    first = (
        f"{published.title}: as published ({published.source}), not measured here and in no test."
    )
    if renamed := [f"`{here}` is {there}" for here, there in table.spec.published_rows]:
        first += f" There, {', '.join(renamed)}."
    here_by_there = {there: here for here, there in table.spec.published_rows}
    here_by_there |= {row.row: row.row for row in table.students}
    remarks = [
        (number.row not in here_by_there, _remark(number, here_by_there.get(number.row)))
        for number in published.numbers
        if number.remark
    ]
    told = [text for _, text in sorted(remarks, key=lambda each: each[0])]
    return [first, *(f"{published.title}: {text}" for text in (*published.remarks, *told))]


def _remark(number: Number, here: str | None) -> str:
    name = number.row if here in (None, number.row) else f"`{here}`, there {number.row}"
    return f"{name} ({number.column}), {number.value}: {number.remark}"
