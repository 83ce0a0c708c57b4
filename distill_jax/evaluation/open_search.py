"""Finished towers in use: queries of anybody in, products with their scores out."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from distill_jax.core.errors import UserError
from distill_jax.core.files import atomic_folder
from distill_jax.data.table import NO_LABEL
from distill_jax.data.tokenise import Tokeniser, TokenTable, tokenise_texts
from distill_jax.evaluation.item_catalogue import Catalogue, load_catalogue, save_catalogue
from distill_jax.evaluation.search import Encoder, exact_top_k
from distill_jax.models.huggingface import load_pretrained, save_pretrained
from distill_jax.models.two_tower import TwoTower, TwoTowerConfig

FACTS = "towers.json"
QUERIES_AT_ONCE = 32
QUERY_LENGTHS = (8, 16, 32)
"""Queries are padded to one of these or to the longest that is read, each a compilation."""


@dataclasses.dataclass(frozen=True)
class TokenLimits:
    """Tokens after which a query and a product are cut, as in training."""

    query: int
    item: int


@dataclasses.dataclass(frozen=True)
class Found:
    """One product of a list.

    Attributes:
      item: its number.
      name: the data's own name.
      text: as it was read.
      score: the inner product of query and product.
    """

    item: int
    name: str
    text: str
    score: float


@dataclasses.dataclass(frozen=True, eq=False)
class OpenSearch:
    """Two towers with their products, which are encoded once, at the first query. What it compiles
    it keeps: ask one object many times.

    Attributes:
      products: names and texts.
      tokenizer_file: of both towers.
      vectors_ID: of all products, where they were made before.
    """

    config: TwoTowerConfig
    params: Any
    products: Catalogue
    limits: TokenLimits
    tokenizer_file: Path
    vectors_ID: np.ndarray | None = None

    @functools.cached_property
    def items_ID(self) -> np.ndarray:
        """Vectors of all products, float32."""
        if self.vectors_ID is not None:
            return self.vectors_ID
        assert self.products.texts is not None
        texts, most = self.products.texts, self.limits.item
        tokens, _ = tokenise_texts(texts, self.tokenizer_file, max_length=most)
        return Encoder(TwoTower(self.config))(self._params, tokens, "item")

    def search(self, queries: Sequence[str], k: int = 10) -> list[list[Found]]:
        """For each query the k best products, the best first; exact, ties by number.

        Raises:
          UserError: for a query without text, or a k below 1.
        """
        if not all(query.strip() for query in queries):
            raise UserError("a query is empty.")
        if not queries:
            return []
        top_QK, scores_QK = exact_top_k(self.query_vectors(queries), self.items_ID, k)
        return [
            [self._found(item, score) for item, score in zip(items, scores, strict=True)]
            for items, scores in zip(top_QK.tolist(), scores_QK.tolist(), strict=True)
        ]

    def query_vectors(self, queries: Sequence[str]) -> np.ndarray:
        """[Q, D] float32, whose inner products with ``items_ID`` are the scores."""
        arrays, _ = self._tokeniser.encode(queries, ids=queries)
        labels_N = np.full(len(queries), NO_LABEL, np.int32)
        tokens = TokenTable(ids=tuple(map(str, range(len(queries)))), labels_N=labels_N, **arrays)
        return self._encoders[len(queries) > 1](self._params, tokens, "query")

    @functools.cached_property
    def _tokeniser(self) -> Tokeniser:
        return Tokeniser(self.tokenizer_file, self.limits.query)

    @functools.cached_property
    def _params(self) -> Any:
        return jax.device_put(self.params)

    @functools.cached_property
    def _encoders(self) -> tuple[Encoder, Encoder]:
        """Of one query, and of some at a time; each is compiled for ``query_lengths`` at most."""
        model, lengths = TwoTower(self.config), self.query_lengths
        return Encoder(model, 1, lengths), Encoder(model, QUERIES_AT_ONCE, lengths)

    @property
    def query_lengths(self) -> tuple[int, ...]:
        """That queries are padded to."""
        most = self.limits.query
        return (*(length for length in QUERY_LENGTHS if length < most), most)

    def _found(self, item: int, score: float) -> Found:
        assert self.products.texts is not None
        return Found(item, self.products.names[item], self.products.texts[item], score)


def save_search(
    folder: Path,
    config: TwoTowerConfig,
    params: Any,
    products: Catalogue,
    limits: TokenLimits,
    tokenizer_file: Path,
) -> None:
    """Keep towers for use: a Hugging Face folder each, the products, how vectors are compared."""
    with atomic_folder(folder) as scratch:
        for name, own in params.items():
            save_pretrained(scratch / name, config.tower, own, tokenizer_file)
        facts = {
            "shared": config.shared,
            "similarity": config.similarity,
            "cosine_scale": config.cosine_scale,
            "limits": dataclasses.asdict(limits),
        }
        (scratch / FACTS).write_text(json.dumps(facts, indent=1) + "\n")
        save_catalogue(scratch, products)


def open_search(folder: Path) -> OpenSearch:
    """Open a run's folder (or its ``model``).

    Raises:
      UserError: where there are no towers, or they are damaged.
    """
    model = folder / "model" if (folder / "model").is_dir() else folder
    if not (model / FACTS).is_file():
        raise UserError(f"no two-tower student at {folder}: expected the folder of a finished run")
    try:
        facts = json.loads((model / FACTS).read_text(encoding="utf-8"))
        limits = TokenLimits(**{key: int(value) for key, value in facts.pop("limits").items()})
        names = ("tower",) if facts["shared"] else ("query_tower", "item_tower")
        loaded = {name: load_pretrained(model / name) for name in names}
        first = loaded[names[0]]
        config = TwoTowerConfig(first.config, **facts)
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise UserError(f"{model / FACTS} is damaged: {error!r}") from error
    products = load_catalogue(model)
    if products is None or products.texts is None or first.tokenizer_file is None:
        raise UserError(f"{model} is damaged: it lacks its products or its tokeniser")
    params = {name: own.params for name, own in loaded.items()}
    return OpenSearch(config, params, products, limits, first.tokenizer_file)
