"""The tokeniser of a model's folder, as ``transformers`` reads it: several files may have a say.

Where ``tokenizer_config.json`` names BERT's tokeniser (or nothing, in the folder of a BERT),
transformers builds it anew: the words come from ``tokenizer.json`` or ``vocab.txt``, lower case and
accents from ``tokenizer_config.json``, whatever ``tokenizer.json`` says of them. Tokens that were
added later may stand in ``added_tokens.json``, ``special_tokens_map.json`` or
``tokenizer_config.json``. For any other class ``tokenizer.json`` is taken as it is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tokenizers import AddedToken, BertWordPieceTokenizer, Tokenizer

from distill_jax.core.digests import digest, sha256_file
from distill_jax.core.errors import UserError, panics_reported
from distill_jax.core.files import write_atomic
from distill_jax.models.hf_config import read_json

TOKENIZER = "tokenizer.json"
VOCAB = "vocab.txt"
TOKENIZER_CONFIG = "tokenizer_config.json"
ADDED_TOKENS = "added_tokens.json"
SPECIAL_TOKENS = "special_tokens_map.json"
_BERT_CLASSES = ("BertTokenizer", "DistilBertTokenizer", "ElectraTokenizer", "MobileBertTokenizer")
_REQUIRED = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
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
    """The tokeniser of ``folder``; what has to be made is kept under ``home``.

    Raises:
      UserError: there is none, it is damaged, or transformers would read another.
    """
    options = _optional(folder / TOKENIZER_CONFIG)
    name = options.get("tokenizer_class")
    berts = name is None or str(name).removesuffix("Fast") in _BERT_CLASSES
    if (folder / TOKENIZER).is_file():
        return _from_json(folder, home, options, berts)
    if not berts:
        raise UserError(
            f"{folder} has no {TOKENIZER}, and {TOKENIZER_CONFIG} names {name!r}; of a {VOCAB} "
            "only BertTokenizer is made. Save it once with "
            f"AutoTokenizer.from_pretrained({str(folder)!r}).save_pretrained(NEW_FOLDER)."
        )
    words = (folder / VOCAB).read_bytes().decode("utf-8", errors="replace").splitlines()
    lacking = [word for word in _REQUIRED if word not in words]
    if lacking:
        raise UserError(f"{folder / VOCAB} lacks {', '.join(lacking)}: not a BERT vocabulary.")
    settings = _settings(options)
    added = _added(folder, options)
    named: dict[str, Any] = {"vocab": sha256_file(folder / VOCAB), "settings": settings}
    if added:
        named["added"] = {i: token.__getstate__() for i, token in enumerate(added.values())}

    def make() -> Tokenizer:
        made = BertWordPieceTokenizer(str(folder / VOCAB), **settings)
        return Tokenizer.from_str(made.to_str())

    return Found(_kept(home, named, make, added, folder))


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


def _from_json(folder: Path, home: Path, options: Mapping[str, Any], berts: bool) -> Found:
    file = folder / TOKENIZER
    tokenizer = load_tokenizer(file)
    added = _added(folder, options)
    known = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
    added = {number: token for number, token in added.items() if token.content not in known}
    raw, notes = json.loads(tokenizer.to_str()), []
    if berts:
        notes = _as_berts(raw, options, file)
    if added:
        notes.append(f"{len(added)} tokens added beside {TOKENIZER}: {_some(added)}")
    if not notes:
        return Found(file)
    named = {
        "tokenizer": sha256_file(file),
        "read_as": raw["normalizer"],
        "added": [token.__getstate__() for token in added.values()],
    }
    kept = _kept(home, named, lambda: Tokenizer.from_str(json.dumps(raw)), added, folder)
    return Found(kept, tuple(f"tokeniser: {note}" for note in notes))


def _as_berts(raw: dict[str, Any], options: Mapping[str, Any], file: Path) -> list[str]:
    """Change a ``tokenizer.json`` into what BERT's class makes of it; says what was changed."""
    if (model := raw["model"]["type"]) != "WordPiece":
        raise UserError(
            f"{file} is no WordPiece but {model}, and BertTokenizer is to read it, which makes "
            f"other tokens of it. Name the class in {TOKENIZER_CONFIG}: "
            '"tokenizer_class": "PreTrainedTokenizerFast" takes the file as it is.'
        )
    wanted = _settings(options)
    normalizer = {"type": "BertNormalizer", "clean_text": True, **wanted}
    notes = []
    if raw["normalizer"] != normalizer:
        found = raw["normalizer"] or {}
        differs = [
            f"{key}={_word(wanted[theirs])}"
            for key, (theirs, _) in _CASE.items()
            if found.get(theirs, "absent") != wanted[theirs]
        ]
        notes.append(
            f"{TOKENIZER_CONFIG} decides, as in transformers, with {', '.join(differs) or 'its'} "
            f"where {TOKENIZER} says otherwise"
        )
    if raw["pre_tokenizer"] != {"type": "BertPreTokenizer"}:
        notes.append(f"words are split as BertTokenizer does, not as {TOKENIZER} says")
    raw["normalizer"], raw["pre_tokenizer"] = normalizer, {"type": "BertPreTokenizer"}
    return notes


