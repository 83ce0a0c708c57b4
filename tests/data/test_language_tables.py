"""Whole words are hidden, a fixed number of positions, as a pure function of id, seed and epoch."""

import dataclasses

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from distill_jax.core.errors import UserError
from distill_jax.data.language_tables import (
    EVALUATION,
    MaskedTexts,
    NextTokens,
    begins_by_pieces,
    begins_by_spaces,
    masking_of,
)
from distill_jax.data.tokenise import tokenise_texts
from distill_jax.data.wordpiece import SPECIAL, train_wordpiece

TEXTS = [f"replaying the unplayable songs number {n} replayed and unplayed" for n in range(40)]


@pytest.fixture(scope="module")
def tokenizer():
    return train_wordpiece(TEXTS, 64)


@pytest.fixture(scope="module")
def file(tokenizer, tmp_path_factory):
    path = tmp_path_factory.mktemp("tokens") / "tokenizer.json"
    tokenizer.save(str(path))
    return path


@pytest.fixture(scope="module")
def table(tokenizer, file):
    tokens, _ = tokenise_texts(TEXTS, file, max_length=64)
    vocabulary = masking_of(tokenizer, frozenset(SPECIAL), file)
    return MaskedTexts(tokens, vocabulary, begins_by_pieces(tokens, vocabulary), 0.15)


def masked(table, rows=None, *, seed=0, epoch=0):
    rows = np.arange(len(table)) if rows is None else np.asarray(rows)
    length = int(table.lengths_N.max())
    plain = table.batch(rows, length, len(rows) + 2)
    return plain, table.masked(plain, seed=seed, epoch=epoch)


def test_words_are_hidden_whole(table, tokenizer):
    plain, batch = masked(table)
    several = 0
    for row in range(len(table)):
        chosen = set(batch.positions_BP[row][batch.asked_BP[row]].tolist())
        assert chosen
        tokens = [tokenizer.id_to_token(t) for t in plain.input_ids_BT[row]]
        for place in chosen:
            assert tokens[place] not in SPECIAL
            first = place
            while tokens[first].startswith("##"):
                first -= 1
            last = first + 1
            while tokens[last].startswith("##"):
                last += 1
            assert chosen >= set(range(first, last))
            several += last - first > 1
    assert several > 0


def test_so_many_are_chosen_and_the_targets_are_what_stood_there(table):
    plain, batch = masked(table)
    where = batch.asked_BP
    assert where.shape[1] == table.positions(plain.input_ids_BT.shape[1])
    words_B = table.lengths_N - 2
    assert (where.sum(axis=1)[: len(table)] <= np.maximum(1, np.round(0.15 * words_B))).all()
    assert not where[len(table) :].any()
    told = np.take_along_axis(plain.input_ids_BT, batch.positions_BP, axis=1)
    np.testing.assert_array_equal(batch.targets[where], told[where])
    changed = plain.input_ids_BT != batch.input_ids_BT
    asked = np.zeros_like(changed)
    rows, places = np.nonzero(where)
    asked[rows, batch.positions_BP[rows, places]] = True
    assert not (changed & ~asked).any()


def test_eight_in_ten_are_masked_one_is_random_one_stays(table):
    shown, targets = [], []
    for epoch in range(60):
        _, batch = masked(table, epoch=epoch)
        where = batch.asked_BP
        told = np.take_along_axis(batch.input_ids_BT, batch.positions_BP, axis=1)
        shown.append(told[where])
        targets.append(batch.targets[where])
    shown, targets = np.concatenate(shown), np.concatenate(targets)
    assert len(shown) > 5000
    assert (shown == 4).mean() == pytest.approx(0.8, abs=0.02)
    assert (shown == targets).mean() == pytest.approx(0.1, abs=0.02)
    assert set(np.unique(shown)) & set(range(5)) == {4}


def test_the_mask_is_a_function_of_id_seed_and_epoch_alone(table):
    _, batch = masked(table, seed=3, epoch=2)
    turned = np.arange(len(table))[::-1]
    _, other = masked(table, turned, seed=3, epoch=2)
    np.testing.assert_array_equal(
        batch.input_ids_BT[: len(table)], other.input_ids_BT[: len(table)][::-1]
    )
    moved = MaskedTexts(
        table.tokens.take(turned),
        table.vocabulary,
        begins_by_pieces(table.tokens.take(turned), table.vocabulary),
        table.share,
    )
    _, same = masked(moved, turned, seed=3, epoch=2)
    np.testing.assert_array_equal(batch.input_ids_BT, same.input_ids_BT)
    for change in ({"seed": 4, "epoch": 2}, {"seed": 3, "epoch": 3}):
        _, another = masked(table, **change)
        assert (another.positions_BP != batch.positions_BP).any()


def test_every_epoch_hides_other_words_and_scores_are_read_with_one_mask(table):
    plain = table.batch(np.arange(8), 64, 8)
    draw = table.draws(steps_per_epoch=5)
    np.testing.assert_array_equal(draw(plain, 1, 5).positions_BP, draw(plain, 1, 9).positions_BP)
    assert (draw(plain, 1, 4).positions_BP != draw(plain, 1, 5).positions_BP).any()
    fixed = table.masked(plain, seed=0, epoch=EVALUATION)
    np.testing.assert_array_equal(table.asked(plain).input_ids_BT, fixed.input_ids_BT)


def test_unknown_tokens_are_not_asked_for(tokenizer, file, table):
    tokens, coverage = tokenise_texts(["ωωω ωωω ωωω"], file, max_length=16)
    assert coverage.unknown == 1
    empty = dataclasses.replace(
        table, tokens=tokens, begins_S=begins_by_pieces(tokens, table.vocabulary)
    )
    assert not masked(empty)[1].asked_BP.any()


def test_words_between_spaces_can_be_given(tmp_path):
    texts = ["酒店 很 不好", "手机 不好"] * 2
    tokenizer = train_wordpiece(texts, 64)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    tokens, _ = tokenise_texts(texts, tmp_path / "tokenizer.json", max_length=16)
    begins_S = begins_by_spaces(tuple(texts), tokens, tokenizer)
    vocabulary = masking_of(tokenizer, frozenset(SPECIAL), tmp_path)
    assert begins_by_pieces(tokens, vocabulary).all()  # else each character is a word
    first = begins_S[1 : tokens.lengths_N[0] - 1].tolist()
    assert first == [True, False, True, True, False]


def test_the_next_token_is_asked_for_at_every_place(table):
    after = NextTokens(table.tokens)
    batch = after.batch(np.arange(3), int(table.lengths_N.max()), 4)
    length = int(table.lengths_N[0])
    assert batch.asked_BP[0].sum() == length - 1 and not batch.asked_BP[3].any()
    np.testing.assert_array_equal(batch.targets[0, : length - 1], batch.input_ids_BT[0, 1:length])
    np.testing.assert_array_equal(batch.positions_BP[0, : length - 1], np.arange(length - 1))
    assert after.draws(3) is None and after.digest != table.digest


def test_a_tokeniser_without_a_mask_is_refused(tmp_path):
    words = Tokenizer(models.WordLevel({"a": 0, "[UNK]": 1}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    with pytest.raises(UserError, match=r"has no \[MASK\]"):
        masking_of(words, frozenset(), tmp_path / "tokenizer.json")
