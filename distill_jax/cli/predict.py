"""``distill-jax predict``: ask a trained student (or a teacher) about texts."""

from __future__ import annotations

import abc
import contextlib
import csv
import io
import itertools
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from distill_jax.cli.run import parse_flags
from distill_jax.core.errors import UserError, printable, unknown
from distill_jax.core.files import atomic_file

if TYPE_CHECKING:
    from distill_jax.evaluation.answers import Form
    from distill_jax.evaluation.open_classifier import Stream

Format = Literal["lines", "csv", "jsonl"]
Cells = dict[str, Any]
USUAL_COLUMNS = ("sentence", "text", "tokens")
ADDED_COLUMNS = ("predicted", "probability", "probabilities")
"""Of answers, which no column of a file may be called."""
SHOWN = 10_000
"""Rows from which on progress is shown."""


@dataclass(frozen=True)
class Predict:
    """Classify texts, pairs of texts or images with a finished model; or predict what it was
    trained for.

    Texts are arguments, the rows of --input, or the lines of standard input. Each line of the
    output is the class, its probability, and the text; --output or --format give all classes'
    probabilities. A blank text has no class. Images are the array "images" of an .npz. Models of
    other tasks (--task) answer in their own terms: a number, several labels, entities, an answer
    to a question (--input with the columns question and context).
    """

    model: Annotated[Path, tyro.conf.Positional]
    """A run's folder (results/compare_losses/runs/HASH), an export, or any folder with a BERT
    classifier."""
    texts: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """Texts; without any, and without --input, one text a line is read from standard input."""
    second: tuple[str, ...] = ()
    """The second text of each, for a model of pairs."""
    input: Path | None = None
    """A file of texts: CSV, TSV, JSON, JSONL or Parquet, or .txt with a text a line; of images an
    .npz."""
    text: str | None = None
    """Column of the text in --input; by default sentence, text, tokens, or the only one."""
    text_b: str | None = None
    """Column of the second text in --input, for a model of pairs."""
    output: Path | None = None
    """Write here instead: a .csv or .jsonl with all columns of the input, the class, and the
    probabilities of all classes."""
    format: Format | None = None
    """lines, csv or jsonl; by default as --output's name ends, else lines."""
    max_length: int | None = None
    """Tokens after which a text is cut; by default as in training."""
    temperature: float | Literal["auto"] = "auto"
    """By which logits are divided before the softmax; auto: the one that was fitted on validation
    and kept with the model, 1 for probabilities as they are. Classes do not change."""
    batch_size: int | None = None
    """Texts that the model is asked about at a time; by default what suits the machine."""


@dataclass(frozen=True)
class Source:
    """Rows to classify, that can be read as often as there is need, or once.

    Attributes:
      rows: begins to read them.
      columns: of the rows; those of the output, in order.
      names: the columns of their texts, one or two.
      total: how many rows there are; None where only the end will tell.
    """

    rows: Callable[[], Iterable[Cells]]
    columns: Sequence[str]
    names: Sequence[str]
    total: int | None


def main(arguments: Sequence[str]) -> None:
    """Load, then read, tokenise, classify and write, window by window."""
    args = parse_flags(Predict, arguments, "distill-jax predict")
    if not args.model.is_dir():
        raise UserError(f"no model at {args.model}: expected the folder of a finished run")
    shape = _format(args)
    if _is_of_images(args):
        from distill_jax.cli.predict_images import predict_images

        how: dict[str, Any] = {"temperature": args.temperature, "batch_size": args.batch_size}
        predict_images(args.model, args.input, args.output, _WRITERS[shape], _sink, **how)
        return
    source = _source(args)
    if source.total == 0:
        raise UserError("no texts: give some as arguments, with --input, or on standard input")

    from distill_jax.evaluation.open_classifier import Stream
    from distill_jax.export.runtime import open_any

    opened = open_any(args.model, max_length=args.max_length, temperature=args.temperature)
    with _progress(source.total, args.output) as on_rows:
        stream = Stream(
            opened,
            pairs=len(source.names) == 2,
            batch_size=args.batch_size,
            expected=source.total,
            on_rows=on_rows,
        )
        check_columns(source.columns, stream.form.columns, args.input)
        writer = _WRITERS[shape](source.columns, source.names, stream.form)
        with _sink(args.output) as write:
            written = _copy(stream, source, writer, write)
    coverage = stream.coverage
    if coverage is not None and coverage.cut:
        share = f"{100 * coverage.cut:.0f}% of the texts"
        print(f"{share} are cut at {opened.max_length} tokens", file=sys.stderr)
    if args.output is not None:
        print(f"{written} rows: {args.output}", file=sys.stderr)


