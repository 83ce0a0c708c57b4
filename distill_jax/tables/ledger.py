"""The ledger: results as an append-only file of JSON Lines, one row a finished run.

A row is written with one ``write`` under a lock and synced before ``append`` returns, so that
processes may share a ledger and a crash costs at most the row being written. A last line cut
short by a crash is left out on reading, with a warning, and cleared away by the next append.
Importing this module does not import JAX: listing a ledger takes a moment.
"""

import dataclasses
import errno
import fcntl
import json
import math
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from distill_jax.core.errors import UserError
from distill_jax.core.files import write_atomic
from distill_jax.core.settings import flatten

SCHEMA = 1
_WRITE = os.O_RDWR | os.O_CREAT | os.O_APPEND
_KINDS: dict[str, tuple[type, str]] = {
    **dict.fromkeys(
        ("hash", "experiment", "row", "group", "device", "finished_at"), (str, "a string")
    ),
    "seed": (int, "an integer"),
    **dict.fromkeys(
        ("config", "metrics", "fingerprints", "code", "packages", "seconds"), (Mapping, "an object")
    ),
}
_OPTIONAL: dict[str, tuple[Any, str]] = {
    "schema": (int, "an integer"),
    "test_correct": ((str, type(None)), "a string or null"),
    "test_scores": (Mapping, "an object"),
    "history": (list, "a list"),
}


