"""A tokeniser of one's own texts: the same every time, Chinese by characters, BERT's form."""

import pytest
from tokenizers import Tokenizer

from distill_jax.core.errors import UserError
from distill_jax.data.wordpiece import CHARACTERS, SPECIAL, kept_wordpiece, train_wordpiece

ENGLISH = [f"The playing of player {n % 7} plays, played and replayed!" for n in range(40)]
CHINESE = ["这个酒店很好", "酒店的服务很不好", "很好的手机 iPhone", "手机不好"] * 3


def test_the_same_texts_give_the_same_tokeniser():
    """The library's own numbers change from call to call, and what is merged with them."""
    texts = [*ENGLISH, *CHINESE, "αβγδ zyxw vuts" * 2] * 2
    made = {train_wordpiece(texts, 120).to_str() for _ in range(4)}
    assert len(made) == 1


def test_words_are_cut_into_pieces_and_put_together_again():
    tokenizer = train_wordpiece(ENGLISH, 110)
    encoded = tokenizer.encode("the replayer plays")
    assert encoded.tokens[0] == "[CLS]" and encoded.tokens[-1] == "[SEP]"
    assert "[UNK]" not in encoded.tokens and any(t.startswith("##") for t in encoded.tokens)
    assert tokenizer.decode(encoded.ids) == "the replayer plays"
    assert [tokenizer.token_to_id(name) for name in SPECIAL] == [0, 1, 2, 3, 4]
    assert tokenizer.encode("a", "b").type_ids[-1] == 1
    numbers = sorted(tokenizer.get_vocab().values())
    assert numbers == list(range(len(numbers))) and len(numbers) <= 110


def test_chinese_characters_stand_alone_and_case_is_a_switch():
    tokenizer = train_wordpiece(CHINESE, 100)
    assert tokenizer.encode("好酒店 IPHONE").tokens[1:4] == ["好", "酒", "店"]
    assert "[UNK]" not in tokenizer.encode("好酒店 IPHONE").tokens
    assert not any("酒" in token and token != "酒" for token in tokenizer.get_vocab())
    cased = train_wordpiece(CHINESE, 100, lowercase=False)
    assert "[UNK]" not in cased.encode("iPhone").tokens
    assert "[UNK]" in cased.encode("iphone").tokens  # no p of its own
    assert cased.normalizer.normalize_str("A") == "A"


def test_characters_take_no_more_than_their_share():
    many = ["".join(chr(0x4E00 + n) for n in range(300)) * 2]
    tokenizer = train_wordpiece(many, 104)
    kept = [token for token in tokenizer.get_vocab() if token not in SPECIAL]
    assert len(kept) <= CHARACTERS * (104 - len(SPECIAL)) + 1
    assert tokenizer.encode(chr(0x4E00 + 299)).tokens == ["[CLS]", "[UNK]", "[SEP]"]


def test_it_is_made_once(tmp_path, monkeypatch):
    first = kept_wordpiece(ENGLISH, 100, home=tmp_path)
    monkeypatch.setattr("distill_jax.data.wordpiece.train_wordpiece", None)
    assert kept_wordpiece(ENGLISH, 100, home=tmp_path) == first
    Tokenizer.from_file(str(first))


def test_what_cannot_be_trained_is_said():
    with pytest.raises(UserError, match="from 64 to 1048576 tokens, not 10"):
        train_wordpiece(ENGLISH, 10)
    with pytest.raises(UserError, match="no word in the texts"):
        train_wordpiece([" ", "\t"], 100)
