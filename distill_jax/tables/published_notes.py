"""What the reader must know of the published numbers that stand beside a table's own."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from distill_jax.tables.published import Number
    from distill_jax.tables.table import Table


def notes_of_published(table: "Table") -> list[str]:
    """Footnotes: whose numbers they are, which row is which, and each remark with its number.

    Remarks on rows of the table come first, under the name that the row has here.
    """
    published = table.published
    if published is None:
        return []
    first = (
        f"{published.title}: as published ({published.source}), not measured here and in no test."
    )
    if renamed := [f"`{here}` is {there}" for here, there in table.published_rows.items()]:
        first += f" There, {', '.join(renamed)}."
    here_by_there = {there: here for here, there in table.published_rows.items()}
    here_by_there |= {row.row: row.row for row in table.students}
    remarks = [
        (number.row not in here_by_there, _remark(number, here_by_there.get(number.row)))
        for number in published.numbers
        if number.remark
    ]
    told = [text for _, text in sorted(remarks, key=lambda each: each[0])]
    return [first, *(f"{published.title}: {text}" for text in (*published.remarks, *told))]


def _remark(number: "Number", here: str | None) -> str:
    name = number.row if here in (None, number.row) else f"`{here}`, there {number.row}"
    return f"{name} ({number.column}), {number.value}: {number.remark}"