@dataclasses.dataclass(frozen=True)
class LedgerRow:
    """One finished run, with its birth certificate.

    NaN is written as ``null`` in the numbers (``metrics``, ``seconds``, ``examples_per_second``)
    and read back as NaN; infinity as ``"inf"`` and ``"-inf"``. ``config`` keeps its nulls.

    Attributes:
      hash: content digest of everything that determines the run: the cell's identity.
      experiment: name of the experiment, e.g. ``compare_losses``.
      row: label of the table's row, e.g. the objective.
      group: the block of the table the row stands in, e.g. the student.
      seed: of initialisation, dropout and data order.
      config: the whole configuration, plain JSON.
      metrics: flat, ``split/name`` -> number, e.g. ``test/accuracy``; also ``parameters``.
      selected_step: optimiser step chosen on the validation split; None where none was chosen.
      fingerprints: content digests of teacher, tokeniser, data.
      code: ``version``, and in a git checkout ``commit`` and ``dirty``.
      packages: name -> version, with ``python``.
      device: what it ran on, in words.
      seconds: stage -> wall time, e.g. ``train``, ``compile``.
      examples_per_second: training throughput; None where nothing was trained.
      finished_at: ISO 8601, UTC.
      schema: version of this layout.
      test_correct: which test examples were classified rightly, as ``evidence.pack_correct`` writes
        it; None where nobody kept it.
      test_scores: name -> a number a test example, as ``evidence.pack_numbers`` writes them:
        ``rank``, the place of the one right item, or a metric's own name.
      history: what the validation split said on the way, ``{"step": .., "accuracy": ..}`` each.
    """

    hash: str
    experiment: str
    row: str
    group: str
    seed: int
    config: Mapping[str, Any]
    metrics: Mapping[str, float]
    selected_step: int | None
    fingerprints: Mapping[str, str]
    code: Mapping[str, Any]
    packages: Mapping[str, str]
    device: str
    seconds: Mapping[str, float]
    examples_per_second: float | None
    finished_at: str
    schema: int = SCHEMA
    test_correct: str | None = None
    test_scores: Mapping[str, str] = dataclasses.field(default_factory=dict)
    history: Sequence[Mapping[str, float]] = dataclasses.field(default_factory=list)

    def number(self, key: str) -> float | None:
        """A number by key: a metric, ``seconds/STAGE`` or ``examples_per_second``."""
        if key == "examples_per_second":
            return self.examples_per_second
        if key.startswith("seconds/"):
            return self.seconds.get(key.removeprefix("seconds/"))
        return self.metrics.get(key)

    def settings(self) -> dict[str, Any]:
        """The configuration without nesting, by dotted path (``data.label_fraction``), sorted."""
        return dict(sorted(flatten(self.config), key=lambda setting: setting[0]))

    def to_json(self) -> str:
        """The row as one line of JSON, without the newline."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        for name in ("metrics", "seconds"):
            fields[name] = {key: _pack(value) for key, value in fields[name].items()}
        if self.examples_per_second is not None:
            fields["examples_per_second"] = _pack(self.examples_per_second)
        fields["history"] = [
            {key: _pack(value) for key, value in point.items()} for point in self.history
        ]
        for name in ("test_correct", "test_scores", "history"):
            if not fields[name]:
                del fields[name]
        return json.dumps(fields, sort_keys=True, allow_nan=False, ensure_ascii=False)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> "LedgerRow":
        """A row from its JSON object.

        Raises:
          ValueError: for missing or unknown fields, wrong types, or another schema.
        """
        if fields.get("schema", SCHEMA) != SCHEMA:
            raise ValueError(f"schema {fields['schema']!r}, but this version reads {SCHEMA}")
        names = {f.name for f in dataclasses.fields(cls)}
        missing, extra = names - {*fields, *_OPTIONAL}, set(fields) - names
        if missing or extra:
            raise ValueError(
                f"missing fields: {', '.join(sorted(missing)) or 'none'}; "
                f"unknown fields: {', '.join(sorted(extra)) or 'none'}"
            )
        for name, (kind, described) in {**_KINDS, **_OPTIONAL}.items():
            if name in fields and not isinstance(fields[name], kind):
                raise ValueError(f"field {name} is not {described}")
        values = dict(fields)
        for name in ("metrics", "seconds"):
            values[name] = {key: _unpack(value) for key, value in fields[name].items()}
        if fields["examples_per_second"] is not None:
            values["examples_per_second"] = _unpack(fields["examples_per_second"])
        values["history"] = [
            {key: _unpack(value) for key, value in dict(point).items()}
            for point in fields.get("history", ())
        ]
        return cls(**values)


class Ledger:
    """An append-only file of ``LedgerRow``s. The file need not exist yet."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)

    def append(self, row: LedgerRow | Mapping[str, Any]) -> None:
        """Add a row at the end, whole or not at all, and wait until it is on disk.

        Raises:
          UserError: if the row does not fit the schema or the file cannot be written.
        """
        try:
            row = row if isinstance(row, LedgerRow) else LedgerRow.from_dict(row)
            line = row.to_json().encode() + b"\n"
        except (TypeError, ValueError) as error:
            raise UserError(f"a row does not fit the ledger {self.path}: {error}") from error
        try:
            with _locked(self.path, _WRITE, fcntl.LOCK_EX) as handle:
                _write_line(handle, line)
        except OSError as error:
            raise self._unwritable(error) from error

    def extend(self, choose: Callable[[list[LedgerRow]], list[LedgerRow]]) -> None:
        """Add rows at the end, all or none, however the process ends. The file is there then.

        Args:
          choose: rows to add, from the rows that are there. It is asked before the file is made,
            and again when no other process can write to it.

        Raises:
          UserError: if the file is damaged or cannot be written, or whatever ``choose`` raises;
            the file is then as it was.
        """
        if not choose(self.rows()) and self.path.is_file():
            return
        try:
            with _locked(self.path, _WRITE, fcntl.LOCK_EX) as handle:
                data = _read_all(handle)
                rows, kept = self._parse_all(data)
                new = choose(_last_of_each(rows))
                lines = [row.to_json().encode() + b"\n" for row in new]
                write_atomic(self.path.resolve(), b"".join([kept, *lines]))
        except OSError as error:
            raise self._unwritable(error) from error

    def rows(self) -> list[LedgerRow]:
        """All rows, one per hash: of rows with the same hash the last one written wins.

        They come in the order of the file (a repeated hash at the place of its last row).

        Raises:
          UserError: naming file and line, if a line other than a cut last one is damaged.
        """
        return _last_of_each(self.history())

    def history(self) -> list[LedgerRow]:
        """Every row of the file, repeated hashes included."""
        try:
            with _locked(self.path, os.O_RDONLY, fcntl.LOCK_SH) as handle:
                data = _read_all(handle)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise UserError(
                f"cannot read the ledger {self.path}: {error.strerror or error}"
            ) from error
        return self._parse_all(data)[0]

    def finished_hashes(self) -> set[str]:
        """Hashes of all finished runs."""
        return {row.hash for row in self.rows()}

    def _parse_all(self, data: bytes) -> tuple[list[LedgerRow], bytes]:
        """The rows, and the bytes that they came from: whole lines, a cut last one left out."""
        *lines, tail = data.split(b"\n")
        if tail.strip() and not _is_json(tail):
            warnings.warn(
                f"{self.path}:{len(lines) + 1}: the last line is cut short (a run was "
                "killed while writing it) and is left out.",
                stacklevel=4,
            )
        elif tail.strip():
            lines.append(tail)
        rows, damaged = [], []
        for number, line in enumerate(lines, 1):
            if line.strip():
                try:
                    rows.append(_parse(line))
                except (
                    AttributeError,
                    LookupError,
                    RecursionError,
                    TypeError,
                    ValueError,
                ) as error:
                    damaged.append((number, error))
        if damaged:
            (number, error), *more = damaged
            others = f" Also damaged: line {', '.join(str(n) for n, _ in more)}." if more else ""
            raise UserError(
                f"{self.path}:{number}: damaged ledger row ({error}). Mend or delete the line."
                f"{others}"
            ) from error
        return rows, b"".join(line + b"\n" for line in lines)

    def _unwritable(self, error: OSError) -> UserError:
        return UserError(f"cannot write the ledger {self.path}: {error.strerror or error}")


