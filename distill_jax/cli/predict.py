"""``distill-jax predict``: ask a trained student (or a teacher) about texts."""

from __future__ import annotations

import csv
import io
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import tyro

from distill_jax.cli.run import parse_flags
from distill_jax.core.errors import UserError, printable, unknown
from distill_jax.core.files import write_atomic

if TYPE_CHECKING:
    from distill_jax.evaluation.open_classifier import Answer

Format = Literal["lines", "csv", "jsonl"]
Cells = dict[str, Any]
USUAL_COLUMNS = ("sentence", "text")
ADDED_COLUMNS = ("predicted", "probability")


@dataclass(frozen=True)
class Predict:
    """Classify texts, or pairs of texts, with a finished model.

    Texts are arguments, the rows of --input, or the lines of standard input. Each line of the
    output is the class, its probability, and the text; --output or --format give all classes'
    probabilities. A blank text has no class.
    """

    model: Annotated[Path, tyro.conf.Positional]
    """A run's folder (results/compare_losses/runs/HASH) or any folder with a BERT classifier."""
    texts: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """Texts; without any, and without --input, one text a line is read from standard input."""
    second: tuple[str, ...] = ()
    """The second text of each, for a model of pairs."""
    input: Path | None = None
    """A file of texts: CSV, TSV, JSON, JSONL or Parquet, or .txt with a text a line."""
    text: str | None = None
    """Column of the text in --input; by default sentence, text, or the only one there is."""
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
    batch_size: int = 32


def main(arguments: Sequence[str]) -> None:
    """Load, tokenise, classify, print or write."""
    args = parse_flags(Predict, arguments, "distill-jax predict")
    if not args.model.is_dir():
        raise UserError(f"no model at {args.model}: expected the folder of a finished run")
    shape = _format(args)
    rows, names = _rows(args)
    if not rows:
        raise UserError("no texts: give some as arguments, with --input, or on standard input")
    texts, second = ([_text(row, name) for row in rows] for name in (names[0], names[-1]))

    from distill_jax.evaluation.open_classifier import open_classifier

    opened = open_classifier(args.model, max_length=args.max_length, temperature=args.temperature)
    answers, coverage = opened.classify_covered(
        texts, second if len(names) == 2 else None, batch_size=args.batch_size
    )
    if coverage is not None and coverage.cut:
        share = f"{100 * coverage.cut:.0f}% of the texts"
        print(f"{share} are cut at {opened.max_length} tokens", file=sys.stderr)
    written = _WRITERS[shape](Said(rows, names, answers, opened.label_names))
    if args.output is None:
        sys.stdout.write(written)
    else:
        write_atomic(args.output, written)
        print(f"{len(rows)} rows: {args.output}", file=sys.stderr)


def _format(args: Predict) -> Format:
    if args.output is None:
        return args.format or "lines"
    if args.output.is_dir() or (args.input and args.output.resolve() == args.input.resolve()):
        raise UserError(f"--output {args.output} is a folder or the input; name another file")
    endings: dict[str, Format] = {".csv": "csv", ".jsonl": "jsonl", ".txt": "lines"}
    if args.format is None and args.output.suffix.lower() not in endings:
        raise unknown("ending of --output", args.output.suffix, endings)
    return args.format or endings[args.output.suffix.lower()]


def _rows(args: Predict) -> tuple[list[Cells], tuple[str, ...]]:
    """The rows to classify, and the names of the columns of their texts, one or two."""
    if args.input is not None:
        if args.texts or args.second:
            raise UserError("texts as arguments and --input: choose one")
        return _of_file(args.input, args)
    if args.text or args.text_b:
        raise UserError("--text and --text-b name columns of --input")
    for text in (*args.texts, *args.second):
        _check_no_file(text)
    names = ("text", "text_b") if args.second else ("text",)
    texts = args.texts or _lines_of_standard_input()
    if args.second and len(args.second) != len(texts):
        raise UserError(f"{len(texts)} texts, --second has {len(args.second)}; as many are due")
    columns = (texts, args.second) if args.second else (texts,)
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)], names


