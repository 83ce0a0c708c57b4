"""``vocabulary``: embeddings of the tokens that the training texts hold, and a tokeniser of them.

A WordPiece tokeniser takes the longest piece it knows. Of a text all of whose pieces are left it
makes the same pieces as before, as no longer one has come; their embeddings are the same, and so
are its logits. Of other texts it makes shorter pieces, as long as those are left.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from distill_jax.compression.steps import Step, StepContext, Student, register
from distill_jax.core.errors import UserError
from distill_jax.core.fields import check_fields
from distill_jax.core.files import write_atomic
from distill_jax.data.augment.base import Tools
from distill_jax.data.augment.tokens import mask_of
from distill_jax.models.family import family_of
from distill_jax.models.hf_config import read_json
from distill_jax.models.hf_tokenizer import TOKENIZER
from distill_jax.tasks.classification.splits import Splits, load_texts, prepare_texts

KNOWN = ("WordPiece", "WordLevel")
CONTINUED = "##"


@register
@dataclass(frozen=True)
class Vocabulary(Step):
    """Tokens that do not occur in the training texts are dropped, with their embeddings.

    Attributes:
      min_count: how often a token has to occur, in the training and the transfer texts.
      characters: keep all single characters and their continuations too, so that any word of
        characters that the tokeniser knew can still be split.
    """

    kind: ClassVar[str] = "vocabulary"

    min_count: int = 1
    characters: bool = True

    def __post_init__(self) -> None:
        check_fields(self)
        if self.min_count < 1:
            raise UserError(f"min_count must be at least 1, not {self.min_count}")

    def apply(self, student: Student, context: StepContext) -> Student:
        config: Any = student.config
        path = family_of(config).embeddings
        if student.tokenizer_file is None or not path:
            raise UserError("vocabulary is for students of texts that have embeddings of tokens")
        raw = read_json(student.tokenizer_file)
        vocabulary = vocabulary_of(raw, student.tokenizer_file)
        count = config.token_range.tokens
        table: Any = student.splits.everything
        seen_V = np.bincount(table.tokens_S, minlength=count)
        kept = set(np.flatnonzero(seen_V >= self.min_count).tolist()) | special_ids(raw)
        if self.characters:
            kept |= {number for token, number in vocabulary.items() if is_character(token)}
        tokens_R = np.asarray(sorted(kept), np.int64)
        file = context.folder / TOKENIZER
        write_atomic(file, json.dumps(renumbered(raw, tokens_R), ensure_ascii=False))
        flat = flatten_dict(student.params)
        flat[path] = jnp.asarray(np.asarray(flat[path])[tokens_R])
        splits = read_with(student.splits, file)
        notes = [f"{len(tokens_R):,} of {count:,} tokens are left"]
        notes += list(_coverage(student.splits, splits))
        return student.but(
            config=dataclasses.replace(config, vocab_size=len(tokens_R)),
            params=unflatten_dict(flat),
            tokenizer_file=file,
            splits=splits,
            notes=tuple(notes),
        )


def read_with(splits: Splits, tokenizer_file: Path) -> Splits:
    """The same examples as another tokeniser reads them, the same labels chosen."""
    mask = mask_of(tokenizer_file) if splits.config.augment else None
    tools = Tools("the run that is compressed", mask=mask[0] if mask else None)
    return prepare_texts(splits.config, load_texts(splits.config), tokenizer_file, tools)


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


def _coverage(before: Splits, after: Splits) -> Iterable[str]:
    """How the held-out texts fare, a line each."""
    for name, table in (("validation", "validation"), ("test", "test")):
        own, now = getattr(before, table), getattr(after, table)
        same = sum(
            a == b for a, b in zip(own.lengths_N.tolist(), now.lengths_N.tolist(), strict=True)
        )
        unknown = 100 * after.coverage[name].unknown
        longer = now.lengths_N.sum() / own.lengths_N.sum() - 1
        yield (
            f"{name}: {100 * same / len(own):.1f}% of the texts have as many tokens as before, "
            f"{100 * longer:+.2f}% tokens in all, {unknown:.2f}% of them unknown"
        )
