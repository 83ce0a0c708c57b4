"""What augmentations may use of a teacher's checkpoint: its mask, its vectors, its MLM head."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from distill_jax.core.types import as_batch
from distill_jax.data.augment.base import Near, Tools, Words
from distill_jax.data.augment.mlm import Mlm
from distill_jax.data.augment.tokens import encoded, mask_of, whole_words
from distill_jax.models.build import build_model
from distill_jax.models.family import family_of
from distill_jax.models.loaded import Loaded
from distill_jax.models.mlm_head import MlmHead, read_mlm_head
from distill_jax.tasks.classification.cells import DataConfig
from distill_jax.tasks.classification.models import location_of

AT_ONCE = 512
"""Words whose neighbours are looked for at a time."""
ROWS = 64
"""Texts that a masked language model reads at a time."""
LENGTHS, MASKS = 16, 128
"""Of batches of those, and masks at a time: multiples of these."""


def tools_for(data: DataConfig, teacher: str, checkpoint: Loaded) -> Tools:
    """What the augmentation of data may use.

    Args:
      teacher: its name.
      checkpoint: it starts from.
    """
    if not data.augment:
        return Tools(teacher)
    wanted = Mlm.kind in data.augment
    return tools_of(teacher, checkpoint, location_of(teacher) if wanted else None)


def tools_of(name: str, checkpoint: Loaded, location: Path | str | None = None) -> Tools:
    """What a checkpoint has for augmentations.

    Args:
      name: of the teacher, for people.
      location: of the checkpoint, where its head of a masked language model is wanted.
    """
    tokenizer = checkpoint.tokenizer_file
    if tokenizer is None:
        return Tools(name)
    path = family_of(checkpoint.config).embeddings
    head = None if location is None else read_mlm_head(location)
    mask = mask_of(tokenizer)
    return Tools(
        teacher=name,
        mask=mask[0] if mask else None,
        near=partial(near_words, _table(checkpoint, path), tokenizer) if path else None,
        fill=partial(expected_words, checkpoint, head, path, mask) if head and mask else None,
    )


def near_words(table_VD: np.ndarray, tokenizer: Path, words: Sequence[str], k: int) -> Near:
    """Of each word that is one token the ``k`` words of the nearest embeddings, by cosine."""
    vocabulary = whole_words(tokenizer)
    candidates = [word for word, number in vocabulary.items() if number < len(table_VD)]
    own = [word for word in words if word in vocabulary and vocabulary[word] < len(table_VD)]
    if len(candidates) < 2 or not own:
        return {}
    unit_CD = _unit(table_VD[[vocabulary[word] for word in candidates]])
    place = {word: row for row, word in enumerate(candidates)}
    count, found = min(k, len(candidates) - 1), {}
    for start in range(0, len(own), AT_ONCE):
        some = own[start : start + AT_ONCE]
        rows = np.array([place[word] for word in some])
        like_WC = unit_CD[rows] @ unit_CD.T
        like_WC[np.arange(len(rows)), rows] = -np.inf
        best_WK = np.argsort(-like_WC, axis=1, kind="stable")[:, :count]
        for word, best in zip(some, best_WK.tolist(), strict=True):
            found[word] = tuple(candidates[row] for row in best)
    return found


def expected_words(
    checkpoint: Loaded,
    head: MlmHead,
    path: tuple[str, ...],
    mask: tuple[str, int],
    texts: Sequence[Words],
    places: Sequence[Sequence[int]],
    k: int,
) -> list[list[Words]]:
    """At each place of each text the ``k`` words that a masked language model expects most.

    Of a place behind the longest text that the model can read, none.
    """
    tokenizer, config = checkpoint.tokenizer_file, checkpoint.config
    assert tokenizer is not None
    masked = []
    for words, own in zip(texts, places, strict=True):
        chosen = set(own)
        masked.append(" ".join(mask[0] if n in chosen else word for n, word in enumerate(words)))
    ids = encoded(tokenizer, masked, config.token_range.positions)
    vocabulary = whole_words(tokenizer)
    allowed_V = np.array([n for n in sorted(vocabulary.values()) if n < len(head.bias_V)])
    word_of = {token: word for word, token in vocabulary.items()}
    found: list[list[Words]] = [[[] for _ in own] for own in places]
    order = sorted((n for n in range(len(texts)) if places[n]), key=lambda n: len(ids[n]))
    for start in range(0, len(order), ROWS):
        rows = order[start : start + ROWS]
        logits = _at_masks(checkpoint, head, path, [ids[n] for n in rows], mask[1])
        for n, own_MV in zip(rows, logits, strict=True):
            best = np.argsort(-own_MV[:, allowed_V], axis=1, kind="stable")[:, :k]
            for at, tokens in enumerate(allowed_V[best].tolist()):
                found[n][at] = [word_of[token] for token in tokens]
    return found


def _at_masks(
    checkpoint: Loaded,
    head: MlmHead,
    path: tuple[str, ...],
    ids: Sequence[Sequence[int]],
    mask_id: int,
) -> list[np.ndarray]:
    """Of each text the logits [M, V] at its M masks."""
    config = checkpoint.config
    longest = -(-max(map(len, ids)) // LENGTHS) * LENGTHS
    longest = min(longest, config.token_range.positions)
    ids_BT: Any = np.zeros((ROWS, longest), np.int32)
    where_BT: Any = np.zeros((ROWS, longest), bool)
    for row, own in enumerate(ids):
        ids_BT[row, : len(own)], where_BT[row, : len(own)] = own, True
    hidden_BTD = np.asarray(_last_hidden(config)(checkpoint.params, as_batch(ids_BT, where_BT)))
    masks_BT = (ids_BT == mask_id) & where_BT
    hidden_MD = hidden_BTD[masks_BT]
    count = len(hidden_MD)
    padded_MD: Any = np.resize(hidden_MD, (-(-max(count, 1) // MASKS) * MASKS, hidden_MD.shape[1]))
    logits = head.logits(
        padded_MD,
        _table(checkpoint, path),
        activation=config.hidden_act,
        epsilon=config.layer_norm_eps,
    )
    ends = np.cumsum(masks_BT.sum(axis=1))[: len(ids)]
    return np.split(np.asarray(logits)[:count], ends[:-1])


@lru_cache(maxsize=2)
def _last_hidden(config: Any) -> Any:
    """(parameters, batch) -> the last hidden states [B, T, D]."""
    model = build_model(config)

    def hidden(params: Any, batch: Any) -> Any:
        said: Any = model.apply({"params": params}, batch, train=False)
        return said.hidden_states[max(said.hidden_states)]

    return jax.jit(hidden)


def _table(checkpoint: Loaded, path: tuple[str, ...]) -> np.ndarray:
    table: Any = checkpoint.params
    for name in path:
        table = table[name]
    return np.asarray(table, np.float32)


def _unit(rows_ND: np.ndarray) -> np.ndarray:
    lengths_N1 = np.linalg.norm(rows_ND, axis=1, keepdims=True)
    return rows_ND / np.maximum(lengths_N1, np.finfo(np.float32).tiny)
