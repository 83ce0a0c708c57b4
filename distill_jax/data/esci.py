"""Amazon's Shopping Queries data set (ESCI), in its own files: parquet, CSV, TSV or JSONL.

Reddy et al. 2022, "Shopping Queries Dataset: A Large-Scale ESCI Benchmark for Improving Product
Search". A folder holds ``shopping_queries_dataset_examples`` (query, query_id, product_id,
product_locale, esci_label, small_version, large_version, split) and
``shopping_queries_dataset_products`` (product_id, product_locale, product_title, product_brand,
...), or one file of examples that has the products' columns as well.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from distill_jax.core.errors import UserError, unknown
from distill_jax.data.file_formats import one_file, read_cells
from distill_jax.data.query_product import TRANSFER, Judgement, SearchData, build_search_data
from distill_jax.data.table import SPLITS, check_named

GAINS = {"E": 1.0, "S": 0.1, "C": 0.01, "I": 0.0}
"""Exact, substitute, complement, irrelevant: the gains of the paper's ranking task (section 4)."""

_WORDS = {"exact": "E", "substitute": "S", "complement": "C", "irrelevant": "I"}
_STEM = "shopping_queries_dataset_"
_ENDINGS = (".parquet", ".csv", ".tsv", ".jsonl")
_EXAMPLE_COLUMNS = ("query", "product_id", "esci_label", "split")
_PRODUCT_TEXTS = ("product_title", "product_brand", "product_color")
VERSIONS = ("small", "large")


def load(folder: Path, *, locale: str = "us", version: str = "small") -> SearchData:
    """The queries of a locale, judged E, S, C or I.

    A product's text is its title, brand and colour. The published splits are train and test; a
    tenth of the training queries (a hash of the query) becomes validation. Rows without a label
    are transfer set.

    Args:
      locale: ``us``, ``es`` or ``jp``; every row counts where the files name no locale.
      version: ``small`` (the ranking task's) or ``large`` (all); as above.

    Raises:
      UserError: for a missing file or column, an unknown label, locale or version, and for
        parquet files where pyarrow is not installed.
    """
    if version not in VERSIONS:
        raise unknown("version of ESCI", version, VERSIONS)
    examples = one_file(folder, [f"{_STEM}examples"], _ENDINGS, "data esci")
    if examples is None:
        names = " or ".join(f"{_STEM}examples{ending}" for ending in _ENDINGS)
        raise UserError(f"data esci: no {names} in {folder}.")
    products_file = one_file(folder, [f"{_STEM}products"], _ENDINGS, "data esci")
    texts = {} if products_file is None else _products(products_file, locale)
    judgements, locales = [], set()
    for line, row in _rows(examples, _EXAMPLE_COLUMNS):
        locales.add(str(row.get("product_locale", locale)))
        wanted = str(row.get(f"{version}_version", "1")) not in ("0", "0.0", "False")
        if str(row.get("product_locale", locale)) != locale or not wanted:
            continue
        item_id = str(row["product_id"])
        text = texts.get(item_id) or _text(row)
        if not text:
            raise UserError(f"{examples}, line {line}: no title of product {item_id!r}.")
        gain = _gain(row["esci_label"], examples, line)
        split = str(row["split"]) if gain is not None else TRANSFER
        if split not in (*SPLITS, TRANSFER):
            raise unknown("split", split, SPLITS, where=f"in {examples}, line {line}")
        judgements.append(Judgement(str(row["query"]), item_id, text, gain, split))
    if not judgements:
        raise unknown("locale", locale, locales, where=f"in {examples}")
    return build_search_data(f"esci:{folder}", judgements)


def _gain(label: Any, path: Path, line: int) -> float | None:
    word = "" if label is None else str(label).strip()
    if not word:
        return None
    letter = _WORDS.get(word.lower(), word.upper())
    if letter not in GAINS:
        raise unknown("ESCI label", word, GAINS, where=f"in {path}, line {line}")
    return GAINS[letter]


def _products(path: Path, locale: str) -> dict[str, str]:
    return {
        str(row["product_id"]): _text(row)
        for _, row in _rows(path, ("product_id", "product_title"))
        if str(row.get("product_locale", locale)) == locale
    }


def _text(row: Mapping[str, Any]) -> str:
    cells = (row.get(name) for name in _PRODUCT_TEXTS)
    return " | ".join(str(cell).strip() for cell in cells if cell and str(cell).strip())


def _rows(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line or row number, cells) of any of the forms, the needed columns there."""
    for line, cells in read_cells(path):
        check_named(columns, cells, str(path))
        yield line, cells
