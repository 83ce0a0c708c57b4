import csv
import gzip
import io
import json

import numpy as np
import pyarrow
import pytest
from pyarrow import ipc, parquet

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
    assert dataset.notes == (
        "1 of 5 train rows have no label: transfer set",
        "2 rows of the transfer file joined train without labels",
    )


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
    fails(tmp_path, r"no train file in .*, which holds nothing; expected one of train\.csv, ")
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


def test_a_label_that_train_does_not_have(tmp_path):
    write_all(tmp_path)
    write(tmp_path, "dev", [("sweet", "pos"), ("sour", "negg")])
    fails(tmp_path, r"unknown label 'negg' in .*dev\.tsv, line 3.*mean 'neg'")


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


# Files as people have them: each folder says the same as a plain one.

PLAIN = {
    "train": [("a good film", "pos"), ("bad, very bad", "neg"), ('so "so"', "pos")],
    "dev": [("fine", "pos"), ("dull", "neg")],
    "test": [("nice", "pos"), ("poor", "neg")],
}


def delimited(rows, separator, quoting=csv.QUOTE_MINIMAL, header=("sentence", "label")):
    out = io.StringIO()
    csv.writer(out, delimiter=separator, quoting=quoting).writerows([header, *rows])
    return out.getvalue()


def records(rows):
    return [{"sentence": text, "label": label} for text, label in rows]


def parquet_bytes(rows, names=("neg", "pos")):
    """A Parquet file as the Hugging Face hub has them: classes are numbers, named in the schema."""
    feature = {"_type": "ClassLabel", "names": list(names)}
    info = {"info": {"features": {"label": feature, "sentence": {"dtype": "string"}}}}
    table = pyarrow.table(
        {
            "sentence": [text for text, _ in rows],
            "label": [names.index(label) if label else -1 for _, label in rows],
        }
    ).replace_schema_metadata({"huggingface": json.dumps(info)})
    out = io.BytesIO()
    parquet.write_table(table, out)
    return out.getvalue(), table


def arrow_folder(folder, rows):
    """A split as ``save_to_disk`` of Hugging Face ``datasets`` leaves it."""
    folder.mkdir(parents=True)
    _, table = parquet_bytes(rows)
    with (
        pyarrow.OSFile(str(folder / "data-00000-of-00001.arrow"), "wb") as sink,
        ipc.new_stream(sink, table.schema) as writer,
    ):
        writer.write_table(table)
    state = {"_data_files": [{"filename": "data-00000-of-00001.arrow"}], "_indices_files": None}
    (folder / "state.json").write_text(json.dumps(state))
    (folder / "dataset_info.json").write_text("{}")


def write_form(folder, form):
    """``PLAIN`` in one of the forms that are read."""
    if form == "datasets":
        for split, rows in PLAIN.items():
            arrow_folder(folder / {"dev": "validation"}.get(split, split), rows)
        (folder / "dataset_dict.json").write_text('{"splits": ["train", "validation", "test"]}')
        return
    for split, rows in PLAIN.items():
        name, content = FORMS[form](split, rows)
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        data = content if isinstance(content, bytes) else content.encode()
        path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)


