"""A table as GitHub Markdown, aligned in its source too."""

import re
from collections.abc import Iterable, Sequence

from rich.cells import cell_len

from distill_jax.tables.sheet import Sheet, SheetCell, sheets_of
from distill_jax.tables.table import Table


def to_markdown(table: Table) -> str:
    """The table, the published numbers beside it, the protocol and the notes."""
    blocks = []
    for sheet in sheets_of(table):
        blocks += [escape(sentence) for sentence in sheet.lead]
        blocks.append(sheet_to_markdown(sheet))
    if notes := (*map(escape, table.spec.protocol), *table.notes):
        blocks.append("\n".join(f"- {note}" for note in notes))
    return "\n\n".join(blocks) + "\n"


def sheet_to_markdown(sheet: Sheet) -> str:
    """Heading and lines; labels at the left, numbers at the right."""
    lines = [[escape(title) for title in sheet.heading]]
    lines += [[_cell(cell) for cell in line.cells] for line in sheet.lines]
    widths = [max(3, *map(cell_len, column)) for column in zip(*lines, strict=True)]

    def join(cells: Iterable[str]) -> str:
        padded = []
        for index, (cell, width) in enumerate(zip(cells, widths, strict=True)):
            space = " " * (width - cell_len(cell))
            padded.append(cell + space if index < sheet.labels else space + cell)
        return "| " + " | ".join(padded) + " |"

    rule = ["-" * w if i < sheet.labels else "-" * (w - 1) + ":" for i, w in enumerate(widths)]
    return "\n".join([join(lines[0]), join(rule), *map(join, lines[1:])])


def plain_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines of a table of texts; what would end a cell or a line is no markup in it."""
    lines = [head, tuple("---" for _ in head), *rows]
    return [
        f"| {' | '.join(' '.join(text.replace('|', chr(92) + '|').split()) for text in line)} |"
        for line in lines
    ]


def escape(text: str) -> str:
    """Text in which nothing is markup."""
    return re.sub(r"[\\|*]|<(?=[A-Za-z/!?])", r"\\\g<0>", " ".join(text.splitlines()))


def _cell(cell: SheetCell) -> str:
    return f"**{escape(cell.text)}**" if cell.bold else escape(cell.text)
