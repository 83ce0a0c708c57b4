"""A table in a terminal: as wide as the terminal, continued below where needed."""

import dataclasses
from collections.abc import Iterator

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table as RichTable
from rich.text import Text

from distill_jax.tables.sheet import Sheet, sheets_of
from distill_jax.tables.table import Table

MIN_LABEL_WIDTH = 16
MAX_TITLE_WIDTH = 20
GAP = 2
"""Columns that a cell takes beside its text: one of padding, one of the frame."""


@dataclasses.dataclass(frozen=True)
class TerminalTable:
    """The table in blocks of whole columns, none wider than the console, footnotes below.

    Numbers are never wrapped or cut; long labels and titles are folded. Every block repeats the
    columns that say which line it is.
    """

    table: Table

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for sheet in sheets_of(self.table):
            for sentence in sheet.lead:
                yield Text(sentence)
            yield from _blocks_of(sheet, options.max_width)
        for note in (*self.table.spec.protocol, *self.table.notes):
            yield Text(note, style="dim")


def _blocks_of(sheet: Sheet, width: int) -> Iterator[RichTable]:
    sheet = sheet.without_empty()
    widths = _widths(sheet, width)
    for block in sheet.blocks([each + GAP for each in widths], width - 2):
        rich = RichTable(box=box.SIMPLE_HEAD, padding=(0, GAP - 1, 0, 0), pad_edge=False)
        for index in block:
            rich.add_column(
                Text(sheet.heading[index]),
                justify="left" if index < sheet.labels else "right",
                width=widths[index],
                overflow="fold",
            )
        for number, line in enumerate(sheet.lines):
            if number and line.section != sheet.lines[number - 1].section:
                rich.add_section()
            # Text, not str: labels may hold brackets, which rich would read as markup.
            cells = [line.cells[index] for index in block]
            rich.add_row(*(Text(cell.text, style="bold" if cell.bold else "") for cell in cells))
        yield rich


def _widths(sheet: Sheet, width: int) -> list[int]:
    """Of columns: numbers are whole, labels and titles are folded where they are long."""
    widths = []
    for index, title in enumerate(sheet.heading):
        cells = max((cell_len(line.cells[index].text) for line in sheet.lines), default=0)
        words = max(map(cell_len, title.split()), default=0)
        if index < sheet.labels:
            last = index == sheet.labels - 1
            limit = max(MIN_LABEL_WIDTH, width // 3) if last else max(words, width // 6)
            widths.append(min(max(cells, cell_len(title)), limit))
        else:
            widths.append(max(cells, words, min(cell_len(title), MAX_TITLE_WIDTH)))
    return widths
