"""Builds a table from its description and its runs: means, spreads, paired tests, footnotes."""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean

from distill_jax.core.errors import UserError, unknown
from distill_jax.tables.columns import Column
from distill_jax.tables.ledger import LedgerRow
from distill_jax.tables.notes import notes_of
from distill_jax.tables.published import Published, load_published
from distill_jax.tables.significance import add_tests, compare_rows
from distill_jax.tables.spec import Place, TableSpec
from distill_jax.tables.statistics import summarise
from distill_jax.tables.table import Entry, Role, Table, TableRow

SELECT = "validation/accuracy"
"""By the mean of this over the seeds one of a row's candidates is chosen."""
Line = tuple[str, str]
"""(group, row)."""


def table_of(
    spec: TableSpec, rows: Sequence[LedgerRow], published: Published | None = None
) -> Table:
    """The table that ``spec`` describes, from the runs of a ledger.

    Within a group, every row is compared with the baseline row of that group: paired by seed, by
    test example, and by both at once where the runs kept what each example contributed. Holm's
    correction runs over all comparisons in the table, for each kind of test.

    Args:
      spec: what stands where; a row without runs is shown as missing.
      rows: of the ledger; of those with the same hash the last counts, and runs of other tables
        may be among them.
      published: numbers of a paper; None for those that ``spec.published`` names.

    Raises:
      UserError: no runs, no baseline anywhere, an unknown tested key, or two different runs that
        claim the same place and seed.
    """
    places, choices = _chosen(spec, rows)
    teachers, yardsticks = _told_apart(spec.teachers), _told_apart(spec.yardsticks)
    runs = place_rows([*teachers, *yardsticks, *places], rows)
    if not runs:
        raise UserError("no results to tabulate: the ledger has no finished run of this table.")
    columns = _known_columns(spec, runs)
    lines = [
        *_gather("teacher", _lines(teachers), place_rows(teachers, rows), columns),
        *_gather("yardstick", _lines(yardsticks), place_rows(yardsticks, rows), columns),
        *_students(spec, place_rows(places, rows), columns),
    ]
    if published is None and spec.published is not None:
        published = load_published(spec.published)
    finished = {row.hash for row in rows}
    missing = sum(hash not in finished for hash in spec.hashes)
    table = Table(spec, columns, tuple(lines), (missing, len(spec.hashes)), published)
    comparisons = tuple(compare_rows(table))
    tested = tuple(add_tests(table, comparisons))
    table = dataclasses.replace(table, rows=tested, comparisons=comparisons)
    return dataclasses.replace(table, notes=(*notes_of(table), *choices))


def place_rows(places: Iterable[Place], rows: Iterable[LedgerRow]) -> list[LedgerRow]:
    """Runs under the labels of the places where they stand, in the order of the places.

    Args:
      places: one run may stand at several.
      rows: of the ledger, in any order; a place whose run is not among them is left out.
    """
    by_hash = {row.hash: row for row in rows}
    return [
        dataclasses.replace(by_hash[place.hash], row=place.row, group=place.group, seed=place.seed)
        for place in places
        if place.hash in by_hash
    ]


def _students(
    spec: TableSpec, runs: Sequence[LedgerRow], columns: Sequence[Column]
) -> list[TableRow]:
    """The baselines and what stands against them; groups stay together."""
    lines = _lines(spec.places)
    if lines and spec.baseline not in {row for _, row in lines}:
        raise unknown("baseline row", spec.baseline, {row for _, row in lines})
    groups = list(dict.fromkeys(group for group, _ in lines))
    lines.sort(key=lambda line: groups.index(line[0]))
    return [
        dataclasses.replace(row, role="baseline") if row.row == spec.baseline else row
        for row in _gather("compared", lines, runs, columns)
    ]


def _lines(places: Iterable[Place]) -> list[Line]:
    return list(dict.fromkeys((place.group, place.row) for place in places))


