"""``distill-jax ledger``: what was run, and what came out."""

import csv
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from distill_jax.cli.results import ledger_file
from distill_jax.cli.run import parse_flags
from distill_jax.core.errors import UserError, unknown

if TYPE_CHECKING:
    from distill_jax.tables.ledger import LedgerRow

COLUMNS = ("experiment", "group", "row", "seed", "device", "selected_step", "hash")
"""What ``--where`` may name beside the metrics and the settings."""


@dataclass(frozen=True)
class ListLedger:
    """List the rows of a ledger, filter them, show one whole, or export them as CSV.

    ``distill-jax ledger merge`` joins the ledgers of many machines; it has flags of its own.
    """

    path: Annotated[str, tyro.conf.Positional] = "compare_losses"
    """A ledger, its folder, or an experiment under results/ or experiments/results/."""
    experiment: str | None = None
    """Only rows of this experiment."""
    student: str | None = None
    """Only rows of this student (the table's group)."""
    objective: str | None = None
    """Only rows of this objective, as the table names it."""
    seed: int | None = None
    """Only rows of this seed."""
    where: tuple[str, ...] = ()
    """Only rows with these settings: data.label_fraction=0.1 training.epochs=2 ..."""
    show: str | None = None
    """Print one row whole, by its hash or the beginning of it."""
    csv: bool = False
    """Print every row as CSV, all metrics included."""


@dataclass(frozen=True)
class MergeLedgers:
    """Join ledgers: of the parts of a table, of several machines, of runs made at several times.

    One row a hash; rows that are there stay. Either all is written or nothing, and doing it
    again changes nothing. table.json is kept where all agree; distill-jax table then gives the
    whole table.
    """

    sources: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Ledgers, or folders: theirs and those of the parts (ledger-I-of-N.jsonl)."""
    into: Path
    """The folder whose ledger gets the rows; it may be one of the sources."""
    prefer: Literal["refuse", "newest", "first"] = "refuse"
    """Where one run came out differently in two ledgers (times do not count): refuse, take the
    one finished last, or the first found: of --into, then in the order given."""


def main(arguments: Sequence[str]) -> None:
    """List or, after ``merge``, join."""
    if arguments[:1] == ["merge"]:
        merge(arguments[1:])
    else:
        list_rows(arguments)


def merge(arguments: Sequence[str]) -> None:
    """Join ledgers into one."""
    args = parse_flags(MergeLedgers, arguments, "distill-jax ledger merge")
    if not args.sources:
        raise UserError("no ledgers to merge: name files or folders")

    from distill_jax.engine.merge import merge_ledgers

    merged = merge_ledgers(args.sources, args.into, prefer=args.prefer)
    for note in merged.notes:
        print(note)
    print(f"{merged.added} rows added, {merged.known} were there already")
    print(merged.ledger)


def list_rows(arguments: Sequence[str]) -> None:
    """Read and print; nothing is changed."""
    args = parse_flags(ListLedger, arguments, "distill-jax ledger")

    from distill_jax.tables.ledger import Ledger

    path = ledger_file(args.path)
    rows = select(Ledger(path).rows(), conditions_of(args))
    if args.show is not None:
        found = [row for row in rows if row.hash.startswith(args.show)]
        if len(found) != 1:
            raise UserError(f"{len(found)} rows of {path} have a hash like {args.show!r}")
        print(json.dumps(json.loads(found[0].to_json()), indent=1, ensure_ascii=False))
    elif args.csv:
        _print_csv(rows)
    else:
        for row in rows:
            print(_line(row))
        print(f"{len(rows)} rows")


def conditions_of(args: ListLedger) -> list[tuple[str, str]]:
    """The filters as pairs of a setting and its value, both text.

    Raises:
      UserError: for a condition without ``=``.
    """
    named = {
        "experiment": args.experiment,
        "group": args.student,
        "row": args.objective,
        "seed": args.seed,
    }
    conditions = [(key, str(value)) for key, value in named.items() if value is not None]
    for condition in args.where:
        key, equals, value = condition.partition("=")
        if not equals:
            raise UserError(f"--where takes SETTING=VALUE, not {condition!r}")
        conditions.append((key.strip(), value.strip()))
    return conditions


def select(rows: Sequence["LedgerRow"], conditions: Sequence[tuple[str, str]]) -> list["LedgerRow"]:
    """The rows that meet every condition.

    Raises:
      UserError: for a setting that no row has, or a value that no row has for it.
    """
    settings = [settings_of(row) for row in rows]
    kept = list(range(len(rows)))
    for key, wanted in conditions:
        having = [values[key] for values in settings if key in values]
        if rows and not having:
            raise unknown("setting", key, {name for values in settings for name in values})
        if rows and not any(_same(value, wanted) for value in having):
            raise unknown(f"value of {key}", wanted, {_text(value) for value in having})
        kept = [i for i in kept if key in settings[i] and _same(settings[i][key], wanted)]
    return [rows[index] for index in kept]


def settings_of(row: "LedgerRow") -> dict[str, Any]:
    """What a row may be chosen by: its labels, its metrics, its configuration by dotted path."""
    return {**row.settings(), **row.metrics, **{name: getattr(row, name) for name in COLUMNS}}


def _same(value: object, wanted: str) -> bool:
    """Whether a setting is what was typed: as text, or as the number it means."""
    if _text(value) == wanted:
        return True
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return float(wanted) == value
    except ValueError:
        return False


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _line(row: "LedgerRow") -> str:
    return (
        f"{row.hash}  {row.finished_at}  {row.group:<10} {row.row:<28} seed {row.seed:<3} "
        f"{_score(row)}"
    )


def _score(row: "LedgerRow") -> str:
    """The main score, in words."""
    data = row.config.get("data")
    task = data.get("task") if isinstance(data, dict) else None
    if task is not None and "test/accuracy" not in row.metrics:
        from distill_jax.tasks.kinds.kinds import kind_named

        return kind_named(task).told(row.metrics)
    for key, shown in (("test/perplexity", "test perplexity"), ("test/ndcg@10", "test nDCG@10")):
        if key in row.metrics:
            return f"{shown} {row.metrics[key]:.3f}"
    return f"test accuracy {100 * row.metrics.get('test/accuracy', math.nan):5.1f}%"


def _print_csv(rows: Sequence["LedgerRow"]) -> None:
    metrics = sorted({key for row in rows for key in row.metrics})
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(["hash", "group", "row", "seed", "finished_at", *metrics])
    for row in rows:
        numbers = [row.metrics.get(key, "") for key in metrics]
        writer.writerow([row.hash, row.group, row.row, row.seed, row.finished_at, *numbers])