def _settings(options: Mapping[str, Any]) -> dict[str, Any]:
    for key, (_, usual) in _CASE.items():
        said = options.get(key, usual)
        if not (isinstance(said, bool) or (said is None and usual is None)):
            raise UserError(f"{TOKENIZER_CONFIG}: {key} is {said!r}, expected true or false.")
    return {theirs: options.get(key, usual) for key, (theirs, usual) in _CASE.items()}


def _added(folder: Path, options: Mapping[str, Any]) -> dict[int, AddedToken]:
    """Tokens by id that stand beside the vocabulary, in transformers' order of precedence."""
    try:
        return _added_tokens(folder, options)
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        files = f"{TOKENIZER_CONFIG}, {SPECIAL_TOKENS} and {ADDED_TOKENS}"
        raise UserError(f"the added tokens of {folder} ({files}) are damaged: {error}.") from error


def _added_tokens(folder: Path, options: Mapping[str, Any]) -> dict[int, AddedToken]:
    decoder = options.get("added_tokens_decoder")
    extra = _listed(options)
    if isinstance(decoder, dict):
        tokens = {int(number): AddedToken(**token) for number, token in decoder.items()}
        return _with_extra(tokens, extra)
    tokens = {}
    for content, number in _optional(folder / ADDED_TOKENS).items():
        special = content in extra  # in transformers 5 the map beside it has no say in this
        tokens[int(number)] = AddedToken(content, special=special, normalized=not special)
    extra += _listed(_optional(folder / SPECIAL_TOKENS))
    return _with_extra(dict(sorted(tokens.items())), extra)


def _listed(options: Mapping[str, Any]) -> list[str]:
    listed = options.get("extra_special_tokens") or options.get("additional_special_tokens") or []
    found = listed.values() if isinstance(listed, dict) else listed
    return [each["content"] if isinstance(each, dict) else str(each) for each in found]


def _with_extra(tokens: dict[int, AddedToken], extra: list[str]) -> dict[int, AddedToken]:
    """Further special tokens get the next ids, or keep that of the vocabulary."""
    known = {token.content for token in tokens.values()}
    new = [content for content in dict.fromkeys(extra) if content not in known]
    return tokens | {-1 - i: AddedToken(content, special=True) for i, content in enumerate(new)}


def _kept(
    home: Path, named: Mapping[str, Any], make: Any, added: Mapping[int, AddedToken], folder: Path
) -> Path:
    """The file that ``make`` and the added tokens give, kept by what it is made of."""
    target = home / "tokenizers" / digest(named) / TOKENIZER
    if target.is_file():
        return target
    try:
        tokenizer = make()
        tokenizer.add_tokens(list(added.values()))
    except BaseException as error:  # as in load_tokenizer
        raise UserError(
            f"the tokeniser of {folder} is damaged: {panics_reported(error)}."
        ) from error
    for number, token in added.items():
        found = tokenizer.token_to_id(token.content)
        if number >= 0 and found != number:
            raise UserError(
                f"{folder}: the added token {token.content!r} is to be {number}, after the "
                f"vocabulary it would be {found}; save the tokeniser once with transformers."
            )
    write_atomic(target, tokenizer.to_str())
    return target


def _optional(file: Path) -> dict[str, Any]:
    return read_json(file) if file.is_file() else {}


def _some(added: Mapping[int, AddedToken]) -> str:
    names = [token.content for token in added.values()]
    return ", ".join(map(repr, names[:3])) + (" ..." if len(names) > 3 else "")


def _word(value: Any) -> str:
    return json.dumps(value)
