"""Ledgers of many machines joined into one. Importing this imports no JAX."""

import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from distill_jax.core.errors import UserError
from distill_jax.core.files import write_atomic
from distill_jax.engine.parts import Part, ledgers_in
from distill_jax.tables.ledger import Ledger, LedgerRow
from distill_jax.tables.outputs import SPEC
from distill_jax.tables.spec import TableSpec

Prefer = Literal["refuse", "newest", "first"]
_TIMES = "latency/"
"""Metrics under this are times: they differ from machine to machine."""


@dataclass(frozen=True)
class Merged:
    """What a merge did.

    Attributes:
      ledger: the file that has all rows now.
      added: rows that it did not have before.
      known: rows of the sources that it had, or that another source gave too.
      notes: for people, a line each.
    """

    ledger: Path
    added: int
    known: int
    notes: tuple[str, ...]


def merge_ledgers(sources: Sequence[Path], into: Path, *, prefer: Prefer = "refuse") -> Merged:
    """Add the rows of many ledgers to the ledger of one folder, one row a hash.

    Rows that are there stay as they are, new ones follow; the file is replaced whole. Doing it
    again changes nothing. ``table.json`` is kept where all that were found agree.

    Args:
      sources: ledgers, or folders: theirs and their parts' (``ledger-I-of-N.jsonl``).
      into: a folder, which may be among the sources.
      prefer: what to do about one hash with different results: refuse, take the one finished
        last, or the first found (the folder's own, then in the order of the sources).

    Raises:
      UserError: when a source is damaged (with file and line) or missing, when results differ,
        or when the same place of a table is another run in another ``table.json``. Nothing is
        written then.
    """
    if into.exists() and not into.is_dir():
        raise UserError(f"--into {into} is a file; a folder is wanted")
    target = into / Part().ledger
    paths = [path for path in _ledgers(sources) if path.resolve() != target.resolve()]
    found, notes = _read(paths)
    spec, said = _common_spec(into, [path.parent for path in paths])
    notes += said
    counts = {"added": 0, "known": 0}

    def choose(own: list[LedgerRow]) -> list[LedgerRow]:
        there = {row.hash: row for row in own}
        chosen = {hash: (row, target) for hash, row in there.items()}
        for path, rows in found:
            for row in rows:
                _offer(chosen, row, path, prefer)
        new = [row for row, _ in chosen.values() if there.get(row.hash) is not row]
        counts["added"] = len(new)
        counts["known"] = sum(len(rows) for _, rows in found) - len(new)
        return new

    Ledger(target).extend(choose)
    if spec is not None:
        write_atomic(into / SPEC, spec.to_json() + "\n")
    return Merged(target, counts["added"], counts["known"], tuple(notes))


def rows_in(folder: Path) -> dict[str, LedgerRow]:
    """The runs in all ledgers of a folder, the whole table's and its parts', by hash."""
    return {row.hash: row for path in ledgers_in(folder) for row in Ledger(path).rows()}


def check_merged(folder: Path) -> None:
    """Raises ``UserError`` where a part's ledger has runs that the whole table's lacks."""
    missing = rows_in(folder).keys() - Ledger(folder / Part().ledger).finished_hashes()
    if missing:
        raise UserError(
            f"{len(missing)} finished runs are in ledgers of parts in {folder}, not in "
            f"{Part().ledger}; merge them first: distill-jax ledger merge {folder} --into {folder}"
        )


def results_of(row: LedgerRow) -> dict[str, Any]:
    """What a run has to reproduce, on whatever machine: everything measured but times."""
    metrics = {k: v for k, v in row.metrics.items() if not k.startswith(_TIMES)}
    return {
        **metrics,
        "selected_step": row.selected_step,
        "test_correct": row.test_correct,
        **{f"test_scores/{name}": packed for name, packed in row.test_scores.items()},
        "history": [dict(point) for point in row.history],
    }


def difference(one: Mapping[str, Any], other: Mapping[str, Any]) -> str | None:
    """The first key under which two results differ, with both values; None when none does."""
    for key in dict.fromkeys([*one, *other]):
        mine, theirs = one.get(key), other.get(key)
        if not _equal(mine, theirs):
            return f"{key} is {_short(mine)} and {_short(theirs)}"
    return None


