"""Files of texts: columns, splits, ids, the transfer set, and what is said of a bad row."""

import numpy as np
import pytest
from text_files import DEV, TEST, TRAIN, fails, many, write, write_all

from distill_jax.data import files
from distill_jax.data.load import load_dataset


@pytest.mark.parametrize("ending", [".tsv", ".csv", ".jsonl"])
def test_three_files_of_any_kind(tmp_path, ending):
    write_all(tmp_path, ending)
    dataset = load_dataset(f"files:{tmp_path}")
    assert dataset.label_names == ("neg", "pos") and dataset.notes == ()
    train = dataset.splits["train"]
    assert train.texts == ("good", "bad", "fine", "awful")
    assert train.labels_N.tolist() == [1, 0, 1, 0] and train.labels_N.dtype == np.int32
    assert dataset.splits["validation"].texts == ("sweet", "sour")
    assert dataset.splits["test"].texts == ("nice", "poor")


def test_the_format_does_not_enter_the_digest(tmp_path):
    digests = set()
    for ending in (".tsv", ".csv", ".jsonl"):
        (tmp_path / ending).mkdir()
        write_all(tmp_path / ending, ending)
        digests.add(files.load(tmp_path / ending).digest)
    assert len(digests) == 1


def test_csv_quoting_and_line_breaks_in_cells(tmp_path):
    write_all(tmp_path, ".csv")
    (tmp_path / "train.csv").write_bytes(
        b'\xef\xbb\xbfsentence,label\r\n"so, ""so""\nlong",pos\r\nbad,neg\r\n'
    )
    assert files.load(tmp_path).splits["train"].texts == ('so, "so"\nlong', "bad")


def test_tsv_takes_quotes_as_they_are(tmp_path):
    write_all(tmp_path)
    (tmp_path / "train.tsv").write_text('sentence\tlabel\n"odd quote\tpos\nbad\tneg\n')
    assert files.load(tmp_path).splits["train"].texts == ('"odd quote', "bad")


def test_jsonl_keeps_unusual_line_separators_in_text(tmp_path):
    write_all(tmp_path, ".jsonl")
    (tmp_path / "train.jsonl").write_text(
        '{"sentence": "a\u2028b", "label": 1}\n{"sentence": "c", "label": 0}\n', encoding="utf-8"
    )
    for stem in ("dev", "test"):
        write(tmp_path, stem, [("x", 0), ("y", 1)], ".jsonl")
    dataset = files.load(tmp_path)
    assert dataset.splits["train"].texts[0] == "a\u2028b"
    assert dataset.label_names == ("0", "1")


def test_pairs(tmp_path):
    for stem in ("train", "dev", "test"):
        rows = [(f"{stem} q1", "a", "yes"), (f"{stem} q2", "b", "no")]
        write(tmp_path, stem, rows, header=("question", "answer", "label"))
    dataset = files.load(tmp_path, text="question", text_b="answer")
    assert dataset.splits["train"].texts_b == ("a", "b")


def test_ids_come_from_the_content_or_from_their_column(tmp_path):
    write_all(tmp_path)
    write(tmp_path, "train", [*TRAIN, ("good", "pos")])
    ids = files.load(tmp_path).splits["train"].ids
    write(tmp_path, "train", [("first", "pos"), *TRAIN, ("good", "pos")])
    assert files.load(tmp_path).splits["train"].ids[1:] == ids
    assert ids[4] == f"{ids[0]}-2"
    rows = [(7, "good", "pos"), (3, "bad", "neg")]
    write(tmp_path, "train", rows, header=("id", "sentence", "label"))
    assert files.load(tmp_path).splits["train"].ids == ("7", "3")


def test_rows_without_a_label_and_a_transfer_file_are_transfer_set(tmp_path):
    write_all(tmp_path)
    write(tmp_path, "train", [*TRAIN, ("unlabelled", "")])
    write(tmp_path, "transfer", [("more",), ("text",)], header=("sentence",))
    dataset = files.load(tmp_path)
    assert dataset.splits["train"].texts[-3:] == ("unlabelled", "more", "text")
    assert dataset.splits["train"].labels_N.tolist() == [1, 0, 1, 0, -1, -1, -1]
    assert dataset.notes == (
        "1 of 5 train rows have no label: transfer set",
        "2 rows of the transfer file joined train without labels",
    )


@pytest.mark.parametrize("unlabelled_test", [False, True])
def test_without_a_labelled_test_file_dev_is_test(tmp_path, caplog, unlabelled_test):
    """GLUE's layout: the test file has other columns and no labels."""
    write(tmp_path, "train", many(300))
    write(tmp_path, "dev", many(20, start=1000))
    if unlabelled_test:
        write(tmp_path, "test", [(0, "secret")], header=("index", "sentence"))
    dataset = files.load(tmp_path)
    train, validation, test = (dataset.splits[s] for s in ("train", "validation", "test"))
    assert len(test) == 20 and len(train) + len(validation) == 300
    assert 15 <= len(validation) <= 45
    assert not set(train.texts) & set(validation.texts)
    assert "the validation (dev) split serves as test" in dataset.notes
    assert any("serve as validation" in note for note in dataset.notes)
    assert ("the test split has no labels and is not used" in dataset.notes) == unlabelled_test
    assert all(note in caplog.text for note in dataset.notes)


