"""Images of the user's own: one ``.npz`` file, see docs/data.md."""

from __future__ import annotations

import math
import zipfile
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from distill_jax.core.digests import DIGEST_CHARS, unit_interval
from distill_jax.core.errors import UserError, first_line, unknown
from distill_jax.data.classes import check_classes, class_order
from distill_jax.data.images import ImageDataset, ImageTable
from distill_jax.data.split_files import STEMS, TRANSFER
from distill_jax.data.splits import HELD_OUT
from distill_jax.data.table import NO_LABEL, label_array

ARRAYS: Mapping[str, str] = {"images": "u", "labels": "iuU", "splits": "U", "label_names": "U"}
"""The arrays that a file may have -> the kinds of their numbers or words, as numpy calls them."""
MOST_BYTES = 1 << 28
"""Of an array: of images 1 GiB once they are float32."""
TRAIN, VALIDATION = 0.8, 0.9
"""Where nothing says which split an image is of: a hash of the image below ``TRAIN`` is of train,
below ``VALIDATION`` of validation, else of test."""


class RawImages(NamedTuple):
    """Images as they lie in a file.

    Attributes:
      images_NHWC: uint8.
      words: each one's label, None where it has none.
      names: the classes in order; None where the file does not say.
      splits: each one's split, one of ``STEMS``; None where the file does not say.
      where: what they were read of, for errors.
    """

    images_NHWC: np.ndarray
    words: Sequence[str | None]
    names: tuple[str, ...] | None
    splits: Sequence[str] | None
    where: str


def load(path: Path) -> ImageDataset:
    """A file of images as a data set.

    Raises:
      UserError: one line that names the file, the array in it and what was expected.
    """
    return build_images(f"images:{path}", read_images(path))


def read_images(path: Path, *, labels: bool = True) -> RawImages:
    """The arrays of a file, checked; nothing in it is trusted, nothing is unpickled.

    Args:
      labels: whether there have to be some.

    Raises:
      UserError: see ``load``.
    """
    arrays = _arrays(path)
    for name in ("images", "labels") if labels else ("images",):
        if name not in arrays:
            raise UserError(f"{path}: no array {name!r}; it holds {', '.join(arrays) or 'none'}.")
    images = arrays["images"]
    if images.dtype != np.uint8 or images.ndim not in (3, 4) or not images.size:
        raise UserError(
            f"{path}: images must be uint8 [N, H, W] or [N, H, W, C], each at least 1, not "
            f"{images.dtype} {list(images.shape)}."
        )
    for name in ("labels", "splits"):
        if name in arrays and arrays[name].shape != images.shape[:1]:
            raise UserError(
                f"{path}: {name} of shape {list(arrays[name].shape)} for {len(images)} images."
            )
    names = _names(arrays.get("label_names"), path)
    return RawImages(
        images if images.ndim == 4 else images[..., None],
        _words(arrays["labels"], names, path) if "labels" in arrays else [None] * len(images),
        names,
        _splits(arrays["splits"].tolist(), path) if "splits" in arrays else None,
        str(path),
    )


def build_images(name: str, raw: RawImages) -> ImageDataset:
    """A data set with all three splits.

    Without ``raw.splits`` a hash of each image says which split it is of, so that equal images
    stay together and no further image moves one. With them, what is missing is made up for as with
    texts: a lone labelled split beside train is the test split, and a tenth of train is held out
    for validation.

    Raises:
      UserError: for fewer than two classes, or a split that is missing or not labelled.
    """
    counts = Counter(word for word in raw.words if word is not None)
    if len(counts) < 2:
        raise UserError(f"{raw.where}: expected at least two different labels, found {len(counts)}")
    notes = list(check_classes(counts, raw.where)) if raw.names is None else []
    label_names = class_order(counts, raw.names)
    keys = content_keys(raw.images_NHWC)
    everything = image_table(raw, keys, label_names)
    rows = _rows_by_split(raw, keys, everything.labels_N, notes)
    tables = {split: everything.take(own) for split, own in rows.items()}
    if TRANSFER in tables:
        hidden = tables.pop(TRANSFER)
        hidden = hidden.without_labels(np.arange(len(hidden)))
        tables["train"] = tables["train"].joined(hidden)
    if not (tables["train"].labels_N >= 0).any():
        raise UserError(f"{raw.where}: the train split has no labelled image.")
    for split in ("validation", "test"):
        if split not in tables:
            raise UserError(
                f"{raw.where}: {len(everything)} images are too few to hold out a {split} split; "
                "say with an array 'splits' which image is of which."
            )
        if bare := int((tables[split].labels_N < 0).sum()):
            raise UserError(f"{raw.where}: {bare} {split} images have no label.")
    return ImageDataset(name, label_names, tables, tuple([*notes, *_repeated(tables)]))


