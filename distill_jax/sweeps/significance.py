"""Tests of a table: every row against the baseline of its group, Holm-corrected over all."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal, TypeVar

import numpy as np

from distill_jax.core.errors import UserError
from distill_jax.sweeps.evidence import scores_by_example
from distill_jax.sweeps.ledger import LedgerRow
from distill_jax.sweeps.statistics import (
    MIN_PAIRS,
    PairedTest,
    holm,
    paired_bootstrap,
    paired_test,
)

if TYPE_CHECKING:
    from distill_jax.sweeps.table import Table, TableRow

Pairs = frozenset[tuple[str, str]]
T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class _Comparison:
    """A row against its baseline in one column; ``pairs`` are the runs compared, by hash."""

    line: int
    key: str
    pairs: Pairs
    test: PairedTest
    examples: PairedTest | None


def add_tests(table: "Table") -> list["TableRow"]:
    """The table's rows with tests filled in.

    A pair of runs that stands at several places of the table is one comparison: it counts once
    in the correction, and has the same p value wherever it stands.
    """
    baselines = baselines_of(table)
    made: list[_Comparison] = []
    examples: dict[tuple[str, Pairs], PairedTest | None] = {}
    for number, line in enumerate(table.rows):
        for key in table.tested:
            if obstacle(line, baselines, key) is not None:
                continue
            ours, theirs = line.entries[key].by_seed, baselines[line.group].entries[key].by_seed
            test = paired_test(ours, theirs)
            if test is None:
                continue
            pairs = _common_runs(line, baselines[line.group], key)
            hashes = frozenset((a.hash, b.hash) for a, b in pairs)
            if (key, hashes) not in examples:
                examples[key, hashes] = _over_examples(pairs, key)
            made.append(_Comparison(number, key, hashes, test, examples[key, hashes]))
    p_seeds = _corrected({(c.key, c.pairs): c.test.p for c in made})
    p_examples = _corrected({(c.key, c.pairs): c.examples.p for c in made if c.examples})
    rows = list(table.rows)
    for c in made:
        entry = dataclasses.replace(
            rows[c.line].entries[c.key],
            test=c.test,
            p_holm=p_seeds[c.key, c.pairs],
            examples=c.examples,
            p_holm_examples=p_examples[c.key, c.pairs] if c.examples else None,
        )
        entries = {**rows[c.line].entries, c.key: entry}
        rows[c.line] = dataclasses.replace(rows[c.line], entries=entries)
    return rows


def count_comparisons(table: "Table", test: Literal["test", "examples"]) -> int:
    """Over how many comparisons Holm's correction ran."""
    baselines = baselines_of(table)
    return len(
        {
            (key, frozenset((a.hash, b.hash) for a, b in _common_runs(line, base, key)))
            for line in table.rows
            if (base := baselines.get(line.group)) is not None
            for key in table.tested
            if getattr(line.entries[key], test) is not None
        }
    )


def baselines_of(table: "Table") -> dict[str, "TableRow"]:
    """Group -> its baseline."""
    return {line.group: line for line in table.rows if line.role == "baseline"}


def obstacle(
    line: "TableRow", baselines: Mapping[str, "TableRow"], key: str
) -> Literal["not compared", "few", "same", "diverged"] | None:
    """Why a row is not tested; None if it is."""
    if line.role != "compared":
        return "not compared"
    baseline = baselines.get(line.group)
    pairs = _common_runs(line, baseline, key) if baseline else []
    if baseline is None or len(pairs) < MIN_PAIRS:
        return "few"
    if all(a.hash == b.hash for a, b in pairs):
        return "same"
    scores = [(a.number(key), b.number(key)) for a, b in pairs]
    return None if np.isfinite(np.array(scores, dtype=np.float64)).all() else "diverged"


def _common_runs(
    line: "TableRow", baseline: "TableRow", key: str
) -> list[tuple[LedgerRow, LedgerRow]]:
    """The runs of both, by common seed, that have the metric."""
    ours, theirs = line.entries[key].by_seed, baseline.entries[key].by_seed
    return [(line.runs[seed], baseline.runs[seed]) for seed in ours if seed in theirs]


def _over_examples(pairs: Sequence[tuple[LedgerRow, LedgerRow]], key: str) -> PairedTest | None:
    """Bootstrap over test examples; an example's score is its mean over the seeds."""
    sides = [[scores_by_example(run, key) for run in runs] for runs in zip(*pairs, strict=True)]
    scores = [[scores_N for scores_N in side if scores_N is not None] for side in sides]
    if any(len(kept) < len(side) for kept, side in zip(scores, sides, strict=True)):
        return None
    sizes = {len(scores_N) for side in scores for scores_N in side}
    if len(sizes) > 1:
        ours, theirs = pairs[0]
        raise UserError(
            f"rows {ours.row!r} and {theirs.row!r} of {ours.group!r} cannot be compared by test "
            f"example: their runs were tested on {' and '.join(map(str, sorted(sizes)))} examples."
        )
    return paired_bootstrap(*(np.mean(np.array(side, np.float64), axis=0) for side in scores))


def _corrected(p_values: Mapping[T, float]) -> dict[T, float]:
    adjusted = holm(list(p_values.values()))
    return {key: p for key, p in zip(p_values, adjusted, strict=True) if p is not None}