FORMS = {
    "plain": lambda split, rows: (f"{split}.csv", delimited(rows, ",")),
    "semicolons": lambda split, rows: (f"{split}.csv", delimited(rows, ";")),
    "tabs in csv": lambda split, rows: (f"{split}.csv", delimited(rows, "\t")),
    "pipes": lambda split, rows: (f"{split}.csv", delimited(rows, "|")),
    "commas in tsv": lambda split, rows: (f"{split}.tsv", delimited(rows, ",")),
    "tsv of pandas": lambda split, rows: (f"{split}.tsv", delimited(rows, "\t")),
    "tsv all quoted": lambda split, rows: (f"{split}.tsv", delimited(rows, "\t", csv.QUOTE_ALL)),
    "glue": lambda split, rows: (
        f"{split}.tsv",
        "".join("\t".join(row) + "\n" for row in [("sentence", "label"), *rows]),
    ),
    "gz": lambda split, rows: (f"{split}.csv.gz", delimited(rows, ",")),
    "jsonl.gz": lambda split, rows: (
        f"{split}.jsonl.gz",
        "".join(json.dumps(row) + "\n" for row in records(rows)),
    ),
    "json array": lambda split, rows: (f"{split}.json", json.dumps(records(rows), indent=1)),
    "json lines": lambda split, rows: (
        f"{split}.json",
        "".join(json.dumps(row) + "\n" for row in records(rows)),
    ),
    "json data": lambda split, rows: (
        f"{split}.json",
        json.dumps({"version": 1, "data": records(rows)}),
    ),
    "utf-16": lambda split, rows: (f"{split}.tsv", delimited(rows, "\t").encode("utf-16")),
    "parquet": lambda split, rows: (f"{split}.parquet", parquet_bytes(rows)[0]),
    "hub": lambda split, rows: (
        f"data/{split}-00000-of-00001.parquet",
        parquet_bytes(rows)[0],
    ),
    "capitals": lambda split, rows: (f"{split.capitalize()}.CSV", delimited(rows, ",")),
    "val": lambda split, rows: (
        f"{'val' if split == 'dev' else split}.csv",
        delimited(rows, ","),
    ),
    "padded": lambda split, rows: (
        f"{split}.csv",
        delimited(rows, ",", header=(" sentence ", "label ")),
    ),
    "empty columns": lambda split, rows: (
        f"{split}.csv",
        delimited(
            [*((text, label, "", "") for text, label in rows), ("",) * 4],
            ",",
            header=("sentence", "label", "", ""),
        ),
    ),
    "index": lambda split, rows: (
        f"{split}.csv",
        delimited([(n, *row) for n, row in enumerate(rows)], ",", header=("", "sentence", "label")),
    ),
    "ids begin anew": lambda split, rows: (
        f"{split}.csv",
        delimited(
            [(n, *row) for n, row in enumerate(rows)], ",", header=("id", "sentence", "label")
        ),
    ),
    "ids repeat": lambda split, rows: (
        f"{split}.csv",
        delimited([(7, *row) for row in rows], ",", header=("id", "sentence", "label")),
    ),
    "datasets": None,
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_says_the_same(tmp_path, form):
    write_form(tmp_path, form)
    dataset = files.load(tmp_path)
    assert dataset.label_names == ("neg", "pos")
    for split, rows in PLAIN.items():
        table = dataset.splits[{"dev": "validation"}.get(split, split)]
        names = [dataset.label_names[label] for label in table.labels_N]
        assert list(zip(table.texts, names, strict=True)) == rows
    ids = [example for table in dataset.splits.values() for example in table.ids]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize(
    ("form", "note"),
    [
        ("plain", None),
        ("glue", None),
        ("semicolons", "train.csv: cells are separated by semicolons"),
        ("commas in tsv", "train.tsv: cells are separated by commas"),
        ("tsv of pandas", "train.tsv: quotation marks around cells are taken off"),
        ("ids begin anew", "ids begin anew in test: its examples are called test/ID"),
        ("ids repeat", "the ids of train do not name each row once: the texts name them"),
    ],
)
def test_what_was_decided_is_noted(tmp_path, form, note):
    write_form(tmp_path, form)
    notes = files.load(tmp_path).notes
    assert note in notes if note else notes == ()


def test_the_order_of_classes_is_that_of_the_schema_and_hidden_labels_are_none(tmp_path):
    for split, rows in PLAIN.items():
        if split == "test":
            rows = [(text, None) for text, _ in rows]
        (tmp_path / f"{split}.parquet").write_bytes(parquet_bytes(rows, ("pos", "neg"))[0])
    write(tmp_path, "train", many(300), ".csv")
    (tmp_path / "train.parquet").write_bytes(
        parquet_bytes([(text, ("pos", "neg")[n]) for text, n in many(300)], ("pos", "neg"))[0]
    )
    (tmp_path / "train.csv").unlink()
    dataset = files.load(tmp_path)
    assert dataset.label_names == ("pos", "neg")
    assert "the test split has no labels and is not used" in dataset.notes


def test_shards_are_one_file_and_all_must_be_there(tmp_path):
    write_all(tmp_path, ".csv")
    (tmp_path / "train.csv").unlink()
    for part, rows in enumerate((TRAIN[:2], TRAIN[2:])):
        data, _ = parquet_bytes(rows)
        (tmp_path / f"train-{part:05d}-of-00002.parquet").write_bytes(data)
    assert files.load(tmp_path).splits["train"].texts == ("good", "bad", "fine", "awful")
    (tmp_path / "train-00000-of-00002.parquet").unlink()
    fails(tmp_path, "of 00002 parts of train in .* there are 1")


def test_a_cell_of_any_size(tmp_path):
    write_all(tmp_path, ".csv")
    long = "word " * 40_000
    write(tmp_path, "train", [(long, "pos"), ("bad", "neg")], ".csv")
    assert files.load(tmp_path).splits["train"].texts == (long.strip(), "bad")


def test_whole_numbers_are_one_class_however_they_are_written(tmp_path):
    write(tmp_path, "train", [("a", "0.0"), ("b", "1.0"), ("c", "")])
    write(tmp_path, "dev", [("d", 0), ("e", 1)], ".jsonl")
    write(tmp_path, "test", [("f", 1.0), ("g", 0.0)], ".jsonl")
    dataset = files.load(tmp_path)
    assert dataset.label_names == ("0", "1")
    labels = [dataset.splits[split].labels_N.tolist() for split in dataset.splits]
    assert labels == [[0, 1, -1], [0, 1], [1, 0]]


def test_truth_values_are_classes(tmp_path):
    write(tmp_path, "train", [("a", True), ("b", False)], ".jsonl")
    for stem in ("dev", "test"):
        write(tmp_path, stem, [(f"{stem} a", "True"), (f"{stem} b", "False")], ".csv")
    assert files.load(tmp_path).label_names == ("False", "True")


def test_minus_one_is_no_label_unless_train_has_it(tmp_path):
    write(tmp_path, "train", many(300))
    write(tmp_path, "dev", many(20, start=1000))
    write(tmp_path, "test", [("secret", -1), ("also", -1)])
    dataset = files.load(tmp_path)
    assert dataset.label_names == ("0", "1")
    assert "the test split has no labels and is not used" in dataset.notes
    write(tmp_path, "train", [*many(300), *((f"minus {n}", -1) for n in range(30))])
    assert files.load(tmp_path).label_names == ("-1", "0", "1")


@pytest.mark.parametrize("name", ["transfer.txt", "Unlabelled.TXT"])
def test_a_transfer_file_of_lines(tmp_path, name):
    write_all(tmp_path, ".csv")
    (tmp_path / name).write_text("one more, text\n\nanother\n")
    dataset = files.load(tmp_path)
    assert dataset.splits["train"].texts[-2:] == ("one more, text", "another")
    assert dataset.splits["train"].labels_N[-2:].tolist() == [-1, -1]
    rows = [("q", "a", "x"), ("r", "b", "y")]
    for stem in ("train", "dev", "test"):
        write(tmp_path, stem, rows, ".csv", header=("sentence", "other", "label"))
    fails(tmp_path, "is a text a line, the data has pairs", text_b="other")


def test_what_is_not_used_is_named(tmp_path):
    write_all(tmp_path, ".csv")
    for name in ("extra.csv", "notes.txt", "train.txt", ".hidden"):
        (tmp_path / name).write_text("x\n")
    (tmp_path / "images").mkdir()
    assert files.load(tmp_path).notes == (
        "files not used: extra.csv, images/, notes.txt, train.txt",
    )


def test_refusals_say_what_is_there_and_the_way_out(tmp_path):
    (tmp_path / "mydata.csv").write_text("sentence,label\n")
    fails(tmp_path, r"which holds mydata\.csv; expected one of train\.csv, train\.tsv, train\.js")
    write_all(tmp_path, ".csv")
    fails(tmp_path / "train.csv", rf"train\.csv is a file; give the folder .*{tmp_path.name}\.$")
    (tmp_path / "train.csv").write_text("sentence:label\na:b\n")
    fails(tmp_path, r"unknown column 'sentence' in .*line 2\. Cells are .*There: sentence:l")
    (tmp_path / "train.csv").write_text("text;label\na;b\n")
    fails(tmp_path, r"unknown column 'sentence'.* There: text, label\. Name the columns with --te")
    (tmp_path / "state.json").write_text("{}")
    fails(tmp_path, "one saved Dataset without splits; save a DatasetDict")


def test_damaged_columnar_files_are_one_line(tmp_path):
    write_form(tmp_path, "parquet")
    whole = (tmp_path / "train.parquet").read_bytes()
    for damage in (b"", whole[:-20], whole[:40] + b"\0" * 40 + whole[80:]):
        (tmp_path / "train.parquet").write_bytes(damage)
        fails(tmp_path, r"train\.parquet is no whole Parquet file")
    (tmp_path / "train.parquet").unlink()
    (tmp_path / "train.arrow").write_bytes(whole)
    fails(tmp_path, r"train\.arrow is no whole Arrow file")


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        ([n / 2 for n in range(11)], r"column 'label' holds numbers from 0.0 to 5.0, not classes"),
        (["joy", "joy,anger", "anger"], r"holds sets of labels \('joy,anger'\); .*one class a row"),
        (["2", "27", "2|27"], "holds sets of labels"),
        (["[1]", "[1, 4]", "[4]"], "holds sets of labels"),
        ([f"a text that is no class {n}" for n in range(400)], "holds 400 different values in 400"),
    ],
)
def test_numbers_and_sets_are_no_classes(tmp_path, labels, told):
    rows = [(f"text {n}", label) for n, label in enumerate(labels)]
    header = ("sentence", "label")
    (tmp_path / "train.csv").write_text(delimited(rows, ",", header=header))
    write(tmp_path, "dev", DEV)
    with pytest.raises(UserError, match=told) as caught:
        files.load(tmp_path)
    assert len(str(caught.value)) < 500


