"""Tokenisers of BERT's relatives make the tokens that transformers makes, special ones too."""

import itertools
import json

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from distill_jax.core.errors import UserError
from distill_jax.data.tokenise import Tokeniser
from distill_jax.models.hf_tokenizer import read_tokenizer

transformers = pytest.importorskip("transformers")

TEXTS = ("a good film", "Good  films", "a", "bad é film")
SPECIAL = ["<s>", "<pad>", "</s>", "<unk>"]


def byte_level():
    """As RoBERTa's."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("o", "o"), ("g", "oo"), ("goo", "d"), ("Ġ", "good"), ("Ġ", "f")]
    words = [*SPECIAL, *letters, *("".join(pair) for pair in merges), "<mask>"]
    vocabulary = {word: number for number, word in enumerate(words)}
    made = Tokenizer(models.BPE(vocabulary, merges))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.post_processor = processors.RobertaProcessing(
        ("</s>", 2), ("<s>", 0), add_prefix_space=False
    )
    made.add_special_tokens([*SPECIAL, "<mask>"])
    return made, "RobertaTokenizer"


def unigram():
    """As XLM-R's."""
    pieces = [(word, 0.0) for word in SPECIAL]
    pieces += [("▁", -3.0), ("▁good", -2.0), ("▁film", -2.1), ("s", -3.0), ("▁a", -2.5)]
    pieces += [(letter, -6.0) for letter in "abdegfilmoGn"]
    made = Tokenizer(models.Unigram(pieces, unk_id=3))
    made.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(r"  ", " ")])
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.decoder = decoders.Metaspace()
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B </s>",
        special_tokens=[("<s>", 0), ("</s>", 2)],
    )
    made.add_special_tokens(SPECIAL)
    return made, "XLMRobertaTokenizer"


def word_pieces():
    """As MPNet's."""
    words = [*SPECIAL, "[UNK]", "good", "film", "##s", "a", "bad", "e", "<mask>"]
    made = Tokenizer(models.WordPiece({word: n for n, word in enumerate(words)}, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece()
    made.post_processor = processors.TemplateProcessing(
        single="<s>:0 $A:0 </s>:0",
        pair="<s>:0 $A:0 </s>:0 </s>:0 $B:1 </s>:1",
        special_tokens=[("<s>", 0), ("</s>", 2)],
    )
    made.add_special_tokens([*SPECIAL, "<mask>"])
    return made, "MPNetTokenizer"


KINDS = {"roberta": byte_level, "xlm-roberta": unigram, "mpnet": word_pieces}


@pytest.fixture
def folder_of(tmp_path):
    def folder(model_type, named=True):
        made, name = KINDS[model_type]()
        (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
        made.save(str(tmp_path / "tokenizer.json"))
        if named:
            settings = json.dumps({"tokenizer_class": name})
            (tmp_path / "tokenizer_config.json").write_text(settings)
        return tmp_path

    return folder


@pytest.mark.parametrize("model_type", KINDS)
def test_texts_and_pairs_have_their_model_s_special_tokens(folder_of, model_type):
    folder = folder_of(model_type)
    found = read_tokenizer(folder, folder / "home")
    assert found.file == folder / "tokenizer.json" and found.notes == ()
    ours = Tokeniser(found.file, 32)
    theirs = transformers.AutoTokenizer.from_pretrained(folder)

    def tokens(texts, texts_b=None):
        arrays, _ = ours.encode(texts, texts_b, ids=[str(n) for n in range(len(texts))])
        ends = arrays["offsets_N1"]
        return [arrays["tokens_S"][a:b].tolist() for a, b in itertools.pairwise(ends)]

    assert tokens(TEXTS) == [theirs(text)["input_ids"] for text in TEXTS]
    pairs = tokens(TEXTS, TEXTS[::-1])
    assert pairs == [
        theirs(one, two)["input_ids"] for one, two in zip(TEXTS, TEXTS[::-1], strict=True)
    ]
    assert pairs[0][0] == 0 and pairs[0].count(2) == 3  # <s> A </s></s> B </s>


@pytest.mark.parametrize("model_type", KINDS)
def test_a_folder_that_names_no_class_is_read_as_its_model_s(folder_of, model_type):
    """Not as BERT's, which would make other tokens of it."""
    folder = folder_of(model_type, named=False)
    found = read_tokenizer(folder, folder / "home")
    assert found.file == folder / "tokenizer.json"
    (folder / "config.json").write_text(json.dumps({"model_type": "bert"}))
    if model_type != "mpnet":
        with pytest.raises(UserError, match="is no WordPiece"):
            read_tokenizer(folder, folder / "home")


WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "Good", "film", "##s", "a", "bad"]


@pytest.mark.parametrize("model_type", ["distilbert", "electra", "mobilebert"])
@pytest.mark.parametrize("lower", [True, False])
def test_vocab_txt_alone_is_enough_cased_or_not(tmp_path, model_type, lower):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS) + "\n", encoding="utf-8")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": lower}))
    made = Tokenizer.from_file(str(read_tokenizer(tmp_path, tmp_path / "home").file))
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    for text in ("Good films", "a bad film"):
        assert made.encode(text).ids == theirs(text)["input_ids"]
        assert made.encode(text, "a").ids == theirs(text, "a")["input_ids"]
    assert (made.encode("Good").tokens[1] == "Good") != lower
