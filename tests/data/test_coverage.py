"""Texts cut and words unknown: a line always, a warning from 5%."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill_jax.data.coverage import Coverage, Tally, as_metrics, in_words, unknown_below

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
    assert unknown.endswith("distill-jax pretrain")


@pytest.mark.parametrize(("share", "lines"), [(0.0, 1), (0.0499, 1), (0.05, 3)])
def test_below_a_twentieth_nothing_is_warned(share, lines):
    assert len(in_words({"train": Coverage(share, share, 9)}, 8)) == lines


def test_below_a_table_it_is_said_where_many_are_unknown():
    (line,) = unknown_below(SPLITS, "minilm-l6")
    assert line.startswith("Tokens that `minilm-l6` does not know: train 1.2%, test 65.0%. ")
    assert "distill-jax pretrain" in line
    assert unknown_below({"train": Coverage(1.0, 0.049, 9)}, "a") == unknown_below({}, "a") == []


def test_no_texts_no_lines():
    assert in_words({}, 128) == []


def test_metrics_are_flat():
    assert as_metrics(SPLITS) == {
        "train/cut": 0.04,
        "train/unknown": 0.012,
        "test/cut": 0.06,
        "test/unknown": 0.65,
    }


def test_two_tallies_joined_are_one_of_both():
    one, two = Tally(), Tally()
    one.add(np.array([4, 9, 30]), words=20, unknown=5)
    two.add(np.array([25]), words=7, unknown=7)
    joined = one.coverage(20).joined(two.coverage(20))
    one.merge(two)
    whole = one.coverage(20)
    assert (joined.cut, joined.unknown) == pytest.approx((whole.cut, whole.unknown))
    assert (joined.texts, joined.words) == (whole.texts, whole.words) == (4, 27)


@given(st.lists(st.lists(st.integers(1, 60), min_size=1, max_size=30), min_size=1, max_size=5))
def test_a_tally_of_pieces_is_that_of_the_whole(pieces):
    """numpy's quantile over all lengths, held, is the oracle."""
    tally = Tally()
    for piece in pieces:
        tally.add(np.array(piece), words=sum(piece), unknown=piece.count(7))
    needed_N = np.concatenate(pieces)
    assert tally.coverage(20) == Coverage(
        cut=np.mean(needed_N > 20),
        unknown=np.sum(needed_N == 7) / needed_N.sum(),
        fitting=np.quantile(needed_N, 0.95, method="higher"),
    )
