"""Two entities marked in a sentence."""

import json

import pytest

from distill_jax.core.errors import UserError
from distill_jax.data.load import load_dataset
from distill_jax.data.relations import RelationColumn, marked

WORDS = ["Emma", "lives", "in", "New", "York"]


def test_the_subject_stands_between_ats_and_the_object_between_hashes():
    row = {"tokens": WORDS, "subject": [0, 1], "object": [3, 5]}
    assert marked(row, "tokens", "here") == "@ Emma @ lives in # New York #"
    row = {"tokens": " ".join(WORDS), "subject": [3, 5], "object": [0, 1]}
    assert marked(row, "tokens", "here") == "# Emma # lives in @ New York @"
    row = {"tokens": ["a", "b"], "subject": [1, 2], "object": [0, 1]}
    assert marked(row, "tokens", "here") == "# a # @ b @"


@pytest.mark.parametrize("span", [None, [0], [1, 1], [0, 6], [-1, 2], ["0", "1"], "01", [0, 1.0]])
def test_a_span_that_is_none_is_refused_by_line(span, tmp_path):
    good = {"tokens": WORDS, "subject": [0, 1], "object": [3, 5], "relation": "lives_in"}
    rows = [good, {**good, "relation": "none", "object": span}]
    for split in ("train", "test"):
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / f"{split}.jsonl").write_text(text)
    with pytest.raises(UserError, match=r"line 2: 'object' is .* of 5 words, counted from 0"):
        load_dataset(f"files:{tmp_path}", text="tokens", label="relation", labels=RelationColumn())


def test_entities_that_overlap_are_refused():
    row = {"tokens": WORDS, "subject": [2, 4], "object": [3, 5]}
    with pytest.raises(UserError, match="here: subject and object overlap"):
        marked(row, "tokens", "here")
