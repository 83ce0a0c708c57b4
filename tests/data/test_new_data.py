"""Data that arrive later: read in known classes, told apart from what was learnt and tested."""

import numpy as np
import pytest
from image_files import quarters, written

from distill_jax.core.errors import UserError
from distill_jax.data.new_data import apart, keys_of_images, new_images, new_texts, relabelled
from distill_jax.data.splits import content_ids, text_keys
from distill_jax.data.table import Dataset, TextTable

CLASSES = ("neg", "pos", "so-so")


@pytest.fixture
def new(tmp_path):
    """(name -> content) -> the tables of ``files:FOLDER``."""

    def read(contents, **options):
        for name, text in contents.items():
            (tmp_path / name).write_text(text)
        return new_texts(f"files:{tmp_path}", CLASSES, **options)

    return read


def texts(*some, labels=None):
    labels_N = None if labels is None else np.array(labels, np.int32)
    return TextTable(content_ids(some), some, labels_N=labels_N)


def test_labels_are_positions_among_the_run_s_classes(new):
    tables, _ = new(
        {"train.csv": "sentence,label\nfine,pos\nwell,\n", "test.csv": "sentence,label\nbad,neg\n"}
    )
    assert tables["train"].labels_N.tolist() == [1, -1]
    assert tables["test"].labels_N.tolist() == [0]


def test_train_may_do_without_labels(new):
    tables, _ = new({"train.csv": "sentence\nfine\nwell\n"})
    assert set(tables) == {"train"} and tables["train"].labels_N is None


def test_validation_is_the_test_where_there_is_none(new):
    """Whether or not train has labels."""
    dev = "sentence,label\nbad,neg\n"
    for train in ("sentence\nfine\nwell\n", "sentence,label\nfine,pos\nwell,\n"):
        tables, notes = new({"train.csv": train, "dev.csv": dev})
        assert set(tables) == {"train", "test"} and tables["test"].texts == ("bad",)
        assert "the new validation split serves as test" in notes


def test_a_transfer_file_is_enough(new):
    tables, _ = new({"unlabelled.txt": "fine\nwell\n"})
    assert tables["train"].texts == ("fine", "well") and set(tables) == {"train"}


def test_a_transfer_file_joins_train(new):
    tables, notes = new({"train.csv": "sentence,label\nfine,pos\n", "transfer.txt": "well\nfine\n"})
    assert tables["train"].texts == ("fine", "well")
    assert tables["train"].labels_N.tolist() == [1, -1]
    assert any("1 of 2 texts of the transfer file" in note for note in notes)


def test_a_test_is_held_out_of_labels_where_there_is_none(new):
    rows = "".join(f"film {n},{'neg' if n % 2 else 'pos'}\n" for n in range(100))
    tables, notes = new({"train.csv": f"sentence,label\n{rows}"})
    assert 3 <= len(tables["test"]) <= 20
    assert len(tables["train"]) + len(tables["test"]) == 100
    assert f"{len(tables['test'])} new train examples, chosen by a fixed hash" in notes[-1]


@pytest.mark.parametrize("name", ["train.csv", "test.csv"])
def test_a_label_that_the_run_does_not_know_is_named(new, name):
    good = "sentence,label\nfine,pos\n"
    with pytest.raises(UserError, match=r"unknown label 'mixed' in .*line 3, which the run does"):
        new({"train.csv": good, name: f"{good}odd,mixed\n"})


def test_a_folder_with_nothing_to_learn_is_refused(new):
    with pytest.raises(UserError, match="no train or transfer file"):
        new({"test.csv": "sentence,label\nfine,pos\n"})


def test_classes_in_another_order_are_put_in_the_run_s():
    dataset = Dataset("other", ("so-so", "neg"), {"train": texts("a", "b", "c", labels=[0, 1, -1])})
    assert relabelled(dataset, CLASSES)["train"].labels_N.tolist() == [2, 0, -1]
    with pytest.raises(UserError, match="unknown label 'odd' of other, which the run has not"):
        relabelled(Dataset("other", ("odd",), {"train": texts("a")}), CLASSES)


def test_nothing_is_trained_on_that_is_tested_nor_tested_that_was_trained_on():
    tables = {"train": texts("a"), "validation": texts("b"), "test": texts("c")}
    old = {split: text_keys(table) for split, table in tables.items()}
    new = {"train": texts("x", "B", "c", "a"), "test": texts("A", "y"), "validation": texts("a")}
    tables, notes = apart(new, old, text_keys)
    assert tables["train"].texts == ("x", "a") and tables["test"].texts == ("y",)
    assert "validation" not in tables
    assert notes[0] == "2 of 4 new train examples are left out: in old validation or test"
    assert notes[1] == "1 of 2 new test examples are left out: in old train"
    both = {"train": texts("x", "Y", "a"), "test": texts("y", "a", "z")}
    tables, notes = apart(both, old, text_keys)
    assert tables["train"].texts == ("x", "a") and tables["test"].texts == ("y", "z")
    assert notes[0] == "1 of 3 new train examples are left out: in new validation or test"
    tables, _ = apart({"train": texts("x"), "validation": texts("c", "v")}, old, text_keys)
    assert tables["validation"].texts == ("v",)
    with pytest.raises(UserError, match="nothing is new"):
        apart({"train": texts("b", "c")}, old, text_keys)


def test_new_images_need_neither_labels_nor_splits(tmp_path):
    images, labels = quarters(100)
    tables, notes = new_images(f"images:{written(tmp_path / 'a.npz', images)}", tuple("0123"))
    assert set(tables) == {"train"} and (tables["train"].labels_N == -1).all()
    named = written(tmp_path / "b.npz", images, labels=labels)
    tables, notes = new_images(f"images:{named}", tuple("0123"))
    assert len(tables["train"]) + len(tables["test"]) == 100 and "serve as test" in notes[0]
    assert len(set(keys_of_images(tables["train"]))) == len(tables["train"])
    with pytest.raises(UserError, match=r"unknown label '3' in .*b\.npz, which the run has not"):
        new_images(f"images:{named}", tuple("012"))
    splits = np.where(np.arange(100) < 60, "train", "test")
    named = written(tmp_path / "c.npz", images, labels=labels, splits=splits)
    tables, _ = new_images(f"images:{named}", tuple("0123"))
    assert {split: len(table) for split, table in tables.items()} == {"train": 60, "test": 40}
