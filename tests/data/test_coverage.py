"""Texts cut and words unknown: a line always, a warning from 5%."""

import pytest

from distill_jax.data.coverage import Coverage, as_metrics, in_words

SPLITS = {"train": Coverage(0.04, 0.012, 90), "test": Coverage(0.06, 0.65, 213)}


def test_a_line_on_every_split_and_warnings_from_a_twentieth():
    line, cut, unknown = in_words(SPLITS, 128)
    assert line == (
        "texts cut at 128 tokens: train 4.0%, test 6.0%; tokens that are [UNK]: train 1.2%, "
        "test 65.0%"
    )
    assert cut.startswith("warning: 6% of the test texts are cut at 128 tokens; 95% of them would")
    assert "fit in 213 (--max-length)" in cut
    assert unknown.startswith("warning: 65% of the test tokens are [UNK]")


@pytest.mark.parametrize(("share", "lines"), [(0.0, 1), (0.0499, 1), (0.05, 3)])
def test_below_a_twentieth_nothing_is_warned(share, lines):
    assert len(in_words({"train": Coverage(share, share, 9)}, 8)) == lines


def test_no_texts_no_lines():
    assert in_words({}, 128) == []


def test_metrics_are_flat():
    assert as_metrics(SPLITS) == {
        "train/cut": 0.04,
        "train/unknown": 0.012,
        "test/cut": 0.06,
        "test/unknown": 0.65,
    }
