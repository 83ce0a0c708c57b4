"""From names to models: recommenders of a table, their texts, where students start."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from distill_jax.core.digests import digest, digest_strings
from distill_jax.core.errors import UserError
from distill_jax.core.files import atomic_folder, save_tensors
from distill_jax.data.coverage import Coverage
from distill_jax.data.interactions import RankingSplit
from distill_jax.data.item_fields import Fields
from distill_jax.data.item_vectors import read_item_vectors
from distill_jax.models.bert import Params
from distill_jax.models.recommenders.build import Recommender, parse_model, recommender_family
from distill_jax.models.recommenders.sequence import SequenceConfig
from distill_jax.models.recommenders.text_items import ItemConfig, ItemTexts
from distill_jax.tasks.recommendation.cells import RecModel
from distill_jax.teachers.item_texts import TextSpace

ENCODER = "minilm-l6"
"""The language model that reads the items' texts."""


def build_recommender(
    model: RecModel,
    split: RankingSplit,
    texts: Callable[[], ItemTexts],
    given: Callable[[], np.ndarray] | None = None,
    fields: Callable[[], Fields] | None = None,
) -> Recommender:
    """The model of a name for a catalogue.

    Args:
      texts, given, fields: give the items' text vectors, the vectors of a file [I, V], and the
        items' fields; asked only where the model reads them.

    Raises:
      UserError: for a model that reads vectors or fields of a file where there is none.
    """
    name = parse_model(model.name)
    if name.privileged and not issubclass(
        recommender_family(name.kind).config_type, SequenceConfig
    ):
        raise UserError(f"a {name.kind} reads no events, so it has no privileged fields of theirs")
    if name.privileged and not split.data.field_names:
        raise UserError(
            f"{model.name} reads privileged fields of events: name their columns (--privileged)."
        )
    vectors = texts() if name.source in ("text", "both") else None
    width = vectors.vectors_IE.shape[1] if vectors is not None else 0
    given_IV = None
    if name.given:
        if given is None:
            raise UserError(f"{model.name} reads vectors of items, which this table has none of")
        given_IV = given()
        vectors = dataclasses.replace(vectors or ItemTexts(), given_IV=given_IV)
    known = None
    if name.features:
        if fields is None:
            raise UserError(f"{model.name} reads fields of items, which this table has none of")
        known = fields()
        vectors = dataclasses.replace(vectors or ItemTexts(), fields_IC=known.numbers_IC)
    items = ItemConfig(
        split.data.num_items,
        name.width,
        name.source,
        text_width=width,
        given_width=0 if given_IV is None else given_IV.shape[1],
        fields=() if known is None else known.sizes,
        initializer_range=model.initial,
    )
    family = recommender_family(name.kind)
    config = family.fitted(
        items,
        num_users=split.data.num_users,
        kinds=split.data.kind_names,
        event_fields=split.data.field_sizes if name.privileged else (),
        num_layers=name.layers,
        max_length=model.max_length,
        dropout=model.dropout,
        num_heads=model.heads,
        attention_dropout=model.dropout,
        item_bias=model.item_bias,
    )
    return Recommender(config, family.constants(vectors, split))


def item_vectors_of_texts(
    texts: tuple[str, ...] | None, home: Path, space: TextSpace | None = None
) -> tuple[ItemTexts, TextSpace, Coverage]:
    """The texts of a catalogue as a frozen encoder's vectors, made once and kept under ``home``.

    Args:
      space: of the catalogue that a model was trained with, where this one has grown from it; None
        for this one's own.

    Returns:
      The vectors, the space that items which come later are put into, and how much of the texts
      the encoder reads.

    Raises:
      UserError: if the data has no texts.
    """
    from distill_jax.data.assets import fetch
    from distill_jax.models.huggingface import load_pretrained
    from distill_jax.teachers.item_texts import covered_tokens, encode, text_space

    if texts is None:
        raise UserError(
            "the data has no item texts, which item vectors of text are made of: give items with "
            "titles, or take a model without -text and -both (--teacher sasrec-2x64)."
        )
    pretrained = load_pretrained(
        fetch(ENCODER), pooling="mean", num_labels=2, fresh_classifier=True
    )
    table, coverage = covered_tokens(texts, pretrained.tokenizer_file)
    named = {"encoder": pretrained.digest, "texts": digest_strings(texts), "format": 1}
    folder = home / "item_vectors" / digest(named)
    path = folder / "vectors.safetensors"
    if not path.is_file():
        raw_IE = encode(pretrained.config, pretrained.params, table)
        with atomic_folder(folder) as scratch:
            save_tensors(scratch / path.name, {"raw_IE": raw_IE})
    try:
        raw_IE = load_file(path)["raw_IE"]
    except (OSError, KeyError, SafetensorError) as error:
        raise UserError(f"{folder} is damaged ({error}); delete that folder.") from error
    space = space or text_space(raw_IE)
    return ItemTexts(vectors_IE=space.of(raw_IE)), space, coverage


