"""Models whose score is the inner product of two vectors, taken apart for use elsewhere.

Where items have biases, their vectors end with the bias and the asker's with a 1, so that the
inner product is the whole score. Shapes: B askers, T items of a history or tokens, I items, D
numbers of a vector, the bias among them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

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
from distill_jax.teachers.item_texts import MAX_TOKENS, item_tokens

PROBES = 64
"""Askers by whom an export is compared with its source."""


@dataclasses.dataclass(frozen=True)
class Program:
    """A function that becomes a file.

    Attributes:
      apply: of arrays, vectors [B, D] float32.
      inputs: name of each array -> its axes; ``items`` is ``items.npy``, float32, perhaps with
        vectors of new items below; all others are int32.
      longest: T at most.
      items: I at least; 0 where no items are read.
    """

    apply: Callable[..., Array]
    inputs: Mapping[str, str]
    longest: int
    items: int = 0


@dataclasses.dataclass(frozen=True, eq=False)
class Retriever:
    """What is exported.

    Attributes:
      task: ``recommendation`` or ``search``.
      catalogue: the items.
      items_ID: their vectors, float32.
      query: of askers: histories, or tokens of a query.
      item: of new items, from the tokens of their texts; None where the model reads none.
      item_probes: inputs of ``item`` to compare with; () without it.
      item_expected_ND: the model's own vectors of them.
      tokenizer_file: where tokens are read.
      users: names of those who have vectors of their own, by number; None for one who has none.
      kinds: of feedback that its histories tell apart, by number, the first is recommended; () for
        one.
      repeats: whether what somebody took is recommended again, see ``Audience``.
      model: digest of what it was made of.
      parameters: how many the model has.
      probes: inputs of ``query`` to compare with, PROBES rows or as many as there are; the items
        are not among them.
      expected_EI: the model's own scores of them.
    """

    task: str
    catalogue: Catalogue
    items_ID: np.ndarray
    query: Program
    item: Program | None
    item_probes: tuple[np.ndarray, ...]
    item_expected_ND: np.ndarray
    tokenizer_file: Path | None
    users: tuple[str | None, ...]
    kinds: tuple[str, ...]
    repeats: bool
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
    products, _ = tokenise_texts(
        texts[:PROBES], opened.tokenizer_file, max_length=opened.limits.item
    )
    return Retriever(
        task="search",
        catalogue=opened.products,
        items_ID=opened.items_ID,
        query=_of_tokens(encode("query"), opened.limits.query),
        item=_of_tokens(encode("item"), opened.limits.item),
        item_probes=_token_arrays(products),
        item_expected_ND=opened.items_ID[:PROBES],
        tokenizer_file=opened.tokenizer_file,
        users=(),
        kinds=(),
        repeats=False,
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
    bias_I = _bias(recommender, params, items_ID)
    query = _history_query(recommender, params, items_ID.shape, biased=bias_I is not None)
    rows = _probe_histories(recommender, query.longest)
    kinds = recommender.config.kinds
    histories = histories_of(
        rows, len(items_ID), _probe_users(recommender, len(rows)), _probe_kinds(len(kinds), rows)
    )
    of_kinds = (histories.padded_kinds(query.longest),) if kinds else ()
    new = _new_items(recommender, params, folder, opened.catalogue)
    users = (histories.users_E,) if recommender.config.knows_users else ()
    return Retriever(
        task="recommendation",
        catalogue=opened.catalogue,
        items_ID=_with_bias(items_ID, bias_I),
        query=query,
        item=new.program,
        item_probes=new.probes,
        item_expected_ND=new.expected_ND,
        tokenizer_file=new.tokenizer_file,
        users=opened.audience.users,
        kinds=kinds,
        repeats=opened.audience.repeats,
        model=recommender_digest(recommender, params),
        parameters=parameter_count(params),
        probes=(histories.padded(query.longest), *of_kinds, *users),
        expected_EI=np.asarray(opened.model.scorer(histories)),
    )


def _history_query(
    recommender: Recommender, params: Any, shape: tuple[int, ...], *, biased: bool
) -> Program:
    """Item row + 1, oldest first, 0 on the left where there is none; kinds of feedback and users by
    number, of users -1 for nobody.

    Args:
      shape: of the items' vectors, without bias.
    """
    config, width = recommender.config, shape[1]
    hidden = int(config.task == "hidden")
    rest = {name: part for name, part in params.items() if name != "items"}

    def apply(items_ID: Array, ids_BT: Array, *others: Array) -> Array:
        more = dict(zip([*kinds, *users], others, strict=True))
        kinds_BT = more.get("kinds")
        ones_B1 = jnp.ones((ids_BT.shape[0], 1), jnp.int32)
        if hidden:
            asked_B1 = ones_B1 * jnp.asarray(items_ID.shape[0] + 1, jnp.int32)[None, None]
            ids_BT = jnp.concatenate([ids_BT, asked_B1], axis=1)
            if kinds_BT is not None:
                kinds_BT = jnp.pad(kinds_BT, ((0, 0), (0, 1)))
        output = _said(recommender, rest, items_ID[:, :width], ids_BT, more.get("users"), kinds_BT)
        vectors_BD = output.queries_BTD[:, -1].astype(jnp.float32)
        if not biased:
            return vectors_BD
        return jnp.concatenate([vectors_BD, ones_B1.astype(jnp.float32)], axis=1)

    inputs = {"items": f"i, {width + biased}", "item_ids": "b, t"}
    kinds = {"kinds": "b, t"} if config.kinds else {}
    users = {"users": "b"} if config.knows_users else {}
    return Program(apply, inputs | kinds | users, config.max_length - hidden, shape[0])


def _said(
    recommender: Recommender,
    params: Any,
    items_ID: Array,
    ids_BT: Array,
    users_B: Array | None = None,
    kinds_BT: Array | None = None,
) -> Any:
    nobody_B = jnp.full((ids_BT.shape[0],), -1, jnp.int32)
    where_BT = ids_BT != 0
    batch = HistoryBatch(
        example_ids_B=nobody_B if users_B is None else users_B,
        item_ids_BT=ids_BT,
        where_BT=where_BT,
        targets_BT=jnp.zeros_like(ids_BT),
        target_where_BT=jnp.zeros_like(where_BT),
        kinds_BT=kinds_BT,
    )
    return recommender.apply({"params": params}, batch, items_ID=items_ID, last_only=True)


def _bias(recommender: Recommender, params: Any, items_ID: np.ndarray) -> np.ndarray | None:
    ids_BT = jnp.ones((1, 1), jnp.int32)
    bias_I = _said(recommender, params, jnp.asarray(items_ID), ids_BT).item_bias_I
    return None if bias_I is None else np.asarray(bias_I, np.float32)


def _with_bias(items_ID: np.ndarray, bias_I: np.ndarray | None) -> np.ndarray:
    return items_ID if bias_I is None else np.concatenate([items_ID, bias_I[:, None]], axis=1)


class _NewItems(NamedTuple):
    """What a ``Retriever`` says of items that come later."""

    program: Program | None = None
    tokenizer_file: Path | None = None
    probes: tuple[np.ndarray, ...] = ()
    expected_ND: np.ndarray = np.zeros((0, 0), np.float32)


def _new_items(
    recommender: Recommender, params: Any, folder: Path, catalogue: Catalogue
) -> _NewItems:
    """Item vectors from tokens, for models that were trained on a frozen encoder's vectors."""
    known = recommender.texts
    readable = (folder / ENCODER).is_file() and catalogue.texts is not None
    readable = readable and not recommender.config.items.reads_files  # a text would not be enough
    if not readable or known is None or known.vectors_IE is None:
        return _NewItems()
    space, pretrained = text_encoder(folder)
    own = dataclasses.replace(recommender.config.items, source="text")
    biased = "item_bias" in params

    def of_vectors(vectors_BE: Array) -> Array:
        texts = ItemTexts(vectors_IE=vectors_BE)
        said: Any = ItemVectors(own).apply({"params": params["items"]}, texts)
        return jnp.pad(said, ((0, 0), (0, int(biased))))

    def apply(ids_BT: Array, mask_BT: Array) -> Array:
        where_BT = mask_BT > 0
        batch = as_batch(ids_BT, where_BT)
        output: Any = Bert(pretrained.config).apply({"params": pretrained.params}, batch)
        last_BTE = output.hidden_states[pretrained.config.num_layers]
        raw_BE = mean_of_tokens(last_BTE.astype(jnp.float32), where_BT)
        return of_vectors((raw_BE - space.mean_E[None]) / max(space.scale, 1e-6))

    assert catalogue.texts is not None, "seen above"
    texts = [text or " " for text in catalogue.texts[:PROBES]]
    return _NewItems(
        _of_tokens(apply, MAX_TOKENS),
        pretrained.tokenizer_file,
        _token_arrays(item_tokens(texts, pretrained.tokenizer_file)),
        np.asarray(of_vectors(jnp.asarray(known.vectors_IE[:PROBES]))),
    )


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


def _probe_kinds(kinds: int, rows: list[list[int]]) -> list[list[int]] | None:
    """All kinds in turn, where there are several."""
    return [[place % kinds for place in range(len(row))] for row in rows] if kinds else None


def _probe_users(recommender: Recommender, count: int) -> list[int] | None:
    """Half of them with a vector of their own, where the model has such."""
    if not recommender.config.knows_users:
        return None
    return [row % recommender.config.num_users if row % 2 else -1 for row in range(count)]