def _gather(
    role: Role, lines: Sequence[Line], runs: Iterable[LedgerRow], columns: Sequence[Column]
) -> list[TableRow]:
    """The runs of each line by seed, and their numbers."""
    by_line: dict[Line, dict[int, LedgerRow]] = {line: {} for line in lines}
    for run in runs:
        seeds = by_line[run.group, run.row]
        if seeds.setdefault(run.seed, run).hash != run.hash:
            raise UserError(
                f"two different runs ({seeds[run.seed].hash}, {run.hash}) claim row {run.row!r} "
                f"of {run.group!r}, seed {run.seed}: their configurations differ. Tabulate one "
                "experiment and one setting at a time."
            )
    by_seed = {line: dict(sorted(found.items())) for line, found in by_line.items()}
    return [
        TableRow(*line, role, found, _entries(found, columns)) for line, found in by_seed.items()
    ]


def _entries(runs: Mapping[int, LedgerRow], columns: Sequence[Column]) -> dict[str, Entry]:
    entries = {}
    for column in columns:
        numbers = {seed: run.number(column.key) for seed, run in runs.items()}
        scores = {seed: float(value) for seed, value in numbers.items() if value is not None}
        entries[column.key] = Entry(scores, summarise(list(scores.values())))
    return entries


def _chosen(spec: TableSpec, rows: Sequence[LedgerRow]) -> tuple[list[Place], list[str]]:
    """The places, of a row's candidates those of the best on validation; and notes that say so.

    The test split has no say. Nothing is chosen before every candidate's runs are finished.
    """
    by_hash = {row.hash: row for row in rows}
    settings: dict[tuple[str, str], dict[str, list[Place]]] = {}
    for place in spec.places:
        if place.candidate:
            candidates = settings.setdefault((place.group, place.row), {})
            candidates.setdefault(place.candidate, []).append(place)
    places = [place for place in spec.places if not place.candidate]
    notes = []
    for (group, row), candidates in settings.items():
        title = f"{group} `{row}`"
        runs = [place.hash for own in candidates.values() for place in own]
        if not all(hash in by_hash for hash in runs):
            notes.append(f"{title}: not chosen yet, the runs of its settings are not finished.")
            continue
        means = {
            name: fmean(_selected(by_hash[place.hash]) for place in own)
            for name, own in candidates.items()
        }
        finite = [name for name, mean in means.items() if math.isfinite(mean)]
        if not finite:
            notes.append(f"{title}: nothing chosen, no setting has a finite {SELECT}.")
            continue
        best = max(finite, key=means.__getitem__)
        places += candidates[best]
        tried = "; ".join(f"{name}: {100 * mean:.1f}" for name, mean in means.items())
        notes.append(
            f"{title} is {best}: of {len(means)} settings the best by mean {SELECT}, "
            f"{100 * means[best]:.1f}%. All settings, in %: {tried}."
        )
    return places, notes


def _selected(run: LedgerRow) -> float:
    number = run.number(SELECT)
    return math.nan if number is None else float(number)


def _known_columns(spec: TableSpec, runs: Sequence[LedgerRow]) -> tuple[Column, ...]:
    """The columns that some run has a number for; the first, and what is tested, always."""
    keys = [column.key for column in spec.columns]
    for key in spec.tested:
        if key not in keys:
            raise unknown("tested column", key, keys)
    kept = {keys[0], *spec.tested}
    return tuple(
        column
        for column in spec.columns
        if column.key in kept or any(run.number(column.key) is not None for run in runs)
    )


def _told_apart(places: Sequence[Place]) -> list[Place]:
    """Several of one row, group and seed are no replicates: each gets a row of its own."""
    apart: list[Place] = []
    counts: dict[tuple[str, str, int], int] = {}
    for place in places:
        where = (place.row, place.group, place.seed)
        counts[where] = counts.get(where, 0) + 1
        suffix = f" {counts[where]}" if counts[where] > 1 else ""
        apart.append(dataclasses.replace(place, row=place.row + suffix))
    return apart
