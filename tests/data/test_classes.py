"""Which values of a column are classes, how they are ordered, and what is no class."""

import pytest
from text_files import DEV, delimited, fails, many, write, write_all

from distill_jax.core.errors import UserError
from distill_jax.data import files


def test_whole_number_labels_are_sorted_by_value(tmp_path):
    write(tmp_path, "train", [("a", 10), ("b", 9), ("c", 2)])
    for stem in ("dev", "test"):
        write(tmp_path, stem, [(f"{stem}", 2)])
    assert files.load(tmp_path).label_names == ("2", "9", "10")


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


def test_a_label_that_train_does_not_have(tmp_path):
    write_all(tmp_path)
    write(tmp_path, "dev", [("sweet", "pos"), ("sour", "negg")])
    fails(tmp_path, r"unknown label 'negg' in .*dev\.tsv, line 3.*mean 'neg'")


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