def image_table(raw: RawImages, keys: Sequence[str], label_names: tuple[str, ...]) -> ImageTable:
    """All images, in the file's order; their ids are made of their content.

    Args:
      keys: of ``content_keys``; the second image of the same content is called ``KEY-2``.
      label_names: the classes, every label among them.
    """
    seen: Counter[str] = Counter()
    ids = []
    for key in keys:
        seen[key] += 1
        ids.append(key if seen[key] == 1 else f"{key}-{seen[key]}")
    return ImageTable(
        ids=tuple(ids),
        pixels_NHWC=raw.images_NHWC / np.float32(255),
        labels_N=label_array(raw.words, label_names),
    )


def content_keys(images_NHWC: np.ndarray) -> list[str]:
    """A digest of each image, the same for equal ones."""
    from hashlib import sha256

    return [
        sha256(np.ascontiguousarray(image).data).hexdigest()[:DIGEST_CHARS] for image in images_NHWC
    ]


def key_of(example_id: str) -> str:
    """The digest in an image's id."""
    return example_id.split("-")[0]


def _rows_by_split(
    raw: RawImages, keys: Sequence[str], labels_N: np.ndarray, notes: list[str]
) -> dict[str, np.ndarray]:
    """int64 rows of train, validation, test, and of the transfer set where there is one."""
    if raw.splits is None:
        notes.append("a fixed hash of each image decides its split: 80%, 10% and 10%")
        drawn = [_drawn(key, label >= 0) for key, label in zip(keys, labels_N, strict=True)]
        return _rows(drawn)
    rows = _rows(raw.splits)
    if "train" not in rows:
        raise UserError(f"{raw.where}: splits has no 'train', only {', '.join(rows)}.")
    if "test" not in rows:
        if "validation" not in rows:
            raise UserError(f"{raw.where}: splits has no 'validation' and no 'test' beside train.")
        rows["test"] = rows.pop("validation")
        notes.append("the validation split serves as test")
    if "validation" not in rows:
        held_N = np.array(
            [labels_N[n] >= 0 and unit_interval(f"validation/{keys[n]}") < HELD_OUT
             for n in rows["train"]]
        )  # fmt: skip
        rows["validation"], rows["train"] = rows["train"][held_N], rows["train"][~held_N]
        notes.append(
            f"{len(rows['validation'])} train images, chosen by a fixed hash, serve as validation"
        )
    return rows


def _rows(splits: Sequence[str]) -> dict[str, np.ndarray]:
    names = np.asarray(splits)
    there = [split for split in STEMS if split in set(splits)]
    return {split: np.flatnonzero(names == split) for split in there}


def _drawn(key: str, labelled: bool) -> str:
    """The split of an image that nobody put into one; one without a label is of train."""
    unit = unit_interval(f"split/{key}")
    if unit < TRAIN or not labelled:
        return "train"
    return "validation" if unit < VALIDATION else "test"


def _repeated(tables: Mapping[str, ImageTable]) -> list[str]:
    """A note for every split with images that train has too: scores there are flattered."""
    train = {key_of(each) for each in tables["train"].ids}
    shared = {s: sum(key_of(x) in train for x in tables[s].ids) for s in ("validation", "test")}
    return [
        f"{count} of {len(tables[split])} {split} images occur in train too"
        for split, count in shared.items()
        if count
    ]