def test_what_is_held_out_depends_on_the_text_alone(tmp_path):
    write(tmp_path, "train", many(300))
    write(tmp_path, "test", many(20, start=1000))
    before = set(files.load(tmp_path).splits["validation"].texts)
    write(tmp_path, "train", [*many(100, start=300), *many(300)[::-1], *many(50)])
    after = files.load(tmp_path).splits["validation"].texts
    assert before <= set(after)
    assert not set(after) & set(files.load(tmp_path).splits["train"].texts)


def test_shared_texts_are_noted(tmp_path):
    write_all(tmp_path)
    write(tmp_path, "test", [("Good", "pos"), ("poor", "neg")])
    assert files.load(tmp_path).notes == ("1 of 2 test texts occur in train too",)


def test_too_little_train_data_to_hold_out(tmp_path):
    write(tmp_path, "train", [("one", "a"), ("two", "b")])
    write(tmp_path, "test", [("three", "a")])
    fails(tmp_path, r"too few rows \(2\) to hold out")


BAD_ROWS = {
    "cells": (".tsv", "sentence\tlabel\ngood\tpos\nbad\n", r"line 3: 1 cells; expected 2"),
    "quote": (".csv", 'sentence,label\ngood,pos\n"bad,neg\n', r"line 3: unexpected end of data"),
    "empty": (".tsv", "", "the file is empty; expected a header"),
    "no rows": (".tsv", "sentence\tlabel\n", "no rows; expected at least one"),
    "no text": (".csv", "sentence,label\ngood,pos\n ,neg\n", "line 3: expected text in column"),
    "twice": (".csv", "label,label\na,b\n", "line 1: a column occurs twice"),
    "json": (".jsonl", '{"sentence": "a", "label": 1}\n{"sentence"\n', "line 2: .*a JSON object"),
    "list": (".json", "[1]\n", "row 1: expected a JSON object, found 1"),
    "columns": (".json", '{"sentence": {"0": "a"}}', r"object with 'sentence'; .*orient='records'"),
    "number": (".jsonl", '{"sentence": 3, "label": 1}\n', "line 1: expected text .* found 3"),
    "set": (
        ".jsonl",
        '{"sentence": "a", "label": [1, 2]}\n',
        r"line 1: .*\[1, 2\]: several labels",
    ),
    "object": (".json", '[{"sentence": "a", "label": {"x": 1}}]', "row 1: .*several labels an"),
    "key": (
        ".jsonl",
        '{"sentence": "a", "label": 1}\n{"text": "b"}\n',
        "line 2.*There: text. Name the col",
    ),
    "no labels": (".jsonl", '{"sentence": "a"}\n', "at least two different labels, found none"),
    "one label": (".csv", "sentence,label\na,x\nb,x\n", "at least two different labels, found x"),
}


@pytest.mark.parametrize("case", BAD_ROWS)
def test_a_bad_file_is_reported_with_its_line(tmp_path, case):
    ending, content, match = BAD_ROWS[case]
    write(tmp_path, "dev", [("x", 1)])
    (tmp_path / f"train{ending}").write_text(content)
    fails(tmp_path, match)


def test_not_utf8(tmp_path):
    write_all(tmp_path)
    (tmp_path / "train.tsv").write_bytes(
        "sentence\tlabel\ngood\tpos\ncaf\xe9\tneg\n".encode("latin1")
    )
    fails(tmp_path, r"train\.tsv, line 3: byte 0xe9 is not UTF-8")


def test_unknown_columns_suggest_the_nearest(tmp_path):
    write_all(tmp_path)
    fails(
        tmp_path, r"unknown column 'sentences' in .*train\.tsv.*mean 'sentence'", text="sentences"
    )
    fails(tmp_path, r"unknown column 'lable'.*mean 'label'", label="lable")
    fails(
        tmp_path, r"unknown column 'other'.*There: sentence, label. Name.*--text-b", text_b="other"
    )


def test_dev_without_a_label(tmp_path):
    write_all(tmp_path)
    write(tmp_path, "dev", [("sweet", "pos"), ("sour", "")])
    fails(tmp_path, "1 validation examples have no label")


def test_transfer_texts_of_other_files_are_left_out(tmp_path):
    write_all(tmp_path)
    write(tmp_path, "transfer", [("Good",), ("poor",), ("sour",), ("new",)], header=("sentence",))
    dataset = files.load(tmp_path)
    assert dataset.splits["train"].texts == ("good", "bad", "fine", "awful", "new")
    assert dataset.notes == (
        "3 of 4 texts of the transfer file are in train, validation or test and left out",
        "1 rows of the transfer file joined train without labels",
    )


def test_an_example_that_two_files_share_keeps_its_id(tmp_path):
    """The check before training refuses it; a new name would hide it."""
    header = ("id", "sentence", "label")
    for stem, rows in (("train", TRAIN), ("dev", DEV), ("test", [*TEST, TRAIN[0]])):
        numbered = [(n, *row) for n, row in enumerate(rows)]
        if stem == "test":
            numbered[-1] = (0, *TRAIN[0])
            numbered[0] = (9, *TEST[0])
        write(tmp_path, stem, numbered, header=header)
    dataset = files.load(tmp_path)
    assert dataset.splits["test"].ids == ("test/9", "test/1", "0")
    assert dataset.splits["validation"].ids == ("validation/0", "validation/1")
