"""CoNLL columns."""

import pytest

from distill_jax.core.errors import UserError
from distill_jax.data.conll import read_sentences
from distill_jax.data.file_formats import read_cells


def written(tmp_path, text, name="train.conll"):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def test_an_empty_line_ends_a_sentence_and_so_does_one_of_a_tab(tmp_path):
    path = written(tmp_path, "\nEmma\tB-person\nsang\tO\n\t\n\n😀\tO\n")
    assert list(read_sentences(path)) == [
        (2, {"tokens": ["Emma", "sang"], "tags": ["B-person", "O"]}),
        (6, {"tokens": ["😀"], "tags": ["O"]}),
    ]
    assert list(read_cells(path)) == list(read_sentences(path))


def test_of_four_columns_the_first_and_the_last_are_read_and_documents_left_out(tmp_path):
    notes = []
    path = written(
        tmp_path, "-DOCSTART- -X- -X- O\n\nEU NNP B-NP B-ORG\nis VBZ B-VP O\n", "dev.bio"
    )
    rows = list(read_sentences(path, notes.append))
    assert rows == [(3, {"tokens": ["EU", "is"], "tags": ["B-ORG", "O"]})]
    assert notes == ["dev.bio has 4 columns: the first are words, the last tags"]


def test_one_column_has_no_tags(tmp_path):
    path = written(tmp_path, "red\ncat\n", "transfer.conll")
    assert list(read_sentences(path)) == [(1, {"tokens": ["red", "cat"]})]


@pytest.mark.parametrize("broken", ["red\n", "red\t\n", "\tO\n", "red\tO\tO\n"])
def test_a_line_with_other_columns_is_named(tmp_path, broken):
    path = written(tmp_path, f"a\tO\n{broken}")
    with pytest.raises(UserError, match=r"train\.conll, line 2: \d cells separated by tabs"):
        list(read_sentences(path))
