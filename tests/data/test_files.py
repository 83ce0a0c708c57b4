import json

import numpy as np
import pytest

from distill_jax.core.errors import UserError
from distill_jax.data import files
from distill_jax.data.load import load_dataset

TRAIN = [("good", "pos"), ("bad", "neg"), ("fine", "pos"), ("awful", "neg")]
TEST = [("nice", "pos"), ("poor", "neg")]
DEV = [("sweet", "pos"), ("sour", "neg")]


def write(folder, stem, rows, ending=".tsv", header=("sentence", "label")):
    path = folder / f"{stem}{ending}"
    if ending == ".jsonl":
        lines = [json.dumps(dict(zip(header, row, strict=True))) for row in rows]
    else:
        separator = "\t" if ending == ".tsv" else ","
        lines = [separator.join(map(str, row)) for row in [header, *rows]]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def write_all(folder, ending=".tsv"):
    for stem, rows in (("train", TRAIN), ("dev", DEV), ("test", TEST)):
        write(folder, stem, rows, ending)


def fails(folder, match, **columns):
    with pytest.raises(UserError, match=match) as caught:
        files.load(folder, **columns)
    assert "\n" not in str(caught.value)


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


@pytest.mark.parametrize("stem", ["dev", "valid", "validation"])
def test_names_of_the_validation_file(tmp_path, stem):
    write(tmp_path, "train", TRAIN)
    write(tmp_path, stem, DEV)
    write(tmp_path, "test", TEST)
    assert files.load(tmp_path).splits["validation"].texts == ("sweet", "sour")


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


def test_whole_number_labels_are_sorted_by_value(tmp_path):
    write(tmp_path, "train", [("a", 10), ("b", 9), ("c", 2)])
    for stem in ("dev", "test"):
        write(tmp_path, stem, [(f"{stem}", 2)])
    assert files.load(tmp_path).label_names == ("2", "9", "10")


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
    assert dataset.notes == ("2 rows of the transfer file joined train without labels",)


def many(count, start=0):
    return [(f"text number {i}", i % 2) for i in range(start, start + count)]


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


def test_missing_folder_files_and_splits(tmp_path):
    fails(tmp_path / "nowhere", "no folder")
    fails(tmp_path, r"no train file in .*expected one of train\.csv, train\.tsv, train\.jsonl")
    write(tmp_path, "train", TRAIN)
    fails(tmp_path, "expected a validation or test split with labels beside train")
    write(tmp_path, "train", TRAIN, ".csv")
    fails(tmp_path, r"both train\.csv and train\.tsv")


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
    "list": (".jsonl", "[1]\n", "line 1: expected a JSON object, found"),
    "number": (".jsonl", '{"sentence": 3, "label": 1}\n', "line 1: expected text .* found 3"),
    "float": (".jsonl", '{"sentence": "a", "label": 0.5}\n', "line 1: .*whole number.*found 0.5"),
    "bool": (".jsonl", '{"sentence": "a", "label": true}\n', "line 1: .*whole number.*found True"),
    "key": (".jsonl", '{"sentence": "a", "label": 1}\n{"text": "b"}\n', "line 2.*Allowed: text"),
    "no labels": (".jsonl", '{"sentence": "a"}\n', "at least two different labels, found none"),
    "one label": (".csv", "sentence,label\na,x\nb,x\n", "at least two different labels, found x"),
    "id twice": (".csv", "id,sentence,label\n1,a,x\n2,b,y\n1,c,x\n", "line 4: id '1' .* line 2"),
    "no id": (".csv", "id,sentence,label\n1,a,x\n,b,y\n", "line 3: expected an id"),
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
    fails(tmp_path, r"unknown column 'other'.*Allowed: label, sentence", text_b="other")


def test_a_label_that_train_does_not_have(tmp_path):
    write_all(tmp_path)
    write(tmp_path, "dev", [("sweet", "pos"), ("sour", "negg")])
    fails(tmp_path, r"unknown label 'negg' in .*dev\.tsv, line 3.*mean 'neg'")


def test_dev_without_a_label(tmp_path):
    write_all(tmp_path)
    write(tmp_path, "dev", [("sweet", "pos"), ("sour", "")])
    fails(tmp_path, "1 validation examples have no label")


def test_a_transfer_row_that_train_has(tmp_path):
    write_all(tmp_path)
    write(tmp_path, "transfer", [("good",)], header=("sentence",))
    fails(tmp_path, "expected transfer rows that train does not have")
