"""Content digests: the names under which caches, cells and runs are filed.

Python's ``hash`` changes from process to process and positions change with the data, so
neither ever names anything here.
"""

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

DIGEST_CHARS = 16
LATE = {"late": True}
"""Metadata of a dataclass's field that came when digests had been given out already: it counts
only where it is not at its default, so that what was filed before keeps its name."""


NAME = {"name": True}
"""Metadata of a dataclass's field that says where something is found: it never counts, what is
found there does."""


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no white space; dataclasses and tuples are understood.

    Raises:
      TypeError: for anything JSON cannot hold, so that nothing is digested by its ``repr``.
      ValueError: for NaN and infinity.
    """

    def plain(item: Any) -> Any:
        if dataclasses.is_dataclass(item) and not isinstance(item, type):
            return {name: plain(val) for name, val in fields_that_count(item).items()}
        if isinstance(item, Mapping):
            return {str(key): plain(val) for key, val in item.items()}
        if isinstance(item, (list, tuple)):
            return [plain(val) for val in item]
        if isinstance(item, np.generic):
            return item.item()
        return item

    return json.dumps(
        plain(value), sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False
    )


def fields_that_count(config: Any) -> dict[str, Any]:
    """A dataclass's fields by name, without those that are ``LATE`` and at their default, and
    those that are a ``NAME``."""
    every = [(field, getattr(config, field.name)) for field in dataclasses.fields(config)]
    return {
        field.name: value
        for field, value in every
        if not (field.metadata.get("late") and value == field.default)
        and not field.metadata.get("name")
    }


def digest(value: Any) -> str:
    """Digest of a JSON-like value, 16 hexadecimal characters (64 bits)."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:DIGEST_CHARS]


def digest_strings(strings: Iterable[str]) -> str:
    """Digest of a sequence of strings, sensitive to order and to where each one ends."""
    hasher = hashlib.sha256()
    for string in strings:
        data = string.encode()
        hasher.update(len(data).to_bytes(8, "little"))
        hasher.update(data)
    return hasher.hexdigest()[:DIGEST_CHARS]


def digest_arrays(arrays: Mapping[str, Any]) -> str:
    """Digest of named arrays: names, dtypes, shapes and bytes."""
    hasher = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        hasher.update(f"{name}|{array.dtype.str}|{array.shape}|".encode())
        hasher.update(array.reshape(-1).view(np.uint8).data)  # no copy: it may lie in a file
    return hasher.hexdigest()[:DIGEST_CHARS]


def sha256_file(path: Path) -> str:
    """Full SHA-256 of a file's bytes, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def unit_interval(key: str) -> float:
    """A number in [0, 1) that depends on ``key`` alone: the fixed hash behind every split."""
    word = hashlib.sha256(key.encode()).digest()[:8]
    return int.from_bytes(word, "big") / 2**64
