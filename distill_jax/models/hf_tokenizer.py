"""The tokeniser of a model's folder, as ``transformers`` reads it: several files may have a say.

Where ``tokenizer_config.json`` names BERT's tokeniser (or nothing, in the folder of a BERT or a
relative that reads word pieces as it does), transformers builds it anew: the words come from
``tokenizer.json`` or ``vocab.txt``, lower case and accents from ``tokenizer_config.json``, whatever
``tokenizer.json`` says of them. Tokens that were added later may stand in three more files. Where
all that changes nothing, ``tokenizer.json`` is taken as it stands; else transformers is asked,
once.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tokenizers import Tokenizer

from distill_jax.core.digests import digest, sha256_file
from distill_jax.core.errors import UserError, panics_reported
from distill_jax.core.files import write_atomic
from distill_jax.models.hf_config import read_json

TOKENIZER = "tokenizer.json"
VOCAB = "vocab.txt"
TOKENIZER_CONFIG = "tokenizer_config.json"
ADDED_TOKENS = "added_tokens.json"
SPECIAL_TOKENS = "special_tokens_map.json"
FILES = (TOKENIZER, VOCAB, TOKENIZER_CONFIG, ADDED_TOKENS, SPECIAL_TOKENS)
_REQUIRED = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
_BERT_CLASSES = ("BertTokenizer", "DistilBertTokenizer", "ElectraTokenizer", "MobileBertTokenizer")
_OTHER_TYPES = ("roberta", "xlm-roberta", "mpnet")
"""Model types whose tokeniser is not BERT's where ``tokenizer_config.json`` names none."""
_ROLES = {
    "unk": ("[UNK]", "<unk>"),
    "sep": ("[SEP]", "</s>"),
    "pad": ("[PAD]", "<pad>"),
    "cls": ("[CLS]", "<s>"),
    "mask": ("[MASK]", "<mask>"),
}
_CASE = {
    "do_lower_case": ("lowercase", True),
    "strip_accents": ("strip_accents", None),
    "tokenize_chinese_chars": ("handle_chinese_chars", True),
}
"""Keys of ``tokenizer_config.json``, those of the normaliser, and transformers' defaults."""


class Found(NamedTuple):
    """A ``tokenizer.json`` and, in sentences, what its folder does not say in one voice."""

    file: Path
    notes: tuple[str, ...] = ()


def read_tokenizer(folder: Path, home: Path) -> Found:
    """The tokeniser of ``folder``; one that transformers has to make is kept under ``home``.

    Raises:
      UserError: there is none, it is damaged, or transformers has none for it either.
    """
    file, options = folder / TOKENIZER, _optional(folder / TOKENIZER_CONFIG)
    try:
        beside = _beside(folder, options)
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        files = f"{TOKENIZER_CONFIG}, {SPECIAL_TOKENS} and {ADDED_TOKENS}"
        raise UserError(f"the added tokens of {folder} ({files}) are damaged: {error}.") from error
    name = options.get("tokenizer_class")
    if name is None:
        berts = _optional(folder / "config.json").get("model_type") not in _OTHER_TYPES
    else:
        berts = str(name).removesuffix("Fast") in _BERT_CLASSES
    if file.is_file() and _stands(file, options, set(beside), berts):
        return Found(file)
    here = [folder / name for name in FILES if (folder / name).is_file()]
    key = digest({each.name: sha256_file(each) for each in here})
    kept = home / "tokenizers" / key / TOKENIZER
    if not kept.is_file():
        write_atomic(kept, _by_transformers(folder, beside, berts).to_str())
    others = ", ".join(each.name for each in here[1:])
    note = f"tokeniser: {TOKENIZER} as transformers reads it with {others} (case, added tokens)"
    return Found(kept, (note,) if file.is_file() else ())


def load_tokenizer(file: Path) -> Tokenizer:
    """A ``tokenizer.json``; one line where it is damaged."""
    try:
        return Tokenizer.from_file(str(file))
    except BaseException as error:  # tokenizers raises bare Exception, and panics
        raise UserError(
            f"{file} is damaged or not a tokeniser: {panics_reported(error)}."
        ) from error


