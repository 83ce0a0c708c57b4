"""A recommender as a folder: ``config.json``, parameters, and what it knows of the items' texts."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np

from distill_jax.core.digests import digest, digest_arrays, fields_that_count
from distill_jax.core.errors import UserError
from distill_jax.core.files import atomic_folder, save_tensors
from distill_jax.models.bert import BertConfig, Params
from distill_jax.models.family import family_of
from distill_jax.models.hf_config import read_json
from distill_jax.models.hf_weights import WEIGHTS, read_safetensors
from distill_jax.models.loaded import check_free, flat_arrays, read_params
from distill_jax.models.recommenders.build import Recommender, recommender_family
from distill_jax.models.recommenders.text_items import ItemConfig, ItemTexts

CONFIG, TEXTS = "config.json", "item_texts.safetensors"
_MODEL_TYPE = "distill_jax_recommender"


@dataclasses.dataclass(frozen=True, eq=False)
class SavedRecommender:
    """A recommender as loaded.

    Attributes:
      recommender: the model with the texts of its catalogue.
      params: float32.
      item_names: the catalogue's, in order.
      digest: of all of it.
    """

    recommender: Recommender
    params: Params
    item_names: tuple[str, ...]
    digest: str


def recommender_digest(recommender: Recommender, params: Params) -> str:
    """Content digest: config, parameters, and the constants made of texts."""
    return digest(
        {
            "config": config_to_json(recommender.config),
            "params": digest_arrays(flat_arrays(params)),
            "texts": digest_arrays(_text_arrays(recommender.texts)),
        }
    )


def config_to_json(config: Any) -> dict[str, Any]:
    """Plain JSON, with the model's kind; of the items' fields those that count."""
    raw = dataclasses.asdict(config)
    raw["items"] = {name: raw["items"][name] for name in fields_that_count(config.items)}
    return {"kind": family_of(config).name, **raw}


def config_from_json(raw: dict[str, Any]) -> Any:
    """The inverse of ``config_to_json``.

    Raises:
      KeyError, TypeError, ValueError, UserError: for anything else.
    """
    fields = dict(raw)
    kind = recommender_family(fields.pop("kind")).config_type
    items = dict(fields.pop("items"))
    if items.get("tower") is not None:
        items["tower"] = BertConfig(**items["tower"])
    return kind(items=ItemConfig(**items), **fields)


def save_recommender(
    folder: Path, recommender: Recommender, params: Params, item_names: tuple[str, ...]
) -> None:
    """Write a folder that ``load_recommender`` opens, whole or not at all.

    Raises:
      UserError: the folder exists and is not empty.
    """
    check_free(folder)
    raw = {
        "model_type": _MODEL_TYPE,
        **config_to_json(recommender.config),
        "item_names": list(item_names),
        "digest": recommender_digest(recommender, params),
    }
    with atomic_folder(folder) as scratch:
        text = json.dumps(raw, indent=1, ensure_ascii=False)
        (scratch / CONFIG).write_text(text + "\n", encoding="utf-8")
        save_tensors(scratch / WEIGHTS, flat_arrays(params))
        if recommender.texts is not None:
            save_tensors(scratch / TEXTS, _text_arrays(recommender.texts))


def is_recommender(folder: Path) -> bool:
    """Whether a model's folder says that it is one."""
    path = folder / CONFIG
    return path.is_file() and read_json(path).get("model_type") == _MODEL_TYPE


def load_recommender(folder: Path) -> SavedRecommender:
    """Read what ``save_recommender`` wrote, and verify it against the digest written with it.

    Raises:
      UserError: a file is missing, damaged, changed, or not of a recommender.
    """
    where = folder / CONFIG
    raw = read_json(where)
    if raw.pop("model_type", None) != _MODEL_TYPE:
        raise UserError(f"{where} is not of a recommender saved by distill_jax.")
    try:
        names, expected = tuple(map(str, raw.pop("item_names"))), raw.pop("digest")
        config = config_from_json(raw)
    except (KeyError, TypeError, ValueError, UserError) as error:
        raise UserError(f"{where} is damaged: {error}") from error
    texts = ItemTexts(**read_safetensors(folder / TEXTS)) if (folder / TEXTS).is_file() else None
    recommender = Recommender(config, texts)
    try:
        family_of(config).check_constants(config, texts)
    except ValueError as error:
        raise UserError(f"{folder / TEXTS} is damaged: {error}") from error
    params = read_params(folder, recommender.init)
    found = recommender_digest(recommender, params)
    if found != expected:
        raise UserError(f"{folder} is damaged: its content has changed since it was saved.")
    return SavedRecommender(recommender, params, names, found)


def _text_arrays(texts: ItemTexts | None) -> dict[str, np.ndarray]:
    given = {} if texts is None else vars(texts)
    return {name: np.ascontiguousarray(x) for name, x in given.items() if x is not None}
