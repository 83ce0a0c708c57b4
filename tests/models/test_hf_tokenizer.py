"""Every form of a folder's tokeniser makes the tokens that transformers makes, or is refused.

``transformers`` itself is the oracle; its tokenisers need no PyTorch.
"""

import itertools
import json

import pytest
from tokenizers import BertWordPieceTokenizer, Tokenizer, models

from distill_jax.core.errors import UserError
from distill_jax.models.hf_tokenizer import read_tokenizer, special_tokens

transformers = pytest.importorskip("transformers")

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "Good", "film", "##s", "e", "é"]
WORDS += ["中", "国", "[", "]", "x", "##1", "##x", "##中国"]
TEXTS = ("Good films é", "good [X1] film", "中国 good", "[MASK] e[UNK]", "Good <new> É", "[x1] 中x")


def make_folder(folder, *, vocab=True, json_settings=None, **files):
    """A BERT's folder: vocab.txt, tokenizer.json of these settings, and other JSON files."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "bert"}))
    words = "\n".join(WORDS) + "\n"
    (folder / "vocab.txt").write_text(words, encoding="utf-8")
    if json_settings is not None:
        made = BertWordPieceTokenizer(str(folder / "vocab.txt"), **json_settings)
        made.save(str(folder / "tokenizer.json"))
    if not vocab:
        (folder / "vocab.txt").unlink()
    for name, value in files.items():
        (folder / f"{name}.json").write_text(json.dumps(value))
    return folder


def check_agrees(folder, home):
    found = read_tokenizer(folder, home)
    ours = Tokenizer.from_file(str(found.file))
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    for text in TEXTS:
        assert ours.encode(text).ids == theirs(text)["input_ids"], text
        pair = theirs(text, "good", return_token_type_ids=True)
        assert ours.encode(text, "good").ids == pair["input_ids"]
        assert ours.encode(text, "good").type_ids == pair["token_type_ids"]
    return found


CONFIGS = [None, {}, {"do_lower_case": False}, {"do_lower_case": True}, {"strip_accents": False}]
CONFIGS += [{"do_lower_case": False, "tokenizer_class": "BertTokenizer"}]
CONFIGS += [{"tokenize_chinese_chars": False, "tokenizer_class": "BertTokenizerFast"}]
CONFIGS += [{"do_lower_case": True, "tokenizer_class": "PreTrainedTokenizerFast"}]


@pytest.mark.parametrize(
    ("config", "lowercase"), list(itertools.product(CONFIGS, [None, True, False])), ids=str
)
def test_case_and_accents_are_those_that_transformers_takes(tmp_path, config, lowercase):
    """``lowercase``: of tokenizer.json; None: there is vocab.txt alone."""
    fast = bool(config) and config.get("tokenizer_class") == "PreTrainedTokenizerFast"
    settings = None if lowercase is None else {"lowercase": lowercase}
    files = {} if config is None else {"tokenizer_config": config}
    folder = make_folder(
        tmp_path / "model", vocab=settings is None, json_settings=settings, **files
    )
    if fast and settings is None:  # transformers has no tokeniser for it either
        with pytest.raises(UserError, match=r"transformers makes no fast tokeniser of .*model"):
            read_tokenizer(folder, tmp_path / "home")
        return
    found = check_agrees(folder, tmp_path / "home")
    if settings and config == {"do_lower_case": False}:
        told = "tokenizer.json as transformers reads it with tokenizer_config.json"
        assert any(told in note for note in found.notes) == lowercase


@pytest.mark.parametrize("with_json", [False, True])
@pytest.mark.parametrize(
    "files",
    [
        {"added_tokens": {"<new>": len(WORDS)}},
        {"added_tokens": {"[X1]": len(WORDS), "<new>": len(WORDS) + 1}},
        {
            "added_tokens": {"[X1]": len(WORDS)},
            "special_tokens_map": {"additional_special_tokens": ["[X1]"]},
        },
        {"special_tokens_map": {"additional_special_tokens": ["[X1]"]}},
        {"tokenizer_config": {"additional_special_tokens": ["[X1]", "<new>"]}},
        {
            "tokenizer_config": {
                "added_tokens_decoder": {
                    str(len(WORDS)): {
                        "content": "<new>",
                        "lstrip": False,
                        "normalized": False,
                        "rstrip": False,
                        "single_word": False,
                        "special": True,
                    }
                }
            }
        },
    ],
    ids=str,
)
def test_no_added_token_is_lost(tmp_path, files, with_json):
    settings = {} if with_json else None
    folder = make_folder(tmp_path / "model", json_settings=settings, **files)
    found = check_agrees(folder, tmp_path / "home")
    assert any("added" in note for note in found.notes) == with_json
    ids = [
        Tokenizer.from_file(str(found.file)).token_to_id(token)
        for token in ("[X1]", "<new>")
        if token in json.dumps(files)
    ]
    assert ids == list(range(len(WORDS), len(WORDS) + len(ids)))


def test_a_token_of_another_id_is_refused(tmp_path):
    folder = make_folder(tmp_path / "model", added_tokens={"<new>": 99})
    with pytest.raises(UserError, match=r"'<new>' is to be 99, after the vocabulary it would be"):
        read_tokenizer(folder, tmp_path / "home")


@pytest.mark.parametrize(
    "files",
    [
        {"tokenizer_config": {"added_tokens_decoder": {"a": 1}}},
        {"tokenizer_config": {"added_tokens_decoder": {"3": {"contents": "x"}}}},
        {"tokenizer_config": {"do_lower_case": "yes"}},
        {"added_tokens": {"<new>": [1]}},
        {"special_tokens_map": {"additional_special_tokens": 3}},
    ],
)
def test_what_is_damaged_is_said_in_one_line(tmp_path, files):
    with pytest.raises(UserError, match=r"damaged|expected true or false"):
        read_tokenizer(make_folder(tmp_path / "model", **files), tmp_path / "home")


def test_other_tokenisers_are_not_made_of_a_vocabulary(tmp_path):
    """BertJapaneseTokenizer, say, divides words with a dictionary of its own."""
    files = {"tokenizer_config": {"tokenizer_class": "BertJapaneseTokenizer"}}
    with pytest.raises(UserError, match="BertJapaneseTokenizer has no attribute"):
        read_tokenizer(make_folder(tmp_path / "model", **files), tmp_path / "home")


def test_a_file_that_bert_s_class_would_read_otherwise_is_refused(tmp_path):
    folder = make_folder(tmp_path / "model")
    words = {word: number for number, word in enumerate(WORDS)}
    Tokenizer(models.WordLevel(words, unk_token="[UNK]")).save(str(folder / "tokenizer.json"))
    with pytest.raises(UserError, match=r"no WordPiece but WordLevel.*PreTrainedTokenizerFast"):
        read_tokenizer(folder, tmp_path / "home")
    config = {"tokenizer_class": "PreTrainedTokenizerFast"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    assert read_tokenizer(folder, tmp_path / "home").file == folder / "tokenizer.json"


def test_special_tokens_are_those_of_the_vocabulary():
    bert = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="[UNK]"))
    assert special_tokens(bert)["cls_token"] == "[CLS]"
    assert len(special_tokens(bert)) == 5
    roberta = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3}
    found = special_tokens(Tokenizer(models.WordLevel(roberta, unk_token="<unk>")))
    assert found == {
        f"{k}_token": f"<{v}>"
        for k, v in zip(("unk", "sep", "pad", "cls"), ("unk", "/s", "pad", "s"), strict=True)
    }
    bare = special_tokens(Tokenizer(models.WordLevel({"a": 0, "b": 1}, unk_token="b")))
    assert bare == {"pad_token": "a"}