def _offer(
    chosen: dict[str, tuple[LedgerRow, Path]], row: LedgerRow, path: Path, prefer: Prefer
) -> None:
    """Take a row of a ledger among those chosen, one a hash, or leave it.

    Raises:
      UserError: when it has other results than the one there is, unless one is preferred.
    """
    kept, kept_path = chosen.setdefault(row.hash, (row, path))
    differs = difference(results_of(kept), results_of(row))
    if differs is None:
        return
    if prefer == "refuse":
        raise UserError(
            f"run {row.hash} ({row.group}, {row.row}, seed {row.seed}) came out differently: "
            f"{differs}, in {kept_path} and {path}; nothing was written. Choose with --prefer "
            "newest or --prefer first"
        )
    if prefer == "newest" and row.finished_at > kept.finished_at:
        chosen[row.hash] = (row, path)


def _ledgers(sources: Iterable[Path]) -> list[Path]:
    """The files behind files and folders, each once."""
    paths: dict[Path, Path] = {}
    for source in sources:
        files = ledgers_in(source) if source.is_dir() else [source]
        if not files or not all(path.is_file() for path in files):
            raise UserError(f"no ledger at {source}")
        for path in files:
            paths.setdefault(path.resolve(), path)
    return list(paths.values())


def _read(paths: Sequence[Path]) -> tuple[list[tuple[Path, list[LedgerRow]]], list[str]]:
    """All rows of all ledgers, and what was left out; every damaged ledger is named."""
    found, damaged = [], []
    with warnings.catch_warnings(record=True) as left_out:
        warnings.simplefilter("always")
        for path in paths:
            try:
                found.append((path, Ledger(path).rows()))
            except UserError as error:
                damaged.append(str(error))
    if damaged:
        raise UserError(" ".join(damaged))
    return found, [str(warning.message) for warning in left_out]


def _common_spec(into: Path, folders: Sequence[Path]) -> tuple[TableSpec | None, list[str]]:
    """The description of the table to write, if any, and what has to be said about it.

    Raises:
      UserError: when two descriptions disagree about which run stands at a place.
    """
    specs: dict[Path, TableSpec] = {}
    for folder in dict.fromkeys([into, *folders]):
        path = folder / SPEC
        if path.is_file():
            try:
                specs[path] = TableSpec.from_json(path.read_text(encoding="utf-8"))
            except (OSError, UnicodeDecodeError, UserError) as error:
                raise UserError(f"{path}: {error}") from error
    for path, spec in specs.items():
        _check_places(path, spec, specs)
    if not specs or into / SPEC in specs:
        own = specs.get(into / SPEC)
        others = [str(path) for path, spec in specs.items() if spec != own]
        return None, [f"{into / SPEC} stays; other tables: {', '.join(others)}"] if others else []
    first, *rest = specs.values()
    if all(spec == first for spec in rest):
        return first, []
    named = ", ".join(map(str, specs))
    return None, [f"no {SPEC} is kept, for they differ: {named}"]


def _check_places(path: Path, spec: TableSpec, specs: Mapping[Path, TableSpec]) -> None:
    """One place of one table is one run, in whatever description."""
    places = {place.where: place.hash for place in spec.places}
    for other_path, other in specs.items():
        if other.name != spec.name:
            continue
        for place in other.places:
            hash = places.get(place.where, place.hash)
            if hash != place.hash:
                raise UserError(
                    f"({place.group}, {place.row}, seed {place.seed}) is run {hash} in {path} and "
                    f"run {place.hash} in {other_path}: settings, data or teacher differ. Parts "
                    "of one table need one teacher: share $DISTILL_JAX_HOME/teachers. Nothing was "
                    "written"
                )


def _equal(one: Any, other: Any) -> bool:
    """Equality to which NaN is itself."""
    if isinstance(one, float) and isinstance(other, float) and math.isnan(one):
        return math.isnan(other)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_equal, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_equal(one[key], other[key]) for key in one)
    return bool(one == other)


def _short(value: Any) -> str:
    text = "missing" if value is None else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
