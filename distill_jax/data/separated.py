"""Files of separated cells, CSV and TSV, as cells by column, with errors that name the line."""

import codecs
import contextlib
import csv
import datetime
import gzip
import io
import itertools
import math
import re
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from distill_jax.core.errors import UserError

_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "'|'"}
_DOUBLED = re.compile(r'(?:^|[\t\n])"[^"]*""(?:[^"]|"")*+"(?=[\t\r\n]|$)')
"""A cell in quotation marks that holds doubled ones: somebody's writer quoted it."""


ROWS = 4096
"""Of a block."""


def _ignore(note: str) -> None:
    pass


_MARK = re.compile(r'(?:^|[\t\n])"')
"""A cell that begins with a quotation mark."""


class Dialect(NamedTuple):
    """How the cells of a file are separated, and whether quotation marks around them are."""

    separator: str
    quoted: bool


def separated(
    path: Path, note: Callable[[str], None] = _ignore, *, keep_empty: bool = False
) -> Iterator[tuple[int, dict[str, str]]]:
    """(line, cells by column) of a file with a header line.

    The header decides what separates cells: a tab in files that are not called ``.csv``, else
    the one of ``SEPARATORS`` that it has most of. Quotation marks are those of RFC 4180, but in
    tab-separated files only where the file as a whole shows that they were written so. Columns
    without a name, and lines without content, are left out.

    Args:
      note: told, in a sentence, what the name of the file does not say.
      keep_empty: whether a line with an empty cell in quotation marks is one of content in a file
        of one column, as pandas writes what is not there.

    Raises:
      UserError: one line that names the file, the line in it and what was expected.
    """
    for block in blocks(path, note, keep_empty=keep_empty):
        for number, line in enumerate(block.lines):
            yield line, {name: cells[number] for name, cells in block.columns.items()}


class Block(NamedTuple):
    """Some rows of a file.

    Attributes:
      lines: of each row.
      columns: by name, a cell a row.
    """

    lines: Sequence[int]
    columns: Mapping[str, Sequence[str]]


def blocks(
    path: Path, note: Callable[[str], None] = _ignore, *, keep_empty: bool = False
) -> Iterator[Block]:
    """What ``separated`` gives, some rows at a time: large files are read column by column.

    Raises:
      UserError: see ``separated``.
    """
    dialect = _dialect_in(path)
    kind = SEPARATORS[dialect.separator]
    if dialect.separator != _usual(path):
        note(f"{path.name}: cells are separated by {kind}")
    if dialect.separator == "\t" and dialect.quoted:
        note(f"{path.name}: quotation marks around cells are taken off")
    ends = [0]
    try:
        with open_text(path, newline="") as lines:
            reader = _reader(lines, dialect)
            header = [name.strip() for name in next(reader, [])]
            named = [name for name in header if name]
            if not named:
                raise UserError(f"{path}: the file is empty; expected a header line.")
            if len(set(named)) < len(named):
                raise UserError(f"{path}, line 1: a column occurs twice in {', '.join(named)}.")
            ends, rows = [reader.line_num], list[list[str]]()
            while True:
                for cells in itertools.islice(reader, ROWS):
                    rows.append(cells)
                    ends.append(reader.line_num)
                if not rows:
                    break
                starts = [end + 1 for end in ends[:-1]]
                if found := _block(path, starts, rows, header, kind, keep_empty):
                    yield found
                ends, rows = ends[-1:], []
    except csv.Error as error:
        raise UserError(
            f"{path}, line {ends[-1] + 1}: {error}; expected cells separated by {kind}, and a "
            "quotation mark inside quotation marks doubled."
        ) from error


def header_of(path: Path) -> list[str]:
    """The cells of a file's first line, whatever they are."""
    dialect = _dialect_in(path)
    try:
        with open_text(path, newline="") as lines:
            return [cell.strip() for cell in next(_reader(lines, dialect), [])]
    except csv.Error:
        return []


