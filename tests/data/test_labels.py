"""Columns of labels that are no classes: numbers, sets of words."""

import json

import numpy as np
import pytest
from text_files import fails, write

from distill_jax.core.errors import UserError
from distill_jax.data import files
from distill_jax.data.load import load_dataset
from distill_jax.data.splits import concatenate
from distill_jax.data.table import TextDataset, TextTable
from distill_jax.data.tokenise import tokenise_dataset
from distill_jax.tasks.kinds.labels import LabelsColumn
from distill_jax.tasks.kinds.number import NumberColumn

NUMBERS = [("good", "4.5"), ("bad", "1"), ("fine", ""), ("awful", "-0.25")]
SETS = [("good", "joy,pride"), ("bad", " anger "), ("fine", ""), ("flat", ",")]


def load(folder, train, test, column):
    write(folder, "train", train)
    write(folder, "dev", test)
    write(folder, "test", test)
    return files.load(folder, labels=column)


def test_numbers(tmp_path):
    data = load(tmp_path, NUMBERS, [("nice", "3"), ("poor", "2")], NumberColumn())
    train = data.splits["train"]
    assert data.label_names == ("label",)
    assert train.labels_N.tolist() == [0, 0, -1, 0]
    assert train.targets[[0, 1, 3]].tolist() == [[4.5], [1.0], [-0.25]]
    assert train.targets.dtype == np.float32
    assert any("1 of 4 train rows have no label" in note for note in data.notes)


@pytest.mark.parametrize("cell", ["much", "inf", "1e30", "1,5"])
def test_what_is_no_number_is_told_with_its_place(tmp_path, cell):
    write(tmp_path, "train", [*NUMBERS, ("more", cell)])
    write(tmp_path, "test", NUMBERS)
    told = r"train.tsv, line 6: column 'label' holds .*expected a number"
    fails(tmp_path, told, labels=NumberColumn())


def test_one_number_for_all_is_no_task(tmp_path):
    write(tmp_path, "train", [("a", 1), ("b", 1.0)])
    write(tmp_path, "test", [("c", 1)])
    fails(tmp_path, "at least two different numbers in 'label'", labels=NumberColumn())


def test_sets_of_labels(tmp_path):
    data = load(tmp_path, SETS, [("nice", "pride"), ("poor", "anger,joy")], LabelsColumn())
    train = data.splits["train"]
    assert data.label_names == ("anger", "joy", "pride")
    assert train.labels_N.tolist() == [0, 0, -1, 0]  # ',' says that none applies, '' nothing
    assert train.targets.tolist() == [[0, 1, 1], [1, 0, 0], [0, 0, 0], [0, 0, 0]]


def test_lists_and_another_separator(tmp_path):
    column = LabelsColumn("|")
    assert column.read({"x": "a,b | c|a,b"}, "x", "here") == ("a,b", "c")
    assert column.read({"x": ["b", 2, "b"]}, "x", "here") == ("2", "b")
    assert column.read({"x": []}, "x", "here") == ()
    assert column.read({"x": None}, "x", "here") is None
    assert column.read({"x": 7}, "x", "here") == ("7",)
    for wrong in (0.5, True, {"a": 1}, [["a"]], [0.5]):
        with pytest.raises(UserError, match=r"here: column 'x' holds .*expected labels"):
            column.read({"x": wrong}, "x", "here")


def test_labels_that_train_does_not_have_are_told_with_the_nearest(tmp_path):
    write(tmp_path, "train", SETS)
    write(tmp_path, "test", [("x", "joy,prid")])
    fails(
        tmp_path,
        "unknown label 'prid' in .*test.tsv, line 2, which train does not have.*'pride'",
        labels=LabelsColumn(),
    )


def test_one_label_a_row_may_be_classes(tmp_path):
    data = load(tmp_path, [("a", "x"), ("b", "y")], [("c", "x")], LabelsColumn())
    assert any("--task classes may do" in note for note in data.notes)


