import json

import pytest

from distill_jax.core.errors import UserError
from distill_jax.data.load_search import load_search
from distill_jax.data.query_product import TRANSFER


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "train.tsv").write_text(
        "query\tproduct\tgain\nshoe\tRed shoe\t2\nshoe\tHat\t0\nboot\tRed shoe\t\n"
    )
    (tmp_path / "dev.csv").write_text("query,product,label\ncap,Hat,E\n")
    (tmp_path / "test.jsonl").write_text(
        json.dumps({"query": "hat", "product": "Hat", "gain": 1.5}) + "\n"
    )
    (tmp_path / "transfer.csv").write_text("query,product\nglove,Mitten\n")
    (tmp_path / "products.csv").write_text("product_id,product\n7,Scarf\n")
    return tmp_path


def test_every_form_of_file_is_read(folder):
    data = load_search(f"pairs:{folder}")
    assert data.items == ("Scarf", "Red shoe", "Hat", "Mitten") and data.item_ids[0] == "7"
    assert {s: [data.queries[q] for q in rows] for s, rows in data.splits.items()} == {
        "train": ["shoe"],
        "validation": ["cap"],
        "test": ["hat"],
        TRANSFER: ["boot", "glove"],
    }
    items, gains = data.judged(data.queries.index("shoe"))
    assert items.tolist() == [1, 2] and gains.tolist() == [2, 0]
    assert data.unjudged(data.queries.index("glove")).tolist() == [3]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("train.tsv", "query\tproduct\tgain\na\tb\t-1\n", r"line 2: expected a number from 0 on"),
        ("train.tsv", "query\tproduct\tgain\na\tb\tnan\n", r"line 2: expected a number from 0 on"),
        ("train.tsv", "query\tproduct\tgain\na\t \t1\n", r"line 2: expected text in column 'prod"),
        ("train.tsv", "query\tgain\na\t1\n", r"unknown column 'product'"),
        ("train.tsv", "query\tproduct\na\tb\n", r"unknown column 'gain' .*or 'label'"),
        ("dev.csv", "query,product,label\na,b,X\n", r"unknown label 'X' in .*dev.csv, line 2"),
        ("dev.csv", "query,product,label\n", r"no rows"),
        ("products.csv", "product_id\n1\n", r"unknown column 'product'"),
    ],
)
def test_damaged_files_are_named(folder, name, text, message):
    (folder / name).write_text(text)
    with pytest.raises(UserError, match=message):
        load_search(f"pairs:{folder}")


def test_missing_and_double_files_are_named(folder):
    (folder / "test.csv").write_text("query,product,gain\na,b,1\n")
    with pytest.raises(UserError, match=r"both test.csv and test.jsonl"):
        load_search(f"pairs:{folder}")
    (folder / "test.csv").unlink()
    (folder / "test.jsonl").unlink()
    with pytest.raises(UserError, match=r"no test file in .* beside .*train\.tsv"):
        load_search(f"pairs:{folder}")
    with pytest.raises(UserError, match="no folder"):
        load_search(f"pairs:{folder / 'nowhere'}")
