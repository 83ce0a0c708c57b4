"""Words of a sentence at the tokens they begin with."""

import numpy as np
import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from distill_jax.data.table import TextDataset, TextTable
from distill_jax.data.words import first_pieces, tokenise_words

PIECES = ("em", "##ma", "sang", "in", "new", "york", ".", "##s", "'")
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
TAGS = ("O", "B-x", "I-x")


@pytest.fixture(scope="module")
def tokenizer_file(tmp_path_factory):
    """A word piece tokeniser that drops what is no letter of its alphabet."""
    vocabulary = {piece: n for n, piece in enumerate((*SPECIAL, *PIECES))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    path = tmp_path_factory.mktemp("pieces") / "tokenizer.json"
    tokenizer.save(str(path))
    return path


def dataset(texts, tags):
    labels = np.array([-1 if own is None else 0 for own in tags], np.int32)
    table = TextTable(tuple(f"n{n}" for n in range(len(texts))), tuple(texts), None, labels)
    table = TextTable(table.ids, table.texts, None, labels, targets=tuple(tags))
    return TextDataset("toy", TAGS, {"train": table})


def tokenised(tokenizer_file, texts, tags, max_length=16):
    found = tokenise_words(dataset(texts, tags), TAGS, tokenizer_file, max_length=max_length)
    return found.splits["train"], found.notes


def test_the_first_piece_of_a_word_is_asked_and_no_other(tokenizer_file):
    table, notes = tokenised(tokenizer_file, ["Emma sang . emma's"], [("B-x", "O", "O", "B-x")])
    # [CLS] em ##ma sang . em ##ma ' ##s? [SEP]
    assert table.targets_S.tolist()[:7] == [-1, 1, -1, 0, 0, 1, -1]
    assert set(table.targets_S.tolist()[7:]) == {-1}
    assert table.aside[0].seen == (0, 1, 2, 3)
    assert notes == ()


def test_words_that_vanish_or_are_cut_count_as_missed(tokenizer_file):
    vanishing = "\u200d"  # the normaliser drops it
    texts = [f"emma {vanishing} sang", "in new york in"]
    tags = [("B-x", "O", "O"), ("O", "B-x", "I-x", "O")]
    table, notes = tokenised(tokenizer_file, texts, tags, max_length=5)
    assert [own.seen for own in table.aside] == [(0, 2), (0, 1, 2)]
    assert table.aside[0].due == tags[0]
    assert "train 2 of 7" in notes[0]


def test_a_sentence_without_tags_is_asked_and_has_no_label(tokenizer_file):
    table, _ = tokenised(tokenizer_file, ["emma sang"], [None])
    assert table.targets_S.tolist() == [-1, 0, -1, 0, -1]
    assert table.labels_N.tolist() == [-1]
    assert table.aside[0].due is None


def test_tokenisers_that_count_the_space_to_the_next_word_agree():
    tokenizer = Tokenizer(models.WordLevel({"▁red": 0, "▁cat": 1, "▁": 2}, unk_token="▁"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    encoding = tokenizer.encode("red cat")
    assert first_pieces(encoding, "red cat") == ([0, 1], (0, 1))


def test_rows_that_are_taken_keep_what_is_asked(tokenizer_file):
    texts, tags = ["emma sang", "new york"], [("B-x", "O"), ("B-x", "I-x")]
    table, _ = tokenised(tokenizer_file, texts, tags)
    batch = table.batch(np.array([1]), 6, 2)
    assert batch.targets.tolist() == [[-1, 1, 2, -1, -1, -1], [-1] * 6]
    hidden = table.without_labels(np.array([1])).batch(np.array([1]), 4, 1)
    assert hidden.targets.tolist() == [[-1, 0, 0, -1]]
    assert not hidden.label_where_B.any()