def _names(array: np.ndarray | None, path: Path) -> tuple[str, ...] | None:
    if array is None:
        return None
    if array.ndim != 1 or len(set(array.tolist())) != len(array) or not all(array.tolist()):
        raise UserError(f"{path}: label_names must be different words, a class each.")
    return tuple(array.tolist())


def _words(array: np.ndarray, names: tuple[str, ...] | None, path: Path) -> list[str | None]:
    """Labels as text: words, or whole numbers from 0, of which -1 is none."""
    values = array.tolist()
    if array.dtype.kind == "U":
        for value in values:
            if value and names is not None and value not in names:
                raise unknown("label", value, names, where=f"in {path}")
        return [value.strip() or None for value in values]
    if (least := min(values)) < NO_LABEL:
        raise UserError(f"{path}: labels run from {least}; expected 0 and on, -1 for none.")
    if names is not None and (most := max(values)) >= len(names):
        raise UserError(f"{path}: a label is {most}, and label_names has {len(names)} classes.")
    known = names or {value: str(value) for value in set(values)}
    return [None if value == NO_LABEL else known[value] for value in values]


def _splits(names: Sequence[str], path: Path) -> list[str]:
    """Each image's split by the name that files of it may have."""
    stems = {stem: split for split, own in STEMS.items() for stem in own}
    for name in set(names):
        if name.lower() not in stems:
            raise unknown("split", name, stems, where=f"in {path}")
    return [stems[name.lower()] for name in names]


def _arrays(path: Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        raise UserError(f"no file {path}: expected an .npz with arrays {', '.join(ARRAYS)}.")
    try:
        with zipfile.ZipFile(path) as file:
            members = {info.filename: info for info in file.infolist()}
            if len(members) < len(file.infolist()):
                raise UserError(f"{path}: an array is in it twice.")
            for name in members:
                if name.removesuffix(".npy") not in ARRAYS or not name.endswith(".npy"):
                    raise unknown("array", name.removesuffix(".npy"), ARRAYS, where=f"in {path}")
            found = {}
            for name, info in members.items():
                with file.open(info) as source:
                    own = name.removesuffix(".npy")
                    found[own] = _array(source, ARRAYS[own], f"{path}: {own}")
            return found
    except UserError:
        raise
    except (OSError, EOFError, RuntimeError, ValueError, NotImplementedError, OverflowError,
            SyntaxError, TypeError, zipfile.BadZipFile, zlib.error) as error:  # fmt: skip
        raise UserError(f"{path} is no .npz file that can be read: {first_line(error)}.") from error


def _array(source: IO[bytes], kinds: str, what: str) -> np.ndarray:
    """One array; its size is known, and allowed, before its content is read."""
    version = np.lib.format.read_magic(source)
    readers: dict[Any, Any] = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    if version not in readers:
        raise UserError(f"{what}: .npy of version {version}; expected 1.0 or 2.0.")
    shape, fortran, dtype = readers[version](source)
    if dtype.kind not in kinds or dtype.hasobject:
        raise UserError(f"{what}: numbers or words of type {dtype}; expected {_said(kinds)}.")
    size = math.prod(shape) * dtype.itemsize
    if min(shape, default=0) < 0 or size > MOST_BYTES:
        raise UserError(f"{what}: {size:,} bytes {list(shape)}; at most {MOST_BYTES:,} are read.")
    data = source.read(size + 1)
    if len(data) != size:
        raise UserError(f"{what}: {len(data):,} bytes or more for {size:,} of {list(shape)}.")
    array = np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")
    if dtype.kind == "U":
        "".join(array.ravel().tolist()).encode()  # characters that are none are found here
    return array


def _said(kinds: str) -> str:
    words = {"u": "uint8", "iuU": "whole numbers or words", "U": "words"}
    return words[kinds]
