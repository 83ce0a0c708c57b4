"""Fields of items: categories and bands, by their definitions."""

import json

import numpy as np
import pytest

from distill_jax.core.errors import UserError
from distill_jax.data.item_fields import BANDS, numbered, read_item_fields

ITEMS = tuple(f"i{n}" for n in range(25))


def test_bands_hold_as_many_each_and_their_upper_end():
    values = np.random.default_rng(0).permutation(40) * 3.5
    numbers, size, what = numbered([f"{value}" for value in values] + [""])
    assert size == BANDS + 1 and what == "10 bands of numbers" and numbers.dtype == np.int32
    assert numbers[-1] == 0 and np.bincount(numbers[:-1], minlength=size).tolist() == [0] + [4] * 10
    order = np.argsort(values)
    assert (np.diff(numbers[order]) >= 0).all()
    # Many equal ones are in one band, whose edge they are.
    numbers, size, _ = numbered(["1"] * 30 + [str(n) for n in range(2, 14)])
    assert len(set(numbers[:30])) == 1 and numbers[:30].max() < numbers[30:].min()
    assert numbers.max() == size - 1


def test_few_numbers_and_words_are_categories():
    numbers, size, what = numbered(["b", "a", "", "b", "3"])
    assert (numbers.tolist(), size, what) == ([3, 2, 0, 3, 1], 4, "3 categories")
    numbers, size, _ = numbered([str(n % BANDS) for n in range(30)])
    assert size == BANDS + 1 and numbers.min() == 1
    _, size, what = numbered([str(n) for n in range(20)] + ["many"])
    assert what == "21 categories" and size == 22


def test_a_grown_catalogue_keeps_the_numbers_of_the_first():
    first = [f"{n * 2}" for n in range(20)]
    numbers, size, what = numbered([*first, "7", "1000", "dear", ""], 20)
    alone = numbered(first)
    assert numbers[:20].tolist() == alone[0].tolist() and (size, what) == alone[1:]
    assert numbers[20:].tolist() == [alone[0][3], size - 1, 0, 0]  # 7 is with 6
    assert numbered(["b", "c", "", "a", "c"], 2)[0].tolist() == [1, 2, 0, 0, 2]


def table(path, rows, header="sku,price,brand"):
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def test_a_table_read_for_a_catalogue(tmp_path):
    rows = [f"i{n},{n * 2},{'ab'[n % 2]}" for n in range(24)] + ["other,1,z"]
    found = read_item_fields(table(tmp_path / "items.csv", rows), ITEMS)
    assert found.names == ("price", "brand") and found.sizes == (11, 3)
    assert found.numbers_IC.shape == (25, 2) and found.numbers_IC[-1].tolist() == [0, 0]
    assert found.numbers_IC[:4, 1].tolist() == [1, 2, 1, 2]  # of the catalogue alone: no z
    assert "items.csv: field 'price' has 10 bands of numbers" in found.notes
    assert any(note.startswith("1 of 25 items are not in items.csv") for note in found.notes)
    lines = [json.dumps({"item": f"i{n}", "price": n * 2, "brand": "ab"[n % 2]}) for n in range(24)]
    (tmp_path / "same.jsonl").write_text("\n".join(lines) + "\n")
    assert read_item_fields(tmp_path / "same.jsonl", ITEMS).digest == found.digest
    gap = json.dumps({"item": "i24", "price": float("nan"), "brand": float("nan")})
    (tmp_path / "gap.jsonl").write_text("\n".join([*lines, gap]) + "\n")
    assert read_item_fields(tmp_path / "gap.jsonl", ITEMS).digest == found.digest
    other = read_item_fields(table(tmp_path / "more.csv", [*rows, "i24,99,a"]), ITEMS)
    assert other.digest != found.digest


@pytest.mark.parametrize(
    "rows, header, said",
    [
        (["x,1"], "sku,price", "none of its items is in the catalogue"),
        (["i1,1", "i1,2"], "sku,price", "line 3: item 'i1' occurs a second time"),
        (["i1,1", ",2"], "sku,price", "line 3: column 'sku' is empty; expected an item"),
        (["i1"], "sku", "expected item, and a column a field"),
        (["i1,2"], "what,price", "expected item, and a column a field"),
    ],
)
def test_what_is_no_such_table(rows, header, said, tmp_path):
    with pytest.raises(UserError, match=said):
        read_item_fields(table(tmp_path / "items.csv", rows, header), ITEMS)
    with pytest.raises(UserError, match="no file"):
        read_item_fields(tmp_path / "none.csv", ITEMS)
