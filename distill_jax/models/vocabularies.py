"""Fewer or other tokens for a model: its tokeniser trimmed, its embeddings taken along.

A WordPiece tokeniser takes the longest piece it knows. Of a text all of whose pieces are left it
makes the same pieces as before, as no longer one has come; of other texts it makes shorter pieces,
as long as those are left.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from distill_jax.core.errors import UserError
from distill_jax.core.files import write_atomic
from distill_jax.models.bert import Params
from distill_jax.models.hf_config import read_json
from distill_jax.models.hf_tokenizer import load_tokenizer

KNOWN = ("WordPiece", "WordLevel")
CONTINUED = "##"


def occurring_tokens(
    tokenizer_file: Path, seen_V: np.ndarray, *, min_count: int = 1, characters: bool = True
) -> np.ndarray:
    """int64, ascending ids of the tokens that stay: those that occur, and the special ones.

    Args:
      seen_V: how often each token occurs.
      min_count: how often it has to.
      characters: keep all single characters and their continuations too, so that any word of
        characters that the tokeniser knew can still be split.

    Raises:
      UserError: for a kind of tokeniser whose pieces would change when others go.
    """
    raw = read_json(tokenizer_file)
    vocabulary = vocabulary_of(raw, tokenizer_file)
    kept = set(np.flatnonzero(seen_V >= min_count).tolist()) | special_ids(raw)
    if characters:
        kept |= {number for token, number in vocabulary.items() if is_character(token)}
    return np.asarray(sorted(kept), np.int64)


def write_trimmed(tokenizer_file: Path, tokens_R: np.ndarray, file: Path) -> None:
    """Write the ``tokenizer.json`` of these tokens alone."""
    raw = renumbered(read_json(tokenizer_file), tokens_R)
    write_atomic(file, json.dumps(raw, ensure_ascii=False))


def with_embeddings(params: Params, path: tuple[str, ...], table_RD: np.ndarray) -> Params:
    """The parameters with another table of embeddings.

    Args:
      path: to it, see ``Family.embeddings``.
    """
    flat = flatten_dict(params)
    flat[path] = jnp.asarray(table_RD)
    return unflatten_dict(flat)


def transferred_embeddings(table_VD: np.ndarray, old: Path, new: Path) -> np.ndarray:
    """Embeddings [R, D] for another tokeniser's tokens: the token's own where both have it, else
    the mean over the old tokeniser's pieces of it, see Gee et al. 2022, "Fast Vocabulary Transfer
    for Language Model Compression".

    Args:
      table_VD: of the old one's tokens.
      old, new: files of the tokenisers.
    """
    before, after = load_tokenizer(old), load_tokenizer(new)
    known = before.get_vocab()
    table_RD = np.empty((after.get_vocab_size(), table_VD.shape[1]), table_VD.dtype)
    mean_D = table_VD.mean(axis=0)
    for token, number in after.get_vocab().items():
        if token in known:
            table_RD[number] = table_VD[known[token]]
            continue
        bare = token.removeprefix(CONTINUED) or token
        pieces = before.encode(bare, add_special_tokens=False).ids
        table_RD[number] = table_VD[pieces].mean(axis=0) if pieces else mean_D
    return table_RD


def vocabulary_of(raw: Mapping[str, Any], file: Path) -> dict[str, int]:
    """Token -> id of a ``tokenizer.json``.

    Raises:
      UserError: for a kind of tokeniser whose pieces would change when others go.
    """
    model = raw.get("model")
    found = model.get("type") if isinstance(model, dict) else None
    if found not in KNOWN:
        raise UserError(
            f"{file} is a tokeniser of kind {found}; tokens can be dropped of {' and '.join(KNOWN)}"
        )
    return dict(model["vocab"])  # type: ignore[index]


def special_ids(raw: Mapping[str, Any]) -> set[int]:
    """Ids that a tokeniser puts in by itself: added tokens, the unknown one, those around texts."""
    ids = {int(token["id"]) for token in raw.get("added_tokens") or []}
    vocabulary, unknown = raw["model"]["vocab"], raw["model"].get("unk_token")
    ids |= {0} | ({int(vocabulary[unknown])} if unknown in vocabulary else set())
    return ids | set(_numbers_of(raw.get("post_processor"))) | set(_numbers_of(raw.get("padding")))


def is_character(token: str) -> bool:
    """Whether a token is one character, or its continuation in a word."""
    return len(token.removeprefix(CONTINUED) or token) == 1


def renumbered(raw: Mapping[str, Any], tokens_R: np.ndarray) -> dict[str, Any]:
    """A ``tokenizer.json`` of these tokens alone, in their order.

    Args:
      tokens_R: ids that stay, ascending.
    """
    new = {int(old): number for number, old in enumerate(tokens_R)}
    model = dict(raw["model"])
    model["vocab"] = {
        token: new[old]
        for token, old in sorted(model["vocab"].items(), key=lambda item: item[1])
        if old in new
    }
    added = [{**token, "id": new[token["id"]]} for token in raw.get("added_tokens") or []]
    return {
        **raw,
        "model": model,
        "added_tokens": added,
        "post_processor": _moved(raw.get("post_processor"), new),
        "padding": _moved(raw.get("padding"), new),
    }


_IDS = ("ids", "pad_id")


def _numbers_of(node: Any) -> Iterable[int]:
    """The ids of tokens that a post-processor or a padding names."""
    if not isinstance(node, dict):
        return
    for key, value in node.items():
        if key in _IDS:
            yield from value if isinstance(value, list) else [value]
        elif key in ("sep", "cls") and isinstance(value, list):
            yield value[1]
        elif isinstance(value, dict):
            yield from _numbers_of(value)
        elif isinstance(value, list):
            for each in value:
                yield from _numbers_of(each)


def _moved(node: Any, new: Mapping[int, int]) -> Any:
    """The same node with the new ids."""
    if isinstance(node, list):
        return [_moved(each, new) for each in node]
    if not isinstance(node, dict):
        return node
    moved = {}
    for key, value in node.items():
        if key in _IDS:
            moved[key] = [new[i] for i in value] if isinstance(value, list) else new[value]
        elif key in ("sep", "cls") and isinstance(value, list):
            moved[key] = [value[0], new[value[1]]]
        else:
            moved[key] = _moved(value, new)
    return moved
