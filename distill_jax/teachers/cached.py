"""A teacher that was heard before: its kept outputs, batch by batch."""

import math
import threading
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from distill_jax.core.types import Batch, Capture, ModelOutput
from distill_jax.teachers.manifest import Damaged, Index
from distill_jax.teachers.records import (
    SQUARE,
    TOKENWISE,
    decode,
    dense_logits,
    empty_logits,
    fill_tokens,
    names_of,
    padded_zeros,
    tokens_of,
)
from distill_jax.teachers.shards import ShardReader

Arrays = dict[str, np.ndarray]
ABSENT = -1
"""Instead of the record of an example that the teacher was not asked about."""


BESIDE = 700
"""Bytes that a record takes in memory beside its arrays' own: a dictionary, names, objects."""


class RecordMemory:
    """Records that were read lately, up to ``limit`` bytes.

    One for all caches of a process, so that many open caches need no more than one.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0
        self._records: OrderedDict[tuple[str, int], tuple[Arrays, int]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: tuple[str, int]) -> Arrays | None:
        """A record, if it is still here."""
        with self._lock:
            if key not in self._records:
                return None
            self._records.move_to_end(key)
            return self._records[key][0]

    def put(self, key: tuple[str, int], arrays: Arrays, size: int) -> None:
        """Keep a record of ``size`` bytes; those asked for longest ago make room."""
        if size > self.limit:
            return
        with self._lock:
            self.used += size - self._records.pop(key, ({}, 0))[1]
            self._records[key] = arrays, size
            while self.used > self.limit:
                self.used -= self._records.popitem(last=False)[1][1]


MEMORY = RecordMemory(1 << 30)


@dataclass(frozen=True, eq=False)
class TeacherCache:
    """An open cache, bound to one table of examples.

    ``cache(batch)`` gives the teacher's outputs for the batch, as the live teacher would. Where
    logits are all that was kept, those that were read stay, in one array of a few bytes an
    example; of larger records as many as ``memory`` has room for.

    Attributes:
      folder: where it lives.
      capture: what was kept beside the logits.
      index: id and length of every record.
      entry_N: the record of every row of the table, ``ABSENT`` where there is none.
      reader: of the shards.
      memory: where records that were read are kept.
    """

    folder: Path
    capture: Capture
    index: Index
    entry_N: np.ndarray
    reader: ShardReader
    memory: RecordMemory = field(default=MEMORY, repr=False)

    def __call__(self, batch: Batch) -> ModelOutput:
        batch_size, length = batch.input_ids_BT.shape
        rows_B = np.asarray(batch.example_ids_B)
        places = np.flatnonzero(rows_B >= 0)
        entries = self.entry_N[rows_B[places]].tolist()
        if ABSENT in entries:
            raise ValueError(f"{self.folder} has no record of some examples of this batch")
        if (logits_EC := self._logits_EC) is not None:
            self._fill(logits_EC, entries)
            logits_BC = np.zeros((batch_size, logits_EC.shape[1]), np.float32)
            logits_BC[places] = logits_EC[entries]
            return ModelOutput(logits_BC=logits_BC)  # type: ignore[arg-type]
        like, *said = self._records([0, *entries])
        logits_BC = empty_logits(like["logits"], batch_size, length)
        for place, arrays in zip(places, said, strict=True):
            own = arrays["logits"]
            logits_BC[place][: len(own)] = own
        parts: dict[str, dict[int, np.ndarray]] = {kind: {} for kind in (*TOKENWISE, *SQUARE)}
        for kind, layer, name in names_of(self.capture):
            out = parts[kind][layer] = padded_zeros(name, like[name], batch_size, length)
            for place, arrays in zip(places, said, strict=True):
                fill_tokens(arrays[name], name, out[place])
        return ModelOutput(logits_BC=logits_BC, **parts)  # type: ignore[arg-type]

    @cached_property
    def _logits_EC(self) -> np.ndarray | None:
        """float32 [E, C] logits of all records, NaN where they were not read; None where there
        is more than logits, one an example, or no room for them."""
        if names_of(self.capture):
            return None
        like = self._records([0])[0]["logits"]
        if like.ndim == 2:
            return None
        shape = len(self.index.ids), len(like)
        return (
            np.full(shape, np.nan, np.float32)
            if 4 * math.prod(shape) <= self.memory.limit
            else None
        )

    def _fill(self, logits_EC: np.ndarray, entries: list[int]) -> None:
        """Read the logits that were not read before; what a cache holds is finite."""
        unread = [entry for entry in entries if np.isnan(logits_EC[entry, 0])]
        for entry, (arrays, _) in self._read(unread).items():
            logits_EC[entry] = arrays["logits"]

    def _records(self, entries: Iterable[int]) -> list[Arrays]:
        """The arrays of records, from memory where they are."""
        entries = list(entries)
        remembered = {entry: self.memory.get(self.reader.key(entry)) for entry in entries}
        found = {entry: arrays for entry, arrays in remembered.items() if arrays is not None}
        for entry, (arrays, size) in self._read(remembered.keys() - found.keys()).items():
            found[entry] = arrays
            self.memory.put(self.reader.key(entry), arrays, size + BESIDE)
        return [found[entry] for entry in entries]

    def _read(self, entries: Iterable[int]) -> dict[int, tuple[Arrays, int]]:
        """Entry -> its arrays and their bytes, from disk."""
        try:
            return {
                entry: (self._checked(entry, payload), len(payload))
                for entry, payload in self.reader.read(entries).items()
            }
        except ValueError as error:
            raise Damaged(self.folder, str(error)) from error

    def _checked(self, entry: int, payload: bytes) -> Arrays:
        """The arrays of a record, logits dense, when it is the one it should be."""
        example_id, arrays = decode(payload)
        if example_id != self.index.ids[entry]:
            raise ValueError(f"{example_id!r} stands where {self.index.ids[entry]!r} should")
        arrays["logits"] = dense_logits(arrays)
        for _, _, name in names_of(self.capture):
            if name not in arrays or {*tokens_of(name, arrays[name])} != {
                int(self.index.lengths_N[entry])
            }:
                raise ValueError(f"{name} of {example_id!r} is missing or has another length")
        return arrays
