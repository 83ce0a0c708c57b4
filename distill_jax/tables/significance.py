"""Tests of a table: every row against the baseline of its group, or every pair of a group.

Each comparison is tested three times: over seeds, over test examples, and over both at once.
Holm's correction runs over all comparisons of the table, for each kind of test.
"""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from distill_jax.core.errors import UserError
from distill_jax.tables.evidence import scores_by_example, weights_by_example
from distill_jax.tables.ledger import LedgerRow
from distill_jax.tables.letters import letters_of
from distill_jax.tables.statistics import (
    MIN_PAIRS,
    MeanSquares,
    crossed_tests,
    holm,
    mean_squares,
    paired_bootstrap,
    paired_test,
)
from distill_jax.tables.table import KINDS, Comparison, Runs, Table, TableRow, Tests


def compare_rows(table: Table) -> list[Comparison]:
    """Every comparison that the table calls for and that can be made, corrected.

    A pair of runs that stands at several places of the table is one comparison: it counts once
    in the correction, and has the same p values wherever it stands.
    """
    made: dict[tuple[str, Runs], Tests] = {}
    squares: dict[tuple[str, str], dict[tuple[str, Runs], MeanSquares]] = {}
    found = []
    for key, (number, other) in itertools.product(table.spec.tested, _pairs(table)):
        line, against = table.rows[number], table.rows[other]
        if obstacle(line, against, key) is not None:
            continue
        pairs = _common_runs(line, against, key)
        runs = frozenset((a.hash, b.hash) for a, b in pairs)
        if (key, runs) not in made:
            tests, layout = _test(pairs, key)
            if tests is None:
                continue
            made[key, runs] = tests
            if layout is not None:
                squares.setdefault((key, line.group), {})[key, runs] = layout
        found.append((key, number, other, runs))
    for family in squares.values():
        for where, joint in zip(family, crossed_tests(list(family.values())), strict=True):
            made[where] = dataclasses.replace(made[where], joint=joint)
    corrected = _corrected(made)
    return [Comparison(*place, corrected[place[0], place[-1]]) for place in found]


def add_tests(table: Table, comparisons: Sequence[Comparison]) -> list[TableRow]:
    """The table's rows with their tests filled in, and letters where every pair was tested."""
    tests: dict[tuple[str, int, int], Tests] = {}
    for c in comparisons:
        tests[c.key, c.line, c.other] = c.tests
        tests[c.key, c.other, c.line] = c.tests.reversed()
    rows = list(table.rows)
    for key in table.spec.tested:
        for number, line in enumerate(table.rows):
            other = reference(table, line, key)
            found = tests.get((key, number, table.rows.index(other))) if other else None
            entry = dataclasses.replace(line.entries[key], tests=found)
            rows[number] = dataclasses.replace(
                rows[number], entries={**rows[number].entries, key: entry}
            )
        if table.spec.against == "best":
            _add_letters(table, key, tests, rows)
    return rows


def reference(table: Table, line: TableRow, key: str) -> TableRow | None:
    """The row that a row's tests are against; None where there is none, or it is that itself."""
    if not line.is_student:
        return None
    if table.spec.against == "baseline":
        baselines = {row.group: row for row in table.rows if row.role == "baseline"}
        return baselines.get(line.group) if line.role == "compared" else None
    best = best_of_group(table, line.group, key)
    return None if best is line else best


def best_of_group(table: Table, group: str, key: str) -> TableRow | None:
    """The row with the best mean; None where no direction is better, or no mean is finite."""
    better = table.column(key).higher_is_better
    rows = [row for row in table.groups[group] if np.isfinite(row.entries[key].summary.mean)]
    if better is None or not rows:
        return None
    return (max if better else min)(rows, key=lambda row: row.entries[key].summary.mean)


def obstacle(
    line: TableRow, other: TableRow | None, key: str
) -> Literal["few", "same", "diverged"] | None:
    """Why two rows are not tested; None if they are."""
    pairs = _common_runs(line, other, key) if other else []
    if other is None or len(pairs) < MIN_PAIRS:
        return "few"
    if all(a.hash == b.hash for a, b in pairs):
        return "same"
    scores = [(a.number(key), b.number(key)) for a, b in pairs]
    return None if np.isfinite(np.array(scores, dtype=np.float64)).all() else "diverged"