def _is_of_images(args: Predict) -> bool:
    """Whether the model reads images, which no flag for texts is for.

    Raises:
      UserError: where such flags are given all the same.
    """
    from distill_jax.evaluation.open_images import reads_images
    from distill_jax.export.manifest import is_export

    if is_export(args.model) or not reads_images(args.model):
        return False
    given = ("texts", "second", "text", "text_b", "max_length")
    for name in given:
        if getattr(args, name):
            raise UserError(f"{args.model} has a classifier of images: {name} is for texts")
    return True


def _copy(stream: Stream, source: Source, writer: Writer, write: Callable[[str], object]) -> int:
    """Classify and write all rows; returns their number."""
    written = 0
    write(writer.head())
    for rows, answers in stream.answers(
        source.rows(), lambda row: [stream.form.text_of(row, name) for name in source.names]
    ):
        write(writer.rows(rows, answers))
        written += len(rows)
    return written


@contextlib.contextmanager
def _sink(output: Path | None) -> Iterator[Callable[[str], object]]:
    """Where text goes: a file that is there when all of it is written, or standard output."""
    if output is None:
        yield sys.stdout.write
        sys.stdout.flush()
        return
    with atomic_file(output) as file:
        yield lambda text: file.write(text.encode())


@contextlib.contextmanager
def _progress(total: int | None, output: Path | None) -> Iterator[Callable[[int], None]]:
    """Rate and time left on standard error, where the number of rows is known and no answers
    come in between; called with the number of rows that are finished."""
    if total is None or total < SHOWN or (output is None and sys.stdout.isatty()):
        yield lambda rows: None
        return
    from rich.console import Console

    from distill_jax.engine.progress import Reporter

    with Reporter(Console(stderr=True)).stage("texts", total) as bar:
        yield bar.advance


def _format(args: Predict) -> Format:
    if args.output is None:
        return args.format or "lines"
    if args.output.is_dir() or (args.input and args.output.resolve() == args.input.resolve()):
        raise UserError(f"--output {args.output} is a folder or the input; name another file")
    endings: dict[str, Format] = {".csv": "csv", ".jsonl": "jsonl", ".txt": "lines"}
    if args.format is None and args.output.suffix.lower() not in endings:
        raise unknown("ending of --output", args.output.suffix, endings)
    return args.format or endings[args.output.suffix.lower()]


