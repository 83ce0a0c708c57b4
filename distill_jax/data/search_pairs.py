"""The user's own query-product pairs: a folder of CSV, TSV or JSONL files, a pair a row.

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
from distill_jax.data.files import ENDINGS, STEMS, read_cells
from distill_jax.data.query_product import TRANSFER, Judgement, SearchData, build_search_data

_TEXTS = ("query", "product")


def load(folder: Path) -> SearchData:
    """The pairs of a folder.

    Raises:
      UserError: one line that names the file, the line in it and what was expected.
    """
    if not folder.is_dir():
        raise UserError(f"data pairs: no folder {folder}.")
    judgements: list[Judgement] = []
    for split, stems in STEMS.items():
        path = _find(folder, stems)
        if path is None and split in ("train", "test"):
            names = ", ".join(f"{stems[0]}{ending}" for ending in ENDINGS)
            raise UserError(f"data pairs: no {split} file in {folder}; expected one of {names}.")
        if path is not None:
            judgements += _read(path, split)
    more = _find(folder, ("products",))
    return build_search_data(
        f"pairs:{folder}", judgements, more_items=None if more is None else _products(more)
    )


def _find(folder: Path, stems: tuple[str, ...]) -> Path | None:
    found = [p for stem in stems for end in ENDINGS if (p := folder / f"{stem}{end}").is_file()]
    if len(found) > 1:
        raise UserError(f"data pairs: both {found[0].name} and {found[1].name} in {folder}.")
    return found[0] if found else None


def _read(path: Path, split: str) -> list[Judgement]:
    rows = []
    for line, cells in read_cells(path):
        for name in _TEXTS:
            if name not in cells:
                raise unknown("column", name, cells, where=f"in {path}, line {line}")
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
        if "product" not in cells:
            raise unknown("column", "product", cells, where=f"in {path}, line {line}")
        text = _text(path, line, "product", cells["product"])
        items[str(cells.get("product_id") or text)] = text
    return items


def _text(path: Path, line: int, column: str, value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise UserError(
            f"{path}, line {line}: expected text in column {column!r}, found {value!r}."
        )
    return " ".join(value.split())


def _gain(path: Path, line: int, cells: dict[str, Any]) -> float | None:
    """The pair's gain; None where nobody judged it."""
    if "gain" not in cells and "label" not in cells:
        raise unknown("column", "gain", cells, where=f"in {path}, line {line} (or 'label')")
    value = cells.get("gain", cells.get("label"))
    if value is None or value == "":
        return None
    if "gain" not in cells:
        letter = str(value).strip().upper()
        if letter not in GAINS:
            raise unknown("label", str(value), GAINS, where=f"in {path}, line {line}")
        return GAINS[letter]
    try:
        gain = float(value)
    except (TypeError, ValueError):
        gain = math.nan
    if not 0 <= gain < math.inf:
        raise UserError(
            f"{path}, line {line}: expected a number from 0 on in column 'gain', found {value!r}."
        )
    return gain