def _pairs(table: Table) -> list[tuple[int, int]]:
    """Numbers of the lines to compare."""
    numbered = [(n, row) for n, row in enumerate(table.rows) if row.is_student]
    if table.spec.against == "best":
        pairs = itertools.combinations(numbered, 2)
        return [(n, m) for (n, row), (m, other) in pairs if row.group == other.group]
    baselines = {row.group: n for n, row in numbered if row.role == "baseline"}
    compared = [(n, row.group) for n, row in numbered if row.role == "compared"]
    return [(n, baselines[group]) for n, group in compared if group in baselines]


def _common_runs(line: TableRow, other: TableRow, key: str) -> list[tuple[LedgerRow, LedgerRow]]:
    """The runs of both, by common seed, that have the metric."""
    ours, theirs = line.entries[key].by_seed, other.entries[key].by_seed
    return [(line.runs[seed], other.runs[seed]) for seed in ours if seed in theirs]


def _test(
    pairs: Sequence[tuple[LedgerRow, LedgerRow]], key: str
) -> tuple[Tests | None, MeanSquares | None]:
    """Two tests of one comparison, uncorrected, and what the joint one is made of."""
    ours, theirs = (
        {seed: float(run.number(key) or 0.0) for seed, run in enumerate(runs)}
        for runs in zip(*pairs, strict=True)
    )
    seeds = paired_test(ours, theirs)
    if seeds is None:
        return None, None
    scores = [[scores_by_example(run, key) for run in runs] for runs in zip(*pairs, strict=True)]
    kept = [[scores_N for scores_N in side if scores_N is not None] for side in scores]
    if any(len(side) < len(pairs) for side in kept):
        return Tests(seeds), None
    sizes = {len(scores_N) for side in kept for scores_N in side}
    if len(sizes) > 1:
        first, second = pairs[0]
        raise UserError(
            f"rows {first.row!r} and {second.row!r} of {first.group!r} cannot be compared by test "
            f"example: their runs were tested on {' and '.join(map(str, sorted(sizes)))} examples."
        )
    a_SN, b_SN = (np.array(side, np.float64) for side in kept)
    weights_N = weights_by_example(pairs[0][0], key)
    examples = paired_bootstrap(a_SN.mean(axis=0), b_SN.mean(axis=0), weights_N)
    return Tests(seeds, examples), mean_squares(a_SN - b_SN, weights_N)


def _corrected(made: Mapping[tuple[str, Runs], Tests]) -> dict[tuple[str, Runs], Tests]:
    """Holm's correction over all comparisons, for each kind of test by itself."""
    corrected = dict(made)
    for kind in KINDS:
        tests = {where: getattr(found, kind) for where, found in made.items()}
        adjusted = holm([test.p if test else None for test in tests.values()])
        for where, p in zip(tests, adjusted, strict=True):
            if p is not None:
                changes: dict[str, Any] = {f"p_{kind}": p}
                corrected[where] = dataclasses.replace(corrected[where], **changes)
    return corrected


def _add_letters(
    table: Table, key: str, tests: Mapping[tuple[str, int, int], Tests], rows: list[TableRow]
) -> None:
    """Letters for each group: rows without a common letter differ."""
    for group in table.groups:
        best = best_of_group(table, group, key)
        mine = [n for n, row in enumerate(table.rows) if row in table.groups[group]]
        tested = [n for n in mine if any((key, n, m) in tests for m in mine)]
        if best is None or not tested:
            continue
        sign = -1 if table.column(key).higher_is_better else 1
        tested.sort(key=lambda n: sign * table.rows[n].entries[key].summary.mean)
        differ = {
            (n, m)
            for n, m in itertools.combinations(tested, 2)
            if (key, n, m) in tests and tests[key, n, m].different
        }
        letters = letters_of(tested, differ)
        for n in tested:
            entry = dataclasses.replace(rows[n].entries[key], letters=letters[n])
            rows[n] = dataclasses.replace(rows[n], entries={**rows[n].entries, key: entry})