def _dialect_in(path: Path) -> Dialect:
    """``dialect_of`` a file, which is read whole only where that hangs on its quotation marks."""
    with open_text(path) as lines:
        header = next(lines, "")
        dialect = dialect_of(path, header)
        marks = dialect.separator == "\t" and any(
            _MARK.search(line) for line in itertools.chain([header], lines)
        )
    return dialect_of(path, decode(path)) if marks else dialect


def dialect_of(path: Path, text: str) -> Dialect:
    """How the file at ``path``, whose content is ``text``, was written."""
    header = text.partition("\n")[0]
    outside = re.sub(r'"(?:[^"]|"")*+"', "", header)
    usual = _usual(path)
    separator = usual
    if usual == "," or usual not in outside:
        counts = {each: outside.count(each) for each in SEPARATORS}
        most = max(counts, key=lambda each: counts[each])
        separator = most if counts[most] else usual
    return Dialect(separator, separator != "\t" or _quotes_cells(text))


def _usual(path: Path) -> str:
    return "," if path.name.lower().removesuffix(".gz").endswith(".csv") else "\t"


def _quotes_cells(text: str) -> bool:
    """Whether a tab-separated file has quotation marks around cells.

    GLUE's files have not: there a mark at the start of a cell is one of the text. Those that
    spreadsheets and pandas write have them around cells with tabs, line ends or marks.
    """
    if not _MARK.search(text):
        return False
    lines = [line for line in text.split("\n") if line.strip()]
    whole_lines = len({line.count("\t") for line in lines}) == 1
    try:
        source = io.StringIO(text, newline="")
        rows = [row for row in _reader(source, Dialect("\t", True)) if any(row)]
    except csv.Error:
        return False
    if len({len(row) for row in rows}) > 1:
        return False
    if not whole_lines:
        return True
    header = lines[0].strip().split("\t")
    told = all(re.fullmatch(r'"[^"]*"', cell) for cell in header) or _DOUBLED.search(text)
    return bool(told) and len(rows) == len(lines)


def _reader(source: Iterable[str], dialect: Dialect):
    csv.field_size_limit(sys.maxsize)
    if not dialect.quoted:
        return csv.reader(source, delimiter=dialect.separator, quoting=csv.QUOTE_NONE)
    return csv.reader(source, delimiter=dialect.separator, strict=True)


def _block(
    path: Path,
    lines: list[int],
    rows: list[list[str]],
    header: list[str],
    kind: str,
    keep_empty: bool,
) -> Block | None:
    """Rows by column, without those that have no content; None where none has any."""
    counts = bool if keep_empty and len(header) == 1 else any
    if not all(map(counts, rows)):
        full = [number for number, cells in enumerate(rows) if counts(cells)]
        lines, rows = [lines[number] for number in full], [rows[number] for number in full]
    if not rows:
        return None
    if set(map(len, rows)) != {len(header)}:
        named = [_by_name(path, *row, header, kind) for row in zip(lines, rows, strict=True)]
        return Block(lines, {name: [row[name] for row in named] for name in header if name})
    columns = zip(header, zip(*rows, strict=True), strict=True)
    return Block(lines, {name: cells for name, cells in columns if name})


def _by_name(
    path: Path, line: int, cells: list[str], header: list[str], kind: str
) -> dict[str, str]:
    """The cells of a row by column; spreadsheets leave empty columns at the end."""
    if any(cells[len(header) :]) or any(header[len(cells) :]):
        named = ", ".join(name for name in header if name)
        raise UserError(
            f"{path}, line {line}: {len(cells)} cells; expected {len(header)} ({named}), "
            f"separated by {kind}."
        )
    return {name: cell for name, cell in zip(header, cells, strict=False) if name}


