"""Texts that join the transfer set, and labels made wrong on purpose."""

import dataclasses

import numpy as np
import pytest

from distill_jax.core.errors import UserError
from distill_jax.data.table import TextDataset, TextTable
from distill_jax.data.transfer import add_texts, noisy_labels


def dataset(name, train, test=("t",), pairs=False):
    def table(texts):
        return TextTable(
            ids=tuple(f"{name}/{text}" for text in texts),
            texts=tuple(texts),
            texts_b=tuple(texts) if pairs else None,
            labels_N=np.zeros(len(texts), np.int32),
        )

    return TextDataset(name, ("a", "b"), {"train": table(train), "test": table(test)})


def test_texts_join_without_labels_and_without_what_is_known():
    """A test sentence, a training sentence and a repetition stay out, whatever their case."""
    wide = add_texts(dataset("own", ["x"]), [dataset("other", ["T", "X ", "new", "NEW"])])
    train = wide.splits["train"]
    assert train.texts == ("x", "new")
    assert train.ids == ("own/x", "other#other/new")
    assert train.labels_N.tolist() == [0, -1]
    assert wide.notes == ("1 texts of other joined the transfer set",)
    assert wide.splits["test"].texts == ("t",)


def test_what_is_no_class_is_dropped_too():
    """Numbers, and answers to questions."""
    for targets, none in ((np.ones(1, np.float32), 0.0), ((("an answer", 0),), None)):
        one, two = dataset("own", ["x"]), dataset("other", ["new"])
        one, two = (
            dataclasses.replace(
                each,
                splits={
                    **each.splits,
                    "train": dataclasses.replace(each.splits["train"], targets=targets),
                },
            )
            for each in (one, two)
        )
        assert list(add_texts(one, [two]).splits["train"].targets) == [targets[0], none]


def test_pairs_and_single_texts_do_not_mix():
    with pytest.raises(UserError, match="pairs"):
        add_texts(dataset("own", ["x"]), [dataset("other", ["y"], pairs=True)])


def test_noise_is_a_share_of_other_classes_and_nested():
    ids = [f"e{number}" for number in range(4000)]
    labels_N = np.arange(4000, dtype=np.int32) % 5
    few, many = (noisy_labels(ids, labels_N, share, 5) for share in (0.2, 0.6))
    assert abs((few != labels_N).mean() - 0.2) < 0.02
    assert abs((many != labels_N).mean() - 0.6) < 0.02
    assert (many[few != labels_N] == few[few != labels_N]).all()
    offsets = (many - labels_N)[many != labels_N] % 5
    assert np.bincount(offsets, minlength=5)[1:].min() > 500
    assert noisy_labels(ids, labels_N, 0.0, 5).tolist() == labels_N.tolist()


def test_what_has_no_label_gets_none():
    assert noisy_labels(["a", "b"], np.array([-1, -1], np.int32), 0.99, 3).tolist() == [-1, -1]