def test_a_label_of_many_unknown_ones_is_told_briefly(tmp_path):
    write(
        tmp_path, "train", [(f"t{n} {k}", f"intent number {n}") for n in range(700) for k in "ab"]
    )
    write(tmp_path, "dev", [("x", "intent numbr 5"), ("y", "intent number 6")])
    with pytest.raises(UserError, match=r"Did you mean 'intent number 5'.* and 6.. more") as caught:
        files.load(tmp_path)
    assert len(str(caught.value)) < 1500


def test_slips_in_labels_are_counted(tmp_path):
    rows = [("a", "positive"), ("b", "Positive"), ("c", "NaN"), ("d", "positive"), ("A", "NaN")]
    write(tmp_path, "train", rows)
    for stem in ("dev", "test"):
        write(tmp_path, stem, [(f"{stem} x", "positive")])
    assert files.load(tmp_path).notes == (
        "train.tsv, column 'label': 'NaN' (2 rows) is taken for a class; leave the cell empty "
        "where there is no label",
        "train.tsv, column 'label': 'positive' (2 rows) and 'Positive' (1 rows) are taken for 2 "
        "classes",
        "1 train texts occur with different labels (2 rows)",
    )


def test_class_names_with_commas_are_no_sets(tmp_path):
    write(
        tmp_path,
        "train",
        [("a", "Toys, Games"), ("b", "Clothing, Shoes & Jewelry"), ("c", "Games")],
    )
    for stem in ("dev", "test"):
        write(tmp_path, stem, [(f"{stem} x", "Games")])
    assert len(files.load(tmp_path).label_names) == 3


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
