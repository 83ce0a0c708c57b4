"""Long texts read on: every token is asked for once, with what stands before it."""

import numpy as np
import pytest
from toys import WORDS

from distill_jax.data.language_tables import NextTokens
from distill_jax.data.text_windows import SHARED, windowed
from distill_jax.data.tokenise import tokenise_texts

LENGTH = 8
TEXTS = ["the film is good", " ".join(WORDS), " ".join(WORDS[:6]), " ".join(WORDS * 2)]
"""Of 6, 14, 8 (it just fits) and 26 tokens, the two around them included."""


@pytest.fixture(scope="module")
def read(toy_teacher):
    file = toy_teacher / "tokenizer.json"
    cut, whole = (tokenise_texts(TEXTS, file, max_length=n)[0] for n in (LENGTH, 99))
    return cut, whole, windowed(cut, TEXTS, file, max_length=LENGTH)


def asked_of(table, rows, length=LENGTH):
    """Each row's targets, in order."""
    batch = table.batch(np.asarray(rows), length, len(rows))
    return [targets[targets >= 0].tolist() for targets in np.asarray(batch.targets)]


def test_every_token_is_asked_for_once(read):
    cut, whole, found = read
    assert (found.long, found.further) == (2, len(found.tokens) - len(TEXTS))
    table = NextTokens(found.tokens, found.asked_S)
    assert found.tokens.ids[: len(TEXTS)] == cut.ids
    rows = list(range(len(found.tokens)))
    by_row = dict(zip(found.tokens.ids, asked_of(table, rows), strict=True))
    for number, name in enumerate(cut.ids):
        own = slice(*whole.offsets_N1[number : number + 2])
        parts = [each for row, each in by_row.items() if row.partition("#")[0] == name]
        assert [token for part in parts for token in part] == whole.tokens_S[own].tolist()[1:]


def test_windows_begin_with_the_end_of_the_one_before(read):
    found = read[2]
    rows = [row for row, name in enumerate(found.tokens.ids) if name.startswith("3#")]
    assert [found.tokens.ids[row] for row in rows] == [f"3#{n}" for n in range(1, len(rows) + 1)]
    before = 3
    for row in rows:
        one, other = (
            found.tokens.tokens_S[slice(*found.tokens.offsets_N1[each : each + 2])][1:-1].tolist()
            for each in (before, row)
        )
        assert one[-LENGTH // SHARED :] == other[: LENGTH // SHARED]
        assert len(other) <= LENGTH - 2
        before = row


def test_texts_that_fit_are_as_they_were(read, toy_teacher):
    short = tokenise_texts(TEXTS[:1], toy_teacher / "tokenizer.json", max_length=LENGTH)[0]
    found = windowed(short, TEXTS[:1], toy_teacher / "tokenizer.json", max_length=LENGTH)
    assert found.tokens is short and found.asked_S is None and found.long == 0
    assert NextTokens(found.tokens, found.asked_S).digest == NextTokens(short).digest
    long = read[2]
    assert NextTokens(long.tokens, long.asked_S).digest != NextTokens(long.tokens).digest


def test_rows_of_no_example_are_asked_nothing(read):
    found = read[2]
    batch = NextTokens(found.tokens, found.asked_S).batch(np.array([1]), LENGTH, 3)
    assert (np.asarray(batch.targets)[1:] == -1).all()
