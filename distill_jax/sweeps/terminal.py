"""A comparison table in a terminal: as wide as the terminal, continued below where needed."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table as RichTable
from rich.text import Text

if TYPE_CHECKING:
    from distill_jax.sweeps.table import Table

LABELS = 3
"""Leading columns (group, row, seeds) that every block repeats."""
MIN_LABEL_WIDTH = 16
GAP = 2
"""Columns that a cell takes beside its text: one of padding, one of the frame."""


@dataclasses.dataclass(frozen=True)
class TerminalTable:
    """The table in blocks of whole columns, none wider than the console, footnotes below.

    Numbers are never wrapped or cut; only a long row label is folded.
    """

    table: "Table"

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield from _blocks_of(self.table, options.max_width)
        for note in self.table.notes:
            yield Text(note, style="dim")


def _blocks_of(table: "Table", width: int) -> Iterator[RichTable]:
    heading, plain, marked = table.heading(), table.body("{}"), table.body()
    widths = [max(map(cell_len, cells)) for cells in zip(heading, *plain, strict=True)]
    label_width = min(widths[1], max(MIN_LABEL_WIDTH, width // 3))
    room = width - (widths[0] + label_width + widths[2] + LABELS * GAP + 2)
    for block in _blocks(widths[LABELS:], room):
        indices = [*range(LABELS), *(LABELS + index for index in block)]
        rich = RichTable(box=box.SIMPLE_HEAD, padding=(0, GAP - 1, 0, 0), pad_edge=False)
        for index in indices:
            rich.add_column(
                Text(heading[index]),
                justify="left" if index < 2 else "right",
                no_wrap=index != 1,
                width=label_width if index == 1 else widths[index],
                overflow="fold",
            )
        group = None
        for row, cells, marks in zip(table.rows, plain, marked, strict=True):
            if group is not None and row.group != group:
                rich.add_section()
            group = row.group
            # Text, not str: labels may hold brackets, which rich would read as markup.
            rich.add_row(
                *(Text(cells[i], style="bold" if cells[i] != marks[i] else "") for i in indices)
            )
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
