"""Files as people have them: every form says the same as a plain one."""

import csv
import gzip
import io
import json

import pyarrow
import pytest
from pyarrow import ipc, parquet
from text_files import TRAIN, delimited, fails, many, write, write_all

from distill_jax.data import files

PLAIN = {
    "train": [("a good film", "pos"), ("bad, very bad", "neg"), ('so "so"', "pos")],
    "dev": [("fine", "pos"), ("dull", "neg")],
    "test": [("nice", "pos"), ("poor", "neg")],
}


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


def test_damaged_columnar_files_are_one_line(tmp_path):
    write_form(tmp_path, "parquet")
    whole = (tmp_path / "train.parquet").read_bytes()
    for damage in (b"", whole[:-20], whole[:40] + b"\0" * 40 + whole[80:]):
        (tmp_path / "train.parquet").write_bytes(damage)
        fails(tmp_path, r"train\.parquet is no whole Parquet file")
    (tmp_path / "train.parquet").unlink()
    (tmp_path / "train.arrow").write_bytes(whole)
    fails(tmp_path, r"train\.arrow is no whole Arrow file")
