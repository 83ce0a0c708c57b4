"""A table in a terminal: as wide as the terminal, continued below where needed."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table as RichTable
from rich.text import Text

from distill_jax.sweeps.sheet import Sheet, sheets_of

if TYPE_CHECKING:
    from distill_jax.sweeps.table import Table

MIN_LABEL_WIDTH = 16
GAP = 2
"""Columns that a cell takes beside its text: one of padding, one of the frame."""


@dataclasses.dataclass(frozen=True)
class TerminalTable:
    """The table in blocks of whole columns, none wider than the console, footnotes below.

    Numbers are never wrapped or cut; only a long row label is folded. Every block repeats the
    columns that say which line it is.
    """

    table: "Table"

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for sheet in sheets_of(self.table):
            for sentence in sheet.lead:
                yield Text(sentence)
            yield from _blocks_of(sheet, options.max_width)
        for note in (*self.table.protocol, *self.table.notes):
            yield Text(note, style="dim")


def _blocks_of(sheet: Sheet, width: int) -> Iterator[RichTable]:
    plain = [sheet.heading, *(tuple(cell.text for cell in line.cells) for line in sheet.lines)]
    widths = [max(map(cell_len, cells)) for cells in zip(*plain, strict=True)]
    repeated, folded = sheet.repeated, sheet.labels - 1
    label_width = min(widths[folded], max(MIN_LABEL_WIDTH, width // 3))
    beside = sum(widths[:repeated]) - widths[folded]
    room = width - (beside + label_width + repeated * GAP + 2)
    for block in _blocks(widths[repeated:], room):
        indices = [*range(repeated), *(repeated + index for index in block)]
        rich = RichTable(box=box.SIMPLE_HEAD, padding=(0, GAP - 1, 0, 0), pad_edge=False)
        for index in indices:
            rich.add_column(
                Text(sheet.heading[index]),
                justify="left" if index < sheet.labels else "right",
                no_wrap=index != folded,
                width=label_width if index == folded else widths[index],
                overflow="fold",
            )
        for number, line in enumerate(sheet.lines):
            if number and line.section != sheet.lines[number - 1].section:
                rich.add_section()
            # Text, not str: labels may hold brackets, which rich would read as markup.
            cells = [line.cells[index] for index in indices]
            rich.add_row(*(Text(cell.text, style="bold" if cell.bold else "") for cell in cells))
        yield rich


def _blocks(widths: Sequence[int], room: int) -> list[list[int]]:
    """Consecutive columns in blocks that fit ``room``; a block holds at least one column."""
    blocks: list[list[int]] = [[]]
    used = 0
    for index, width in enumerate(widths):
        if blocks[-1] and used + width + GAP > room:
            blocks.append([])
            used = 0
        blocks[-1].append(index)
        used += width + GAP
    return blocks
