import json
from pathlib import Path

import huggingface_hub
import pytest
from tokenizers import Tokenizer

from distill_jax.core.errors import UserError
from distill_jax.models.hf_folder import find_folder, find_tokenizer

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "Good", "film", "##s", "e", "é"]


def write_vocab(folder, words=WORDS, **options):
    (folder / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(options))


def test_a_local_folder_is_itself(tmp_path):
    assert find_folder(tmp_path) == find_folder(str(tmp_path)) == tmp_path


@pytest.mark.parametrize("reference", [Path("no/such"), "./no/such", "/no/such/folder", "a b"])
def test_a_missing_folder_is_not_looked_up_on_the_hub(reference, monkeypatch):
    monkeypatch.setattr(huggingface_hub, "snapshot_download", pytest.fail)
    with pytest.raises(UserError, match=r"no folder .*model.safetensors and tokenizer.json"):
        find_folder(reference)


def test_the_hub_gives_only_what_is_read(tmp_path, monkeypatch):
    def download(repo_id, *, allow_patterns):
        assert repo_id == "org/model"
        assert not [pattern for pattern in allow_patterns if pattern.endswith((".bin", ".py"))]
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert find_folder("org/model") == tmp_path


def test_an_unreachable_hub_is_one_line(monkeypatch):
    def download(*_, **__):
        raise OSError("Name or service not known\nsecond line")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    with pytest.raises(UserError) as caught:
        find_folder("org/model")
    message = str(caught.value)
    assert "Name or service not known" in message
    assert "Offline, a local folder with config.json, model.safetensors" in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("options", "tokens"),
    [
        ({}, ["[CLS]", "good", "film", "##s", "e", "[SEP]"]),
        ({"do_lower_case": False}, ["[CLS]", "Good", "film", "##s", "é", "[SEP]"]),
        ({"strip_accents": False}, ["[CLS]", "good", "film", "##s", "é", "[SEP]"]),
    ],
)
def test_tokenizer_from_vocab_respects_its_options(tmp_path, options, tokens):
    write_vocab(tmp_path, **options)
    file = find_tokenizer(tmp_path, vocab_size=len(WORDS), home=tmp_path / "home").file
    assert file.name == "tokenizer.json"
    assert Tokenizer.from_file(str(file)).encode("Good films é").tokens == tokens
    before = file.stat().st_mtime_ns
    again = find_tokenizer(tmp_path, vocab_size=len(WORDS), home=tmp_path / "home").file
    assert again == file
    assert again.stat().st_mtime_ns == before


def test_other_options_make_another_tokenizer(tmp_path):
    write_vocab(tmp_path)
    one = find_tokenizer(tmp_path, vocab_size=20, home=tmp_path / "home")
    write_vocab(tmp_path, do_lower_case=False)
    assert find_tokenizer(tmp_path, vocab_size=20, home=tmp_path / "home") != one


def test_made_from_vocab_it_agrees_with_transformers(tmp_path):
    transformers = pytest.importorskip("transformers")
    write_vocab(tmp_path)
    file = find_tokenizer(tmp_path, vocab_size=len(WORDS), home=tmp_path / "home").file
    theirs = transformers.BertTokenizerFast.from_pretrained(tmp_path)
    for text in ("Good films", "é film, 中s", "goods film [MASK]"):
        assert Tokenizer.from_file(str(file)).encode(text).ids == theirs(text)["input_ids"]


def test_what_cannot_be_a_tokenizer_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"neither tokenizer.json nor vocab.txt"):
        find_tokenizer(tmp_path, vocab_size=20)
    write_vocab(tmp_path, ["good", "[UNK]", "[PAD]"])
    with pytest.raises(UserError, match=r"lacks \[CLS\], \[SEP\]"):
        find_tokenizer(tmp_path, vocab_size=20, home=tmp_path / "home")
    write_vocab(tmp_path)
    with pytest.raises(UserError, match="11 tokens, the model has embeddings for 10"):
        find_tokenizer(tmp_path, vocab_size=10, home=tmp_path / "home")
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(UserError, match="damaged"):
        find_tokenizer(tmp_path, vocab_size=20)
