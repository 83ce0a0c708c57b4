"""CSV and TSV files as cells by column, with errors that name the line."""

import csv
import datetime
import gzip
import io
import math
import zlib
from collections.abc import Iterator
from pathlib import Path

from distill_jax.core.errors import UserError


def separated(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """(line, cells by column) of a file with a header line.

    ``.csv`` is RFC 4180; everything else has tabs and no quoting.

    Raises:
      UserError: one line that names the file, the line in it and what was expected.
    """
    is_tsv = not path.name.removesuffix(".gz").endswith(".csv")
    source = io.StringIO(decode(path), newline="")
    if is_tsv:
        reader = csv.reader(source, delimiter="\t", quoting=csv.QUOTE_NONE)
    else:
        reader = csv.reader(source, strict=True)
    line = 1
    try:
        header = next(reader, [])
        if not header:
            raise UserError(f"{path}: the file is empty; expected a header line.")
        if len(set(header)) < len(header):
            raise UserError(f"{path}, line 1: a column occurs twice in {', '.join(header)}.")
        line = reader.line_num + 1
        for cells in reader:
            if cells and len(cells) != len(header):
                raise UserError(
                    f"{path}, line {line}: {len(cells)} cells; expected {len(header)} "
                    f"({', '.join(header)})."
                )
            if cells:
                yield line, dict(zip(header, cells, strict=True))
            line = reader.line_num + 1
    except csv.Error as error:
        kind = "tab-separated cells" if is_tsv else "comma-separated cells"
        raise UserError(f"{path}, line {line}: {error}; expected {kind}.") from error


def decode(path: Path) -> str:
    """A UTF-8 file's text, with or without a byte order mark; ``.gz`` is unpacked."""
    data = _bytes(path)
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


def seconds_in(path: Path, line: int, column: str, value: str) -> float:
    """A cell that holds a time: a number of seconds, or a date (and time) as ISO 8601 has it."""
    try:
        return float(number_in(path, line, column, value))
    except UserError:
        pass
    try:
        moment = datetime.datetime.fromisoformat(value.strip())
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
        if path.suffix == ".gz":
            with gzip.open(path) as file:
                return file.read()
        return path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} cannot be read: {error}.") from error
