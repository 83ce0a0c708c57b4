"""Texts without labels, from every form of data."""

import json

import pytest

from distill_jax.core.errors import UserError
from distill_jax.data.corpus import load_corpus


def test_a_file_of_lines_is_split_by_a_fixed_hash(tmp_path):
    file = tmp_path / "shop.txt"
    file.write_text("\n".join(f"text number {n}" for n in range(400)) + "\n\n")
    corpus = load_corpus(f"text:{file}")
    sizes = {split: len(table) for split, table in corpus.splits.items()}
    assert sum(sizes.values()) == 400
    assert 8 <= sizes["validation"] <= 35 and 8 <= sizes["test"] <= 35
    assert "held out of 400 texts" in corpus.notes[-1]
    file.write_text("\n".join(f"text number {n}" for n in reversed(range(400))))
    again = load_corpus(f"text:{file}")
    for split in sizes:
        assert set(again.splits[split].texts) == set(corpus.splits[split].texts)


def test_equal_texts_stay_together(tmp_path):
    file = tmp_path / "shop.txt"
    file.write_text("\n".join(f"Text  number {n % 100}" for n in range(400)))
    splits = [set(table.texts) for table in load_corpus(f"text:{file}").splits.values()]
    assert all(not one & other for one in splits for other in splits if one is not other)


def test_rows_need_no_label(tmp_path):
    for split, count in (("train", 30), ("dev", 5), ("test", 5)):
        rows = [{"review": f"{split} {n}", "stars": 1.5} for n in range(count)]
        (tmp_path / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "unlabelled.txt").write_text("one more\n")
    corpus = load_corpus(f"files:{tmp_path}", text="review")
    assert [len(corpus.splits[s]) for s in ("train", "validation", "test")] == [31, 5, 5]
    assert corpus.splits["test"].texts[0] == "test 0" and corpus.splits["test"].labels_N is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"review": 3}\n', "expected text in column 'review', found 3"),
        ('{"text": "a"}\n', "unknown column 'review'.*--text"),
        ('{"review": ""}\n', "no texts"),
        ('{"review": "one"}\n', "1 texts are too few to hold out"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(tmp_path, content, message):
    (tmp_path / "rows.jsonl").write_text(content)
    with pytest.raises(UserError, match=message):
        load_corpus(f"text:{tmp_path / 'rows.jsonl'}", text="review")


def test_what_is_not_there_is_said(tmp_path):
    with pytest.raises(UserError, match="no file"):
        load_corpus(f"text:{tmp_path / 'nothing.txt'}")
    with pytest.raises(UserError, match="text:FILE"):
        load_corpus("no_such_data")
    (tmp_path / "a.pdf").write_text("x")
    with pytest.raises(UserError, match=r"expected one of \.txt, \.csv"):
        load_corpus(f"text:{tmp_path / 'a.pdf'}")
