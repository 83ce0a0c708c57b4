"""Models whose score is the inner product of two vectors, taken apart for use elsewhere.

Where items have biases, their vectors end with the bias and the asker's with a 1, so that the
inner product is the whole score. Shapes: B askers, T items of a history or tokens, I items, D
numbers of a vector, the bias among them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from distill_jax.core.digests import digest, digest_arrays
from distill_jax.core.ranking_types import HistoryBatch
from distill_jax.core.types import as_batch
from distill_jax.data.interactions import histories_of
from distill_jax.data.tokenise import TokenTable, tokenise_texts
from distill_jax.evaluation.item_catalogue import Catalogue
from distill_jax.evaluation.latency import parameter_count
from distill_jax.evaluation.open_recommender import (
    ENCODER,
    OpenRecommender,
    open_recommender,
    text_encoder,
)
from distill_jax.evaluation.open_search import FACTS, OpenSearch, open_search
from distill_jax.models.bert import Bert, mean_of_tokens
from distill_jax.models.loaded import flat_arrays
from distill_jax.models.recommenders.build import Recommender
from distill_jax.models.recommenders.closed_forms import is_closed_form
from distill_jax.models.recommenders.save import is_recommender, recommender_digest
from distill_jax.models.recommenders.text_items import ItemTexts, ItemVectors
from distill_jax.models.two_tower import TwoTower
from distill_jax.teachers.item_texts import MAX_TOKENS

PROBES = 64
"""Askers by whom an export is compared with its source."""


@dataclasses.dataclass(frozen=True)
class Program:
    """A function that becomes a file.

    Attributes:
      apply: (int32 arrays [B, T] or [B]) -> vectors [B, D] float32.
      inputs: name of each array -> its axes, ``b, t`` or ``b``.
      longest: T at most.
    """

    apply: Callable[..., Array]
    inputs: Mapping[str, str]
    longest: int


@dataclasses.dataclass(frozen=True, eq=False)
class Retriever:
    """What is exported.

    Attributes:
      task: ``recommendation`` or ``search``.
      catalogue: the items.
      items_ID: their vectors, float32.
      query: of askers: histories, or tokens of a query.
      item: of new items, from the tokens of their texts; None where the model reads none.
      tokenizer_file: where tokens are read.
      users: names of those who have vectors of their own, by number; None for one who has none.
      model: digest of what it was made of.
      parameters: how many the model has.
      probes: inputs of ``query`` to compare with, PROBES rows or as many as there are.
      expected_EI: the model's own scores of them.
    """

    task: str
    catalogue: Catalogue
    items_ID: np.ndarray
    query: Program
    item: Program | None
    tokenizer_file: Path | None
    users: tuple[str | None, ...]
    model: str
    parameters: int
    probes: tuple[np.ndarray, ...]
    expected_EI: np.ndarray


def is_retriever(run: Path) -> bool:
    """Whether a folder holds a recommender or towers, trained or in closed form."""
    model = run / "model" if (run / "model").is_dir() else run
    return (model / FACTS).is_file() or is_recommender(model) or is_closed_form(model)


def open_retriever(run: Path) -> Retriever:
    """A finished run's recommender or towers.

    Raises:
      UserError: for damage, or a model that gives items no vectors.
    """
    model = run / "model" if (run / "model").is_dir() else run
    if (model / FACTS).is_file():
        return of_search(open_search(run))
    return of_recommender(open_recommender(run), model)


def of_search(opened: OpenSearch) -> Retriever:
    """Two towers, which read texts on both sides."""
    model = TwoTower(opened.config)

    def encode(side: Any) -> Callable[..., Array]:
        def apply(ids_BT: Array, mask_BT: Array) -> Array:
            said: Any = model.apply(
                {"params": opened.params}, ids_BT, mask_BT > 0, side=side, method="encode"
            )
            return said

        return apply

    texts = opened.products.texts or ()
    asked = [text.partition(" | ")[0].strip() or text for text in texts[:PROBES]]
    tokens, _ = tokenise_texts(asked, opened.tokenizer_file, max_length=opened.limits.query)
    vectors_ED = opened.query_vectors(asked)
    return Retriever(
        task="search",
        catalogue=opened.products,
        items_ID=opened.items_ID,
        query=_of_tokens(encode("query"), opened.limits.query),
        item=_of_tokens(encode("item"), opened.limits.item),
        tokenizer_file=opened.tokenizer_file,
        users=(),
        model=digest([repr(opened.config), digest_arrays(flat_arrays(opened.params))]),
        parameters=parameter_count(opened.params),
        probes=_token_arrays(tokens),
        expected_EI=vectors_ED @ opened.items_ID.T,
    )


def of_recommender(opened: OpenRecommender, folder: Path) -> Retriever:
    """A recommender of any family whose items have vectors.

    Raises:
      UserError: for one in closed form.
    """
    recommender, params = opened.model.network()
    items_ID = np.asarray(recommender.item_vectors(params), np.float32)
    query = _history_query(recommender, params, items_ID)
    rows = _probe_histories(recommender, query.longest)
    histories = histories_of(rows, len(items_ID), _probe_users(recommender, len(rows)))
    item, tokenizer_file = _new_items(recommender, params, folder)
    users = (histories.users_E,) if recommender.config.knows_users else ()
    return Retriever(
        task="recommendation",
        catalogue=opened.catalogue,
        items_ID=_with_bias(items_ID, _bias(recommender, params, items_ID)),
        query=query,
        item=item,
        tokenizer_file=tokenizer_file,
        users=opened.audience.users,
        model=recommender_digest(recommender, params),
        parameters=parameter_count(params),
        probes=(histories.padded(query.longest), *users),
        expected_EI=np.asarray(opened.model.scorer(histories)),
    )


def _history_query(recommender: Recommender, params: Any, items_ID: np.ndarray) -> Program:
    """Item row + 1, oldest first, 0 on the left where there is none; users by number or -1."""
    config = recommender.config
    hidden = int(config.task == "hidden")

    def apply(ids_BT: Array, users_B: Array | None = None) -> Array:
        if hidden:
            asked_B1 = jnp.full((ids_BT.shape[0], 1), len(items_ID) + 1, jnp.int32)
            ids_BT = jnp.concatenate([ids_BT, asked_B1], axis=1)
        output = _said(recommender, params, items_ID, ids_BT, users_B)
        vectors_BD = output.queries_BTD[:, -1].astype(jnp.float32)
        if output.item_bias_I is None:
            return vectors_BD
        ones_B1 = jnp.ones((ids_BT.shape[0], 1), jnp.float32)
        return jnp.concatenate([vectors_BD, ones_B1], axis=1)

    inputs = {"item_ids": "b, t"} | ({"users": "b"} if config.knows_users else {})
    return Program(apply, inputs, config.max_length - hidden)


def _said(
    recommender: Recommender,
    params: Any,
    items_ID: np.ndarray,
    ids_BT: Array,
    users_B: Array | None = None,
) -> Any:
    nobody_B = jnp.full((ids_BT.shape[0],), -1, jnp.int32)
    where_BT = ids_BT != 0
    batch = HistoryBatch(
        example_ids_B=nobody_B if users_B is None else users_B,
        item_ids_BT=ids_BT,
        where_BT=where_BT,
        targets_BT=jnp.zeros_like(ids_BT),
        target_where_BT=jnp.zeros_like(where_BT),
    )
    given = jnp.asarray(items_ID)
    return recommender.apply({"params": params}, batch, items_ID=given, last_only=True)


def _bias(recommender: Recommender, params: Any, items_ID: np.ndarray) -> np.ndarray | None:
    bias_I = _said(recommender, params, items_ID, jnp.ones((1, 1), jnp.int32)).item_bias_I
    return None if bias_I is None else np.asarray(bias_I, np.float32)


def _with_bias(items_ID: np.ndarray, bias_I: np.ndarray | None) -> np.ndarray:
    return items_ID if bias_I is None else np.concatenate([items_ID, bias_I[:, None]], axis=1)


def _new_items(
    recommender: Recommender, params: Any, folder: Path
) -> tuple[Program | None, Path | None]:
    """Item vectors from tokens, for models that were trained on a frozen encoder's vectors."""
    if recommender.config.items.source == "id" or not (folder / ENCODER).is_file():
        return None, None
    space, pretrained = text_encoder(folder)
    own = dataclasses.replace(recommender.config.items, source="text")
    biased = "item_bias" in params

    def apply(ids_BT: Array, mask_BT: Array) -> Array:
        where_BT = mask_BT > 0
        batch = as_batch(ids_BT, where_BT)
        output: Any = Bert(pretrained.config).apply({"params": pretrained.params}, batch)
        last_BTE = output.hidden_states[pretrained.config.num_layers]
        raw_BE = mean_of_tokens(last_BTE.astype(jnp.float32), where_BT)
        vectors_BE = (raw_BE - space.mean_E[None]) / max(space.scale, 1e-6)
        texts = ItemTexts(vectors_IE=vectors_BE)
        said: Any = ItemVectors(own).apply({"params": params["items"]}, texts)
        return jnp.pad(said, ((0, 0), (0, int(biased))))

    return _of_tokens(apply, MAX_TOKENS), pretrained.tokenizer_file


def _of_tokens(apply: Callable[..., Array], longest: int) -> Program:
    return Program(apply, {"input_ids": "b, t", "attention_mask": "b, t"}, longest)


def _token_arrays(tokens: TokenTable) -> tuple[np.ndarray, np.ndarray]:
    batch = tokens.batch(np.arange(len(tokens)), int(tokens.lengths_N.max()), len(tokens))
    return np.asarray(batch.input_ids_BT, np.int32), np.asarray(batch.where_BT, np.int32)


def _probe_histories(recommender: Recommender, longest: int) -> list[list[int]]:
    """Of every length, from one item to more than the model looks at; the same every time."""
    rng = np.random.default_rng(0)
    lengths = np.linspace(1, longest + 1, PROBES).astype(int)
    return [rng.integers(recommender.config.num_items, size=length).tolist() for length in lengths]


def _probe_users(recommender: Recommender, count: int) -> list[int] | None:
    """Half of them with a vector of their own, where the model has such."""
    if not recommender.config.knows_users:
        return None
    return [row % recommender.config.num_users if row % 2 else -1 for row in range(count)]