def _source(args: Predict) -> Source:
    if args.input is not None:
        if args.texts or args.second:
            raise UserError("texts as arguments and --input: choose one")
        return rows_of_file(args.input, args.text, args.text_b)
    if args.text or args.text_b:
        raise UserError("--text and --text-b name columns of --input")
    for text in (*args.texts, *args.second):
        _check_no_file(text)
    names = ("text", "text_b") if args.second else ("text",)
    if not args.texts and not args.second:
        lines = _lines_of_standard_input()
        first = list(itertools.islice(lines, 1))
        texts = itertools.chain(first, lines)
        total = None if first else 0
        return Source(lambda: ({"text": text} for text in texts), names, names, total)
    given = args.texts or tuple(_lines_of_standard_input())
    if args.second and len(args.second) != len(given):
        raise UserError(f"{len(given)} texts, --second has {len(args.second)}; as many are due")
    columns = (given, args.second) if args.second else (given,)
    rows = [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
    return Source(lambda: rows, names, names, len(rows))


def rows_of_file(path: Path, text: str | None, text_b: str | None) -> Source:
    """A file's rows; ``text`` and ``text_b`` are the columns of their texts, as of the flags.

    They are read once before, so that its faults are told before any answer.
    """
    from distill_jax.data.file_formats import ENDINGS, kind_of, read_cells
    from distill_jax.data.separated import open_text
    from distill_jax.evaluation.span_answers import CONTEXT, QUESTION

    if not path.is_file():
        raise UserError(f"no file {path}")
    if kind_of(path) == ".txt":
        if text or text_b:
            raise UserError(f"{path} is a text a line and has no columns; leave --text out")

        def lines() -> Iterator[Cells]:
            with open_text(path) as source:
                yield from ({"text": line.rstrip("\r\n")} for line in source)

        return Source(lines, ("text",), ("text",), sum(1 for _ in lines()))
    if not path.name.lower().endswith(ENDINGS):
        raise unknown("ending of --input", path.name, [*ENDINGS, ".txt"])
    found: dict[str, None] = {}
    total = 0
    for _, cells in read_cells(path):
        total += 1
        found |= dict.fromkeys(cells)
    columns = list(found)
    check_columns(columns, (), path)
    if text is None and text_b is None and {QUESTION, CONTEXT} <= found.keys():
        text, text_b = QUESTION, CONTEXT
    usual = [name for name in USUAL_COLUMNS if name in columns]
    text = text or (usual or columns if usual or len(columns) == 1 else [None])[0]
    if total and text is None:
        raise UserError(f"{path} has columns {', '.join(columns)}: which is it? --text COLUMN")
    names = tuple(name for name in (text, text_b) if name is not None)
    for name in names:
        if total and name not in columns:
            raise unknown("column", name, columns, where=f"in {path}")
    return Source(lambda: (cells for _, cells in read_cells(path)), columns, names, total)


def check_columns(columns: Sequence[str], added: Sequence[str], path: Path | None) -> None:
    """Raises ``UserError`` where a file has a column that is to be added."""
    if path is not None and (taken := sorted({*ADDED_COLUMNS, *added} & set(columns))):
        raise UserError(f"{path} has a column {taken[0]!r}, which is to be added; rename it")


def _check_no_file(text: str) -> None:
    """A file's name in the place of a text is a slip."""
    try:
        path = Path(text)
        slip = path.is_file() or (os.sep in text and path.exists())
    except (OSError, ValueError):
        return
    if slip:
        raise UserError(f"{text} is a file or folder, not a text: --input {text} reads a file")


Answers = Sequence[Any]


@dataclass(frozen=True)
class Writer(abc.ABC):
    """Rows and what a model says of them, as text.

    Attributes:
      columns: of the rows.
      names: those of their texts.
      form: of the model's answers.
    """

    columns: Sequence[str]
    names: Sequence[str]
    form: Form

    def head(self) -> str:
        """What comes before the first row."""
        return ""

    @abc.abstractmethod
    def rows(self, rows: Sequence[Cells], answers: Answers) -> str:
        """Some rows, with what ends them."""


class Lines(Writer):
    """A line each: the answer, the texts; what would break the line is shown as ``\\n``."""

    def rows(self, rows: Sequence[Cells], answers: Answers) -> str:
        lines = []
        for row, answer in zip(rows, answers, strict=True):
            texts = (self.form.text_of(row, name) for name in self.names)
            lines.append("\t".join(map(_printable, (*self.form.line(answer), *texts))))
        return "".join(f"{line}\n" for line in lines)


class Csv(Writer):
    """All columns, and those of the answer: the class, its probability, and that of every class."""

    def head(self) -> str:
        return _as_csv([[*self.columns, *self.form.columns]])

    def rows(self, rows: Sequence[Cells], answers: Answers) -> str:
        return _as_csv(
            [*(_cell(row.get(name)) for name in self.columns), *self.form.row(answer)]
            for row, answer in zip(rows, answers, strict=True)
        )


class Jsonl(Writer):
    """An object a line: all columns, and what is answered."""

    def rows(self, rows: Sequence[Cells], answers: Answers) -> str:
        lines = []
        for row, answer in zip(rows, answers, strict=True):
            own = self.form.data(answer)
            lines.append(json.dumps({**row, **own}, ensure_ascii=False, default=str))
        return "".join(f"{line}\n" for line in lines)


_WRITERS: dict[Format, type[Writer]] = {"lines": Lines, "csv": Csv, "jsonl": Jsonl}


def _as_csv(rows: Iterable[Sequence[str]]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(rows)
    return out.getvalue()


def _printable(text: str) -> str:
    """``printable``, which looks at every character, where one of them may not be."""
    return text if text.isprintable() else printable(text)


def _cell(value: Any) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    return json.dumps(value, ensure_ascii=False, default=str)


def _lines_of_standard_input() -> Iterator[str]:
    """The lines, blank ones in their places, without their ends."""
    for number, data in enumerate(sys.stdin.buffer, start=1):
        try:
            yield data.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise UserError(f"standard input, line {number}: expected UTF-8 ({error})") from error
