"""The user's own query-product pairs: a folder of files as docs/data.md has them, a pair a row.

``train``, ``test`` and where there are some ``dev`` and ``transfer``, with the columns ``query``,
``product``, and ``gain`` (a number from 0 on) or ``label`` (E, S, C or I, as ESCI's);
``product_id`` tells products of one text apart. Rows with an empty gain or label, and all rows of
``transfer``, are pairs without a judgement. A file ``products`` (``product_id``, ``product``) holds
products that no pair names; they can be found all the same.
"""

import math
from pathlib import Path
from typing import Any

from distill_jax.core.errors import UserError, unknown
from distill_jax.data.esci import GAINS
from distill_jax.data.file_formats import ENDINGS, one_file, place, read_cells
from distill_jax.data.query_product import TRANSFER, Judgement, SearchData, build_search_data
from distill_jax.data.split_files import TEXT, find_split_files
from distill_jax.data.table import check_named

_TEXTS = ("query", "product")
_PRODUCTS = "products"


def load(folder: Path) -> SearchData:
    """The pairs of a folder.

    Raises:
      UserError: one line that names the file, the line in it and what was expected.
    """
    files = find_split_files(folder, what="data pairs", extra=(_PRODUCTS,))
    if "test" not in files.paths:
        raise UserError(f"data pairs: no test file in {folder} beside {files.paths['train'][0]}.")
    judgements: list[Judgement] = []
    for split, paths in files.paths.items():
        for path in paths:
            judgements += _read(path, split)
    more = one_file(folder, [_PRODUCTS], ENDINGS, "data pairs")
    items = None if more is None else _products(more)
    return build_search_data(f"pairs:{folder}", judgements, more_items=items, notes=files.notes)


def _read(path: Path, split: str) -> list[Judgement]:
    rows = []
    if path.suffix == TEXT:
        raise UserError(f"{path}: a text a line is no pair; expected transfer.csv.")
    for line, cells in read_cells(path):
        check_named(_TEXTS, cells, place(path, line))
        query, product = (_text(path, line, name, cells[name]) for name in _TEXTS)
        gain = None if split == TRANSFER else _gain(path, line, cells)
        where = split if gain is not None else TRANSFER
        rows.append(Judgement(query, str(cells.get("product_id") or product), product, gain, where))
    if not rows:
        raise UserError(f"{path}: no rows; expected at least one.")
    return rows


def _products(path: Path) -> dict[str, str]:
    items: dict[str, str] = {}
    for line, cells in read_cells(path):
        check_named(["product"], cells, place(path, line))
        text = _text(path, line, "product", cells["product"])
        items[str(cells.get("product_id") or text)] = text
    return items


def _text(path: Path, line: int, column: str, value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise UserError(
            f"{place(path, line)}: expected text in column {column!r}, found {value!r}."
        )
    return " ".join(value.split())


def _gain(path: Path, line: int, cells: dict[str, Any]) -> float | None:
    """The pair's gain; None where nobody judged it."""
    if "gain" not in cells and "label" not in cells:
        raise unknown("column", "gain", cells, where=f"in {place(path, line)} (or 'label')")
    value = cells.get("gain", cells.get("label"))
    if value is None or value == "":
        return None
    if "gain" not in cells:
        letter = str(value).strip().upper()
        if letter not in GAINS:
            raise unknown("label", str(value), GAINS, where=f"in {place(path, line)}")
        return GAINS[letter]
    try:
        gain = float(value)
    except (TypeError, ValueError):
        gain = math.nan
    if not 0 <= gain < math.inf:
        raise UserError(
            f"{place(path, line)}: expected a number from 0 on in column 'gain', found {value!r}."
        )
    return gain
