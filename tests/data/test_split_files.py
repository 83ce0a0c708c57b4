"""Which files of a folder are its splits, and what is said of the others."""

import pytest
from text_files import DEV, TEST, TRAIN, fails, write, write_all

from distill_jax.data import files


@pytest.mark.parametrize("stem", ["dev", "valid", "validation"])
def test_names_of_the_validation_file(tmp_path, stem):
    write(tmp_path, "train", TRAIN)
    write(tmp_path, stem, DEV)
    write(tmp_path, "test", TEST)
    assert files.load(tmp_path).splits["validation"].texts == ("sweet", "sour")


def test_missing_folder_files_and_splits(tmp_path):
    fails(tmp_path / "nowhere", "no folder")
    fails(tmp_path, r"no train file in .*, which holds nothing; expected one of train\.csv, ")
    write(tmp_path, "train", TRAIN)
    fails(tmp_path, "expected a validation or test split with labels beside train")
    write(tmp_path, "train", TRAIN, ".csv")
    fails(tmp_path, r"both train\.csv and train\.tsv")


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
