import csv
import sys

import pytest

from distill_jax.core.errors import UserError
from distill_jax.data.load_search import load_search
from distill_jax.data.query_product import TRANSFER

EXAMPLES = [
    ("red shoe", "1", "P1", "us", "E", "1", "1", "train"),
    ("red shoe", "1", "P2", "us", "S", "1", "1", "train"),
    ("red shoe", "1", "P3", "us", "C", "1", "1", "train"),
    ("blue hat", "2", "P3", "us", "Exact", "1", "1", "test"),
    ("blue hat", "2", "P1", "us", "I", "1", "1", "test"),
    ("only large", "3", "P1", "us", "E", "0", "1", "train"),
    ("sombrero", "4", "P9", "es", "E", "1", "1", "train"),
    ("no label", "5", "P2", "us", "", "1", "1", "train"),
    ("valid", "6", "P2", "us", "E", "1", "1", "validation"),
]
HEADER = (
    *("query", "query_id", "product_id", "product_locale", "esci_label"),
    *("small_version", "large_version", "split"),
)
PRODUCTS = [
    ("P1", "us", "Shoe", "Acme", "red"),
    ("P2", "us", "Boot", "", ""),
    ("P3", "us", "Hat", "Acme", "blue"),
    ("P9", "es", "Sombrero", "", ""),
]
PRODUCT_HEADER = (
    *("product_id", "product_locale", "product_title", "product_brand", "product_color"),
)


def write(path, header, rows):
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])


@pytest.fixture
def folder(tmp_path):
    write(tmp_path / "shopping_queries_dataset_examples.csv", HEADER, EXAMPLES)
    write(tmp_path / "shopping_queries_dataset_products.csv", PRODUCT_HEADER, PRODUCTS)
    return tmp_path


def test_labels_become_the_papers_gains(folder):
    data = load_search(f"esci:{folder}")
    assert data.queries == ("red shoe", "blue hat", "no label", "valid")
    items, gains = data.judged(0)
    assert [data.items[i] for i in items] == ["Shoe | Acme | red", "Boot", "Hat | Acme | blue"]
    assert gains == pytest.approx([1, 0.1, 0.01])
    assert data.judged(1)[1] == pytest.approx([1, 0])
    assert [data.queries[q] for q in data.splits[TRANSFER]] == ["no label"]
    assert data.unjudged(2).tolist() == [data.item_ids.index("P2")]


def test_version_and_locale_choose(folder):
    assert "only large" in load_search(f"esci:{folder}", version="large").queries
    with pytest.raises(UserError, match=r"unknown locale 'jp'.* Allowed: es, us"):
        load_search(f"esci:{folder}", locale="jp")
    with pytest.raises(UserError, match="unknown version of ESCI 'tiny'"):
        load_search(f"esci:{folder}", version="tiny")


def test_parquet_says_the_same_as_csv(folder, tmp_path):
    pytest.importorskip("pyarrow")
    import pyarrow as pa
    import pyarrow.parquet as parquet

    other = tmp_path / "parquet"
    other.mkdir()
    for name, header, rows in (
        ("examples", HEADER, EXAMPLES),
        ("products", PRODUCT_HEADER, PRODUCTS),
    ):
        columns = {key: [row[n] or None for row in rows] for n, key in enumerate(header)}
        for key in ("small_version", "large_version"):
            if key in columns:
                columns[key] = [int(x or 0) for x in columns[key]]
        parquet.write_table(pa.table(columns), other / f"shopping_queries_dataset_{name}.parquet")
    assert load_search(f"esci:{other}").digest == load_search(f"esci:{folder}").digest
    (other / "shopping_queries_dataset_examples.parquet").write_bytes(b"PAR1 not")
    with pytest.raises(UserError, match="is no whole Parquet file"):
        load_search(f"esci:{other}")


def test_parquet_without_pyarrow_says_what_to_do(folder, monkeypatch):
    (folder / "shopping_queries_dataset_examples.csv").unlink()
    (folder / "shopping_queries_dataset_examples.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(UserError, match="pip install pyarrow"):
        load_search(f"esci:{folder}")


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("esci_label", "Q", r"unknown ESCI label 'Q' in .*examples.csv, line 2"),
        ("split", "trian", r"unknown split 'trian' in .*line 2.* Did you mean 'train'"),
        ("product_id", "P77", r"line 2: no title of product 'P77'"),
    ],
)
def test_damaged_rows_are_named(folder, column, value, message):
    first = list(EXAMPLES[0])
    first[HEADER.index(column)] = value
    write(folder / "shopping_queries_dataset_examples.csv", HEADER, [first, *EXAMPLES[1:]])
    with pytest.raises(UserError, match=message):
        load_search(f"esci:{folder}")


def test_missing_files_and_columns_are_named(folder, tmp_path):
    with pytest.raises(UserError, match=r"no shopping_queries_dataset_examples\.parquet"):
        load_search(f"esci:{tmp_path / 'nowhere'}")
    write(folder / "shopping_queries_dataset_examples.csv", ("query", "split"), [("a", "train")])
    with pytest.raises(UserError, match=r"unknown column 'product_id'"):
        load_search(f"esci:{folder}")