@contextlib.contextmanager
def open_text(path: Path, *, newline: str = "\n") -> Iterator[Iterator[str]]:
    """The lines of a file, read as they are asked for; otherwise as ``decode``.

    Args:
      newline: as of ``open``; the lines keep their ends.
    """
    try:
        with contextlib.ExitStack() as stack:
            raw: Any = stack.enter_context(open(path, "rb"))
            if path.suffix.lower() == ".gz":
                raw = stack.enter_context(gzip.open(raw))
            mark = raw.read(2)
            raw.seek(0)
            coding = "utf-16" if mark in _UTF_16 else "utf-8-sig"
            yield stack.enter_context(io.TextIOWrapper(raw, coding, newline=newline))
    except UnicodeDecodeError:
        decode(path)  # which says where
        raise
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} cannot be read: {error}.") from error


def decode(path: Path) -> str:
    """A UTF-8 file's text, with or without a byte order mark; ``.gz`` is unpacked.

    UTF-16 is read where a mark says so, as in what Excel calls Unicode text.
    """
    data = _bytes(path)
    if data[:2] in _UTF_16:
        try:
            return data.decode("utf-16")
        except UnicodeDecodeError as error:
            raise UserError(f"{path} is not whole UTF-16; save the file as UTF-8.") from error
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise UserError(
            f"{path}, line {line}: byte 0x{data[error.start]:02x} is not UTF-8; save the file as "
            "UTF-8."
        ) from error


def name_in(path: Path, line: int, column: str, value: str) -> str:
    """A cell that names something: a user, an item.

    Raises:
      UserError: if it is empty.
    """
    value = value.strip()
    if not value:
        raise UserError(f"{path}, line {line}: column {column!r} is empty; expected a name.")
    return value


def names_in(
    path: Path, lines: Sequence[int], column: str, values: Sequence[str], known: dict[str, str]
) -> list[str]:
    """``name_in`` of every row.

    Args:
      known: names so far; one that comes again is the same object, which takes no memory.
    """
    names = list(map(str.strip, values))
    if not all(names):
        number = names.index("")
        name_in(path, lines[number], column, values[number])
    return list(map(known.setdefault, names, names))


def numbers_in(
    path: Path,
    lines: Sequence[int],
    column: str,
    values: Sequence[str],
    one: Callable[[Path, int, str, str], float],
) -> np.ndarray:
    """float64, what every row holds: ``number_in`` or ``seconds_in`` of it.

    Args:
      one: reads a cell, where not all of them are plain numbers.
    """
    try:
        numbers = np.fromiter(map(float, values), np.float64, len(values))
    except ValueError:
        numbers = np.array([math.nan])
    if np.isfinite(numbers).all():
        return numbers
    rows = zip(lines, values, strict=True)
    return np.array([one(path, line, column, value) for line, value in rows], np.float64)


def number_in(path: Path, line: int, column: str, value: str) -> float:
    """A cell that holds a finite number."""
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise UserError(
            f"{path}, line {line}: column {column!r} holds {value[:40]!r}; expected a number."
        )
    return number


def is_number(value: str) -> bool:
    """Whether a cell holds a finite number."""
    try:
        return math.isfinite(float(value))
    except ValueError:
        return False


def seconds_in(path: Path, line: int, column: str, value: str) -> float:
    """A cell that holds a time: a number of seconds, or a date (and time) as ISO 8601 has it."""
    try:
        return float(number_in(path, line, column, value))
    except UserError:
        pass
    try:
        moment = datetime.datetime.fromisoformat(re.sub(r"\s*UTC$", "+00:00", value.strip()))
    except ValueError:
        raise UserError(
            f"{path}, line {line}: column {column!r} holds {value[:40]!r}; expected seconds or a "
            "date such as 2024-05-17 or 2024-05-17T09:30:00 (UTC unless it says otherwise)."
        ) from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=datetime.UTC)
    return moment.timestamp()


def _bytes(path: Path) -> bytes:
    try:
        if path.suffix.lower() == ".gz":
            with gzip.open(path) as file:
                return file.read()
        return path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} cannot be read: {error}.") from error