def special_tokens(tokenizer: Tokenizer) -> dict[str, str]:
    """The roles of special tokens as ``tokenizer_config.json`` names them, of those there are.

    A name that the vocabulary does not have would be added to it by transformers, with an id that
    the model has no embedding for.
    """
    found = {}
    for role, names in _ROLES.items():
        here = [name for name in names if tokenizer.token_to_id(name) is not None]
        if here:
            found[f"{role}_token"] = here[0]
    if "pad_token" not in found and (first := tokenizer.id_to_token(0)) is not None:
        found["pad_token"] = first  # padding is masked, whatever stands there
    return found


def _stands(file: Path, options: Mapping[str, Any], beside: set[str], berts: bool) -> bool:
    """Whether a ``tokenizer.json`` is read as it stands.

    Raises:
      UserError: BERT's class is to read one that is no WordPiece.
    """
    raw = json.loads(load_tokenizer(file).to_str())
    if not beside <= {token["content"] for token in raw["added_tokens"]}:
        return False
    if not berts:
        return True
    if (model := raw["model"]["type"]) != "WordPiece":
        raise UserError(
            f"{file} is no WordPiece but {model}, and BertTokenizer is to read it, which makes "
            f"other tokens of it. Name the class in {TOKENIZER_CONFIG}: "
            '"tokenizer_class": "PreTrainedTokenizerFast" takes the file as it is.'
        )
    case = {theirs: options.get(key, usual) for key, (theirs, usual) in _CASE.items()}
    normalizer = {"type": "BertNormalizer", "clean_text": True, **case}
    split = raw["pre_tokenizer"] == {"type": "BertPreTokenizer"}
    return raw["normalizer"] == normalizer and split


def _beside(folder: Path, options: Mapping[str, Any]) -> dict[str, int | None]:
    """Tokens that were added to the vocabulary, with their ids where those are said."""
    decoder = options.get("added_tokens_decoder")
    found: dict[str, int | None] = {}
    if decoder is None:
        found |= {name: int(number) for name, number in _optional(folder / ADDED_TOKENS).items()}
    else:
        found |= {token["content"]: int(number) for number, token in decoder.items()}
    for source in (options, _optional(folder / SPECIAL_TOKENS)):
        for key in ("extra_special_tokens", "additional_special_tokens"):
            listed = source.get(key) or []
            for each in listed.values() if isinstance(listed, dict) else listed:
                found.setdefault(each["content"] if isinstance(each, dict) else str(each))
    return found


def _by_transformers(folder: Path, beside: Mapping[str, int | None], berts: bool) -> Tokenizer:
    """What transformers makes of a folder; no code of the folder is run.

    Raises:
      UserError: it can make none, or would give an added token another id than is said.
    """
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # it speaks of PyTorch otherwise
    from transformers import AutoTokenizer, BertTokenizer  # slow to import, needed only here

    if berts and not (folder / TOKENIZER).is_file():
        words = (folder / VOCAB).read_bytes().decode("utf-8", errors="replace").splitlines()
        if lacking := [word for word in _REQUIRED if word not in words]:
            raise UserError(f"{folder / VOCAB} lacks {', '.join(lacking)}: not a BERT vocabulary.")
    try:
        made = (
            (BertTokenizer if berts else AutoTokenizer)
            .from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
            .backend_tokenizer
        )
    except BaseException as error:  # as in load_tokenizer
        raise UserError(
            f"transformers makes no fast tokeniser of {folder}, which is damaged or needs more "
            f"than its files: {panics_reported(error)}."
        ) from error
    for content, number in beside.items():
        if number is not None and (found := made.token_to_id(content)) != number:
            raise UserError(
                f"{folder}: the added token {content!r} is to be {number}, after the "
                f"vocabulary it would be {found}; save the tokeniser once with transformers."
            )
    return made


def _optional(file: Path) -> dict[str, Any]:
    return read_json(file) if file.is_file() else {}
