"""Vectors of items from a file: of pictures, prices, what a language model says; keyed by item.

What a file may be:

- ``NAME.npy``: [N, V] numbers, and beside it ``NAME.csv`` (or ``.tsv``) with a column ``item`` or
  ``id``, or ``NAME.txt`` with an item a line, in the order of the rows, which a column ``row`` may
  say; what ``distill-jax export --format vectors`` writes is of this form;
- ``NAME.safetensors`` with one tensor ``vectors`` [N, V], and the items beside it likewise, or as
  whole numbers in a tensor ``ids``;
- ``NAME.safetensors`` with a tensor [V] an item, called as the item is.
"""

import dataclasses
from collections import Counter
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from distill_jax.core.errors import UserError
from distill_jax.data.column_names import column_of
from distill_jax.data.file_formats import read_cells, read_lines

ENDINGS = (".npy", ".safetensors")
_IDS = (".csv", ".tsv", ".txt")
_VECTORS, _NUMBERS = "vectors", "ids"
MOST = 1e15
"""Numbers are no larger, so that the squares of a million of them have a sum in float32."""


@dataclasses.dataclass(frozen=True, eq=False)
class VectorFile:
    """What a file says.

    Attributes:
      items: N names.
      vectors_NV: float32 [N, V], finite, ``MOST`` at most.
    """

    path: Path
    items: tuple[str, ...]
    vectors_NV: np.ndarray

    def of(self, item_names: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
        """The vectors of a catalogue, float32 [I, V], and which items have one, bool [I].

        Raises:
          UserError: where none has.
        """
        row = {name: number for number, name in enumerate(self.items)}
        rows_I = np.array([row.get(name, -1) for name in item_names])
        known_I = rows_I >= 0
        if not known_I.any():
            raise UserError(
                f"{self.path}: none of its items ({self.items[0]!r}, ...) is in the catalogue "
                f"({item_names[0]!r}, ...)."
            )
        vectors_IV = np.where(known_I[:, None], self.vectors_NV[rows_I], np.float32(0))
        return vectors_IV, known_I


def read_item_vectors(path: Path) -> VectorFile:
    """A file of vectors; see the module.

    Raises:
      UserError: naming the file and what was expected.
    """
    if not path.is_file():
        raise UserError(f"no file {path}, where item vectors are expected")
    if path.suffix.lower() not in ENDINGS:
        raise UserError(f"{path}: expected item vectors as {' or '.join(ENDINGS)}.")
    if path.suffix.lower() == ".npy":
        items, vectors = _items_beside(path), _load_npy(path)
    else:
        items, vectors = _from_tensors(path)
    return VectorFile(path, items, _checked(path, items, vectors))


def _load_npy(path: Path) -> np.ndarray:
    try:
        return np.asarray(np.load(path, allow_pickle=False))
    except (OSError, ValueError, EOFError, MemoryError) as error:
        raise UserError(f"{path} is no whole .npy file: {error}") from error


def _from_tensors(path: Path) -> tuple[tuple[str, ...], np.ndarray]:
    try:
        tensors = load_file(path)
    except (OSError, ValueError, TypeError, KeyError, MemoryError, SafetensorError) as error:
        raise UserError(f"{path} is no whole .safetensors file: {error}") from error
    if _VECTORS in tensors and tensors.keys() <= {_VECTORS, _NUMBERS}:
        numbers = tensors.get(_NUMBERS)
        if numbers is None:
            return _items_beside(path), tensors[_VECTORS]
        if numbers.ndim != 1 or numbers.dtype.kind not in "iu":
            raise UserError(f"{path}: tensor {_NUMBERS!r} must hold whole numbers, one an item.")
        return tuple(map(str, numbers.tolist())), tensors[_VECTORS]
    shapes = {tensor.shape for tensor in tensors.values()}
    if len(shapes) != 1 or len(next(iter(shapes))) != 1:
        raise UserError(
            f"{path}: expected a tensor {_VECTORS!r} [items, numbers], or a tensor an item, all of "
            "one length."
        )
    return tuple(tensors), np.stack(list(tensors.values()))


def _items_beside(path: Path) -> tuple[str, ...]:
    found = [path.with_suffix(ending) for ending in _IDS if path.with_suffix(ending).is_file()]
    if len(found) != 1:
        raise UserError(
            f"{path}: whose are the vectors? Expected one file {path.stem}.csv, .tsv (a column "
            f"item or id) or .txt (an item a line) beside it, found {len(found)}."
        )
    if found[0].suffix == ".txt":
        return tuple(text.strip() for _, text in read_lines(found[0]))
    items: list[str] = []
    rows: list[str] = []
    for _, cells in read_cells(found[0]):
        rows.append(str(cells.get("row", "")).strip())
        column = column_of("item", cells, found[0]) or ("id" if "id" in cells else None)
        if column is None:
            raise UserError(f"{found[0]} has columns {', '.join(cells)}; expected item or id.")
        items.append(str(cells[column]).strip())
    place = dict(zip(rows, items, strict=True))
    numbered = [str(row) for row in range(len(items))]
    if place.keys() == set(numbered):  # in whatever order the lines stand
        return tuple(place[row] for row in numbered)
    return tuple(items)


def _checked(path: Path, items: tuple[str, ...], vectors: np.ndarray) -> np.ndarray:
    numbers = vectors.dtype.kind in "fiu" or vectors.dtype.name == "bfloat16"
    if vectors.ndim != 2 or not numbers or not vectors.size:
        raise UserError(
            f"{path} holds {vectors.dtype} of shape {vectors.shape}; expected numbers, [items, "
            "numbers of a vector]."
        )
    if len(items) != len(vectors):
        raise UserError(f"{path}: {len(vectors)} vectors and {len(items)} items.")
    if len(set(items)) < len(items):
        (twice, _), *_ = Counter(items).most_common(1)
        raise UserError(f"{path}: item {twice!r} occurs twice.")
    with np.errstate(over="ignore"):
        vectors_NV = vectors.astype(np.float32)
    bad = np.flatnonzero(~(np.abs(vectors_NV) <= MOST).all(axis=1))
    if len(bad):
        raise UserError(
            f"{path}: the vector of item {items[bad[0]]!r} holds no finite numbers, or some above "
            f"{MOST:g}."
        )
    return vectors_NV
