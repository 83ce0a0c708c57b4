"""Recommenders in closed form by name: fitted, written to disk, and read again."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from scipy import sparse

from distill_jax.core.digests import digest, digest_arrays
from distill_jax.core.errors import UserError, unknown
from distill_jax.core.files import atomic_folder, save_tensors
from distill_jax.models.hf_config import read_json
from distill_jax.models.hf_weights import WEIGHTS, read_safetensors
from distill_jax.models.loaded import check_free
from distill_jax.models.recommenders.ease import MAX_ITEMS, Ease, fit_ease
from distill_jax.models.recommenders.item_knn import ItemKNN, fit_item_knn
from distill_jax.models.recommenders.popularity import Popularity, fit_popularity
from distill_jax.models.recommenders.protocol import Asked, Trained

CONFIG = "config.json"
MODEL_TYPE = "distill_jax_closed_form"
Arrays = Mapping[str, np.ndarray]
STAND_IN = "item_knn"
"""Instead of one that a catalogue is too large for."""


class Model(Protocol):
    """A fitted one."""

    def scores(self, histories: Asked) -> np.ndarray:
        """float32 [E, I]."""


class Fit(Protocol):
    """Fits one."""

    def __call__(self, split: Trained, /, *, on_block: Callable[[], None] = ...) -> Any: ...


@dataclasses.dataclass(frozen=True)
class ClosedForm:
    """A kind of them.

    Attributes:
      fit: learns from a split; calls ``on_block`` now and then, which may raise to stop.
      arrays: of a model, by name.
      model: the model of such arrays for so many items; raises ``ValueError`` for others.
      most_items: of a catalogue that it can be fitted to; None for any.
    """

    fit: Fit
    arrays: Callable[[Any], dict[str, np.ndarray]]
    model: Callable[[Arrays, int], Any]
    most_items: int | None = None


def _ease(arrays: Arrays, num_items: int) -> Ease:
    return Ease(_shaped(arrays["weights"], (num_items, num_items)))


def _popularity(arrays: Arrays, num_items: int) -> Popularity:
    return Popularity(_shaped(arrays["counts"], (num_items,)))


def _item_knn(arrays: Arrays, num_items: int) -> ItemKNN:
    values, rows, starts = (arrays[name] for name in ("values", "rows", "starts"))
    _shaped(starts, (num_items + 1,))
    _shaped(values, (len(rows),))
    inside = not len(rows) or (rows.min() >= 0 and rows.max() < num_items)
    ascending = starts[0] == 0 and (np.diff(starts) >= 0).all() and starts[-1] == len(rows)
    if not (inside and ascending):
        raise ValueError("its sparse matrix is none")
    return ItemKNN(sparse.csr_array((values, rows, starts), shape=(num_items, num_items)))


def _shaped(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if array.shape != shape or not np.isfinite(array).all():
        raise ValueError(f"an array has shape {array.shape}, not {shape}, or is not finite")
    return array


CLOSED_FORMS: dict[str, ClosedForm] = {
    "popularity": ClosedForm(fit_popularity, lambda model: {"counts": model.counts_I}, _popularity),
    "item_knn": ClosedForm(
        fit_item_knn,
        lambda model: {
            "values": model.similarity_II.data,
            "rows": model.similarity_II.indices,
            "starts": model.similarity_II.indptr,
        },
        _item_knn,
    ),
    "ease": ClosedForm(fit_ease, lambda model: {"weights": model.weights_II}, _ease, MAX_ITEMS),
}


def parse_references(text: str) -> tuple[str, ...]:
    """``popularity,ease`` as names; nothing for none.

    Raises:
      UserError: for a name that is none of them.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in CLOSED_FORMS:
            raise unknown("reference", name, CLOSED_FORMS)
    return tuple(dict.fromkeys(names))


def fitting(names: Sequence[str], num_items: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The references that a catalogue can have, and a sentence on each that it cannot.

    Raises:
      UserError: for a name that is none of them.
    """
    notes, found = [], list(parse_references(",".join(names)))
    for place, name in enumerate(found):
        most = CLOSED_FORMS[name].most_items
        if most is not None and num_items > most:
            found[place] = STAND_IN
            notes.append(
                f"{name} needs items x items numbers and is not fitted to more than {most:,} "
                f"items: {STAND_IN} stands in its place"
            )
    return tuple(dict.fromkeys(found)), tuple(notes)


class SavedClosedForm(NamedTuple):
    """One as loaded."""

    kind: str
    model: Model
    item_names: tuple[str, ...]


def size_of(kind: str, model: Model) -> int:
    """Bytes of its arrays."""
    return sum(array.nbytes for array in CLOSED_FORMS[kind].arrays(model).values())


def save_closed_form(folder: Path, kind: str, model: Model, item_names: tuple[str, ...]) -> None:
    """Write a folder that ``load_closed_form`` opens, whole or not at all.

    Raises:
      UserError: the folder exists and is not empty.
    """
    check_free(folder)
    arrays = CLOSED_FORMS[kind].arrays(model)
    raw = {
        "model_type": MODEL_TYPE,
        "kind": kind,
        "item_names": list(item_names),
        "digest": digest([kind, digest_arrays(arrays)]),
    }
    with atomic_folder(folder) as scratch:
        text = json.dumps(raw, indent=1, ensure_ascii=False)
        (scratch / CONFIG).write_text(text + "\n", encoding="utf-8")
        save_tensors(scratch / WEIGHTS, arrays)


def is_closed_form(folder: Path) -> bool:
    """Whether a model's folder says that it is one."""
    path = folder / CONFIG
    return path.is_file() and read_json(path).get("model_type") == MODEL_TYPE


def load_closed_form(folder: Path) -> SavedClosedForm:
    """Read what ``save_closed_form`` wrote, and verify it against the digest written with it.

    Raises:
      UserError: a file is missing, damaged or changed.
    """
    where = folder / CONFIG
    raw, arrays = read_json(where), read_safetensors(folder / WEIGHTS)
    try:
        kind, names = raw["kind"], tuple(map(str, raw["item_names"]))
        if digest([kind, digest_arrays(arrays)]) != raw["digest"]:
            raise ValueError("its content has changed since it was saved")
        return SavedClosedForm(kind, CLOSED_FORMS[kind].model(arrays, len(names)), names)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{where} is damaged: {error}.") from error