def _of_file(path: Path, args: Predict) -> tuple[list[Cells], tuple[str, ...]]:
    from distill_jax.data.file_formats import ENDINGS, kind_of, read_cells
    from distill_jax.data.separated import decode

    if not path.is_file():
        raise UserError(f"no file {path}")
    if kind_of(path) == ".txt":
        if args.text or args.text_b:
            raise UserError(f"{path} is a text a line and has no columns; leave --text out")
        return [{"text": line} for line in _split_lines(decode(path))], ("text",)
    if not path.name.lower().endswith(ENDINGS):
        raise unknown("ending of --input", path.name, [*ENDINGS, ".txt"])
    rows = [cells for _, cells in read_cells(path)]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    if taken := sorted({*ADDED_COLUMNS, "probabilities"} & set(columns)):
        raise UserError(f"{path} has a column {taken[0]!r}, which is to be added; rename it")
    usual = [name for name in USUAL_COLUMNS if name in columns]
    text = args.text or (usual or columns if usual or len(columns) == 1 else [None])[0]
    if rows and text is None:
        raise UserError(f"{path} has columns {', '.join(columns)}: which is it? --text COLUMN")
    names = tuple(name for name in (text, args.text_b) if name is not None)
    for name in names:
        if rows and name not in columns:
            raise unknown("column", name, columns, where=f"in {path}")
    return rows, names


def _check_no_file(text: str) -> None:
    """A file's name in the place of a text is a slip."""
    try:
        path = Path(text)
        slip = path.is_file() or (os.sep in text and path.exists())
    except (OSError, ValueError):
        return
    if slip:
        raise UserError(f"{text} is a file or folder, not a text: --input {text} reads a file")


def _text(row: Mapping[str, Any], name: str) -> str:
    value = row.get(name)
    return "" if value is None else str(value)


class Said(NamedTuple):
    """Rows, the columns of their texts, what a model says of each, and its classes."""

    rows: Sequence[Cells]
    names: Sequence[str]
    answers: Sequence[Answer | None]
    classes: Sequence[str]


def _as_lines(said: Said) -> str:
    """A line each: class, probability, texts; what would break the line is shown as ``\\n``."""
    lines = []
    for row, answer in zip(said.rows, said.answers, strict=True):
        own = [answer.label, f"{answer.probability:.3f}"] if answer else ["", ""]
        lines.append(
            "\t".join(printable(cell) for cell in (*own, *(_text(row, n) for n in said.names)))
        )
    return "".join(f"{line}\n" for line in lines)


def _as_csv(said: Said) -> str:
    columns = list(dict.fromkeys(name for row in said.rows for name in row))
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(
        [*columns, *ADDED_COLUMNS, *(f"probability of {name}" for name in said.classes)]
    )
    for row, answer in zip(said.rows, said.answers, strict=True):
        own: list[Any] = [""] * (2 + len(said.classes))
        if answer:
            own = [answer.label, answer.probability, *answer.probabilities.values()]
        cells = [_cell(row.get(name)) for name in columns]
        writer.writerow([*cells, *(x if isinstance(x, str) else f"{x:.6g}" for x in own)])
    return out.getvalue()


def _as_jsonl(said: Said) -> str:
    lines = []
    for row, answer in zip(said.rows, said.answers, strict=True):
        own: Cells = {"predicted": None, "probability": None, "probabilities": None}
        if answer:
            rounded = {name: float(f"{p:.6g}") for name, p in answer.probabilities.items()}
            own = {
                "predicted": answer.label,
                "probability": rounded[answer.label],
                "probabilities": rounded,
            }
        lines.append(json.dumps({**row, **own}, ensure_ascii=False, default=str))
    return "".join(f"{line}\n" for line in lines)


_WRITERS: dict[Format, Callable[[Said], str]] = {
    "lines": _as_lines,
    "csv": _as_csv,
    "jsonl": _as_jsonl,
}


def _cell(value: Any) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    return json.dumps(value, ensure_ascii=False, default=str)


def _lines_of_standard_input() -> tuple[str, ...]:
    data = sys.stdin.buffer.read()
    try:
        return _split_lines(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise UserError(f"standard input, line {line}: expected UTF-8 ({error})") from error


def _split_lines(text: str) -> tuple[str, ...]:
    """The lines, blank ones in their places; the end of the last one begins none."""
    lines = [line.rstrip("\r") for line in text.split("\n")]
    return tuple(lines[:-1] if lines[-1] == "" else lines)