def _parse(line: bytes) -> LedgerRow:
    fields = json.loads(line)
    if not isinstance(fields, dict):
        raise ValueError("not a JSON object")
    return LedgerRow.from_dict(fields)


def _last_of_each(rows: Iterable[LedgerRow]) -> list[LedgerRow]:
    """One row a hash, the last, at its place."""
    last: dict[str, LedgerRow] = {}
    for row in rows:
        last.pop(row.hash, None)
        last[row.hash] = row
    return list(last.values())


def _write_line(handle: int, line: bytes) -> None:
    """Append ``line`` under the caller's lock, after clearing away a tail cut by a crash."""
    end = os.lseek(handle, 0, os.SEEK_END)
    if end and os.pread(handle, 1, end - 1) != b"\n":
        data = _read_all(handle)
        tail = data[data.rfind(b"\n") + 1 :]
        if _is_json(tail):  # a whole row that only lacks its newline, e.g. after hand editing
            line = b"\n" + line
        else:
            end -= len(tail)
            os.ftruncate(handle, end)
    try:
        written = os.write(handle, line)
        if written != len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fsync(handle)
    except OSError:
        os.ftruncate(handle, end)
        raise


@contextmanager
def _locked(path: Path, flags: int, lock: int) -> Iterator[int]:
    """The open file under an advisory lock; closing it lets the lock go."""
    if flags & os.O_CREAT:
        path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        handle = os.open(path, flags, 0o666)
        try:
            fcntl.flock(handle, lock)
            if _is_at(handle, path):
                yield handle
                return
        finally:
            os.close(handle)


def _is_at(handle: int, path: Path) -> bool:
    """Whether the open file is still the one at ``path``: another may have replaced it."""
    try:
        there = os.stat(path)
    except FileNotFoundError:
        return False
    return os.path.samestat(os.fstat(handle), there)


def _read_all(handle: int) -> bytes:
    os.lseek(handle, 0, os.SEEK_SET)
    chunks = iter(lambda: os.read(handle, 1 << 20), b"")
    return b"".join(chunks)


def _is_json(data: bytes) -> bool:
    try:
        return isinstance(json.loads(data), dict)
    except (RecursionError, ValueError):
        return False


def _pack(value: Any) -> Any:
    number = float(value)
    if math.isnan(number):
        return None
    if math.isinf(number):
        return "inf" if number > 0 else "-inf"
    return int(value) if isinstance(value, int) else number


def _unpack(value: Any) -> float:
    return float("nan") if value is None else value if isinstance(value, int) else float(value)