def item_vectors_of_file(
    path: Path, item_names: tuple[str, ...], first: int | None = None
) -> tuple[np.ndarray, tuple[str, ...]]:
    """A file's vectors of a catalogue; each number has mean 0 and standard deviation 1 over it.

    Args:
      first: mean and deviation are those of the first so many items, of which the catalogue has
        grown; None for all.

    Returns:
      float32 [I, V], 0 (the mean) for items that have none, and sentences on what does not fit.

    Raises:
      UserError: for a file that is none, or none of the catalogue's.
    """
    found = read_item_vectors(path)
    vectors_IV, known_I = found.of(item_names)
    scale_IV = vectors_IV[:first][known_I[:first]]
    mean_V, std_V = scale_IV.mean(axis=0), scale_IV.std(axis=0)
    vectors_IV = (vectors_IV - mean_V[None]) / np.maximum(std_V, 1e-6)[None].astype(np.float32)
    vectors_IV[~known_I] = 0
    notes = []
    if missing := int((~known_I).sum()):
        items = f"{missing} of {len(item_names)} items"
        notes.append(f"{items} have no vector in {path.name}: the mean")
    if others := len(found.items) - int(known_I.sum()):
        notes.append(f"{others} of {len(found.items)} vectors in {path.name} are of no item here")
    return vectors_IV, tuple(notes)


def start_from_items(recommender: Recommender, params: Params, items_ID: np.ndarray) -> Params:
    """Parameters whose item vectors are the teacher's, cut to the student's width.

    The teacher's vectors are centred and turned to their principal directions, of which the first
    so many stay (zeros where the teacher has fewer), at the scale of the vectors they replace.

    Args:
      items_ID: the teacher's item vectors.

    Raises:
      UserError: for a student that has no vector for each item of its own.
    """
    if not recommender.config.items.only_own:
        raise UserError("a student can start from the teacher's item vectors where it has its own")
    fresh_ID = np.asarray(params["items"]["embedding"])
    width = fresh_ID.shape[1]
    centred = items_ID - items_ID.mean(axis=0, keepdims=True)
    _, _, directions = np.linalg.svd(centred, full_matrices=False)
    turned = (centred @ directions[:width].T).astype(np.float32)
    turned = np.pad(turned, ((0, 0), (0, width - turned.shape[1])))
    scaled = turned * (fresh_ID.std() / max(float(turned.std()), 1e-12))
    items = {**params["items"], "embedding": jax.numpy.asarray(scaled, fresh_ID.dtype)}
    return {**params, "items": items}


def with_new_rows(recommender: Recommender, params: Params) -> Params:
    """Parameters of a smaller catalogue, of fewer users, with rows for what came later.

    A new row is the mean of the old ones (Hewitt 2021, "Initializing New Word Embeddings for
    Pretrained Language Models"). Where item vectors are made of texts or of a file's vectors too,
    what an item has beside them is 0, as when such a model is asked about new items.

    Args:
      recommender: of the grown catalogue.
      params: of the smaller one; its items and users are the first ones of the grown.
    """
    fresh = recommender.init(jax.random.key(0))
    mean = recommender.config.items.only_own

    def grown(path: tuple[Any, ...], known: Any, wanted: Any) -> np.ndarray:
        array = np.asarray(known)
        new = len(wanted) - len(array) if wanted.ndim else 0
        if not new:
            return array
        of_users = path[-1].key == "user_embedding"
        row = array.mean(axis=0) if mean or of_users else np.zeros_like(array[0])
        rows = np.broadcast_to(row, (new, *array.shape[1:]))
        return np.concatenate([array, rows]).astype(array.dtype)

    return jax.tree_util.tree_map_with_path(grown, params, fresh)