def test_classes_point_to_the_other_tasks(tmp_path):
    write(tmp_path, "train", NUMBERS)
    write(tmp_path, "test", NUMBERS)
    fails(tmp_path, "--task number")
    (tmp_path / "more").mkdir()
    rows = [("a", "x,y"), ("b", "x"), ("c", "y"), ("d", "x,y")]
    write(tmp_path / "more", "train", rows)
    write(tmp_path / "more", "test", rows)
    fails(tmp_path / "more", "--task labels")


def test_json_and_transfer_files(tmp_path):
    rows = [{"sentence": "good", "label": ["a", "b"]}, {"sentence": "bad", "label": []}]
    for stem in ("train", "dev", "test"):
        (tmp_path / f"{stem}.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    (tmp_path / "transfer.txt").write_text("anything\n")
    train = files.load(tmp_path, labels=LabelsColumn()).splits["train"]
    assert train.labels_N.tolist() == [0, 0, -1]
    assert train.targets.tolist() == [[1, 1], [0, 0], [0, 0]]


def test_built_in_data_have_classes_or_ratings(review_dataset, shared_home):
    review_dataset("product")
    data = load_dataset("review_snippets/product", home=shared_home, labels=NumberColumn())
    rated = data.splits["train"]
    assert data.label_names == ("rating",)
    assert np.array_equal(rated.targets[:, 0], rated.scores_N)
    with pytest.raises(UserError, match="has no sets of labels: give files"):
        load_dataset("review_snippets/product", home=shared_home, labels=LabelsColumn())


def test_targets_are_part_of_the_digest_and_are_hidden_with_labels(toy_teacher):
    def dataset(targets):
        table = TextTable(("1", "2"), ("good film", "bad"), None, np.int32([0, 0]), None, targets)
        return TextDataset("toy", ("x",), {"train": table})

    one, other = (dataset(np.float32([[1.5], [x]])) for x in (2, 3))
    assert one.digest != other.digest
    assert dataset(((1, 2), None)).digest != dataset(((1, 3), None)).digest
    tokens = tokenise_dataset(one, toy_teacher / "tokenizer.json", max_length=8).splits["train"]
    kept = tokens_with(tokens, targets=np.float32([[1.5], [2]]))
    hidden = kept.without_labels(np.array([1]))
    assert hidden.targets.tolist() == [[1.5], [0.0]] and kept.targets.tolist() == [[1.5], [2.0]]
    batch = hidden.batch(np.array([1, 0]), 8, 3)
    assert batch.targets.tolist() == [[0.0], [1.5], [0.0]]
    assert batch.label_where_B.tolist() == [False, True, False]


def test_targets_of_tokens_keep_where_nothing_is_asked(toy_teacher):
    table = TextTable(("1", "2"), ("good film", "bad"), None, np.int32([0, 0]))
    data = TextDataset("toy", ("x",), {"train": table})
    tokens = tokenise_dataset(data, toy_teacher / "tokenizer.json", max_length=8).splits["train"]
    kept = tokens_with(tokens, targets_S=np.int32([-1, 3, 4, -1, -1, 2, -1]), aside=("a", "b"))
    assert kept.without_labels(np.array([0])).targets_S.tolist() == [-1, 0, 0, -1, -1, 2, -1]
    turned = kept.take([1, 0])
    assert turned.targets_S.tolist() == [-1, 2, -1, -1, 3, 4, -1] and turned.aside == ("b", "a")
    assert kept.digest != tokens.digest
    assert kept.digest == tokens_with(kept, aside=("x", "y")).digest
    batch = kept.batch(np.array([1, 0]), 5, 2)
    assert batch.targets.tolist() == [[-1, 2, -1, -1, -1], [-1, 3, 4, -1, -1]]


def tokens_with(table, **columns):
    import dataclasses

    return dataclasses.replace(table, **columns)


def test_tables_with_and_without_targets_are_joined():
    one = TextTable(("1",), ("a",), None, np.int32([0]), None, np.float32([[2]]))
    none = TextTable(("2",), ("b",))
    assert concatenate(one, none).targets.tolist() == [[2.0], [0.0]]
    assert concatenate(none, one).targets.tolist() == [[0.0], [2.0]]
    told = TextTable(("3",), ("c",), None, np.int32([0]), None, (("x",),))
    assert concatenate(told, none).targets == (("x",), None)
