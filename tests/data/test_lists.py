"""Texts and labels in Python become a folder for ``files:``."""

import numpy as np
import pytest

from distill_jax.core.errors import UserError
from distill_jax.data.files import load
from distill_jax.data.lists import write_lists

TEXTS = [f"text number {n}" for n in range(60)]
LABELS = ["pos" if n % 3 else "neg" for n in range(60)]


def test_every_split_is_read_as_it_was_given(tmp_path):
    folder, notes = write_lists(
        tmp_path,
        (TEXTS[:40], LABELS[:40]),
        validation=(TEXTS[40:50], LABELS[40:50]),
        test=(TEXTS[50:], LABELS[50:]),
        unlabelled=["more", TEXTS[55]],
    )
    assert notes == ()
    dataset = load(folder)
    assert dataset.label_names == ("neg", "pos")
    assert dataset.splits["train"].texts == (*TEXTS[:40], "more")  # a test text is no transfer set
    assert dataset.splits["train"].labels_N[-1] == -1
    assert dataset.splits["validation"].texts == tuple(TEXTS[40:50])
    assert dataset.splits["test"].texts == tuple(TEXTS[50:])
    words = [dataset.label_names[label] for label in dataset.splits["test"].labels_N]
    assert words == LABELS[50:]


def test_what_is_missing_is_held_out_once_and_for_all(tmp_path):
    texts, labels = [*TEXTS, *TEXTS], [*LABELS, *[None] * 60]  # each once without its label
    folder, (note,) = write_lists(tmp_path, (texts, labels))
    splits = load(folder).splits
    assert note.startswith(f"{len(splits['test'])} examples")
    assert 2 <= len(splits["test"]) <= 14 and len(splits["validation"])
    held = {*splits["test"].texts, *splits["validation"].texts}
    assert not held & set(splits["train"].texts)
    assert held | set(splits["train"].texts) == set(TEXTS)
    (again, _) = write_lists(tmp_path, (texts[::-1], labels[::-1]))
    assert set(load(again).splits["test"].texts) == set(splits["test"].texts)


def test_a_folder_is_named_by_its_content(tmp_path):
    data = (TEXTS, LABELS)
    first, _ = write_lists(tmp_path, data)
    before = (first / "train.jsonl").stat().st_mtime_ns
    assert write_lists(tmp_path, data)[0] == first
    assert (first / "train.jsonl").stat().st_mtime_ns == before
    assert write_lists(tmp_path, data, unlabelled=["more"])[0] != first
    assert len(list(tmp_path.iterdir())) == 2


def test_arrays_will_do(tmp_path):
    numbers = np.arange(60) % 2
    folder, _ = write_lists(tmp_path, (np.array(TEXTS), numbers))
    assert load(folder).label_names == ("0", "1")


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ((TEXTS, LABELS[:-1]), "data: 60 texts and 59 labels"),
        (("one text", ["pos"]), "data: expected a list of texts"),
        ((["a", 5], ["pos", "neg"]), "data: expected text at position 1, found 5"),
        ((["a", " "], ["pos", "neg"]), "data: expected text at position 1"),
        ([("a", "pos"), ("b", "neg")], r"data must be \(texts, labels\)"),
        ((["b", "c"], ["pos", "neg"]), "too few to hold out a test split; give test="),
    ],
)
def test_mistakes_are_told_before_anything_is_written(tmp_path, data, told):
    with pytest.raises(UserError, match=told):
        write_lists(tmp_path / "folder", data)
    assert not (tmp_path / "folder").exists()
