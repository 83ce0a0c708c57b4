"""A teacher that was heard before: its kept outputs, batch by batch."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from distill_jax.core.types import Batch, Capture, ModelOutput
from distill_jax.teachers.manifest import Damaged, Index
from distill_jax.teachers.records import (
    SQUARE,
    TOKENWISE,
    decode,
    dense_logits,
    fill_tokens,
    names_of,
    padded_zeros,
    tokens_of,
)
from distill_jax.teachers.shards import ShardReader

MEMORY_BYTES = 1 << 30

Arrays = dict[str, np.ndarray]


@dataclass(eq=False)
class TeacherCache:
    """An open cache, bound to one table of examples.

    ``cache(batch)`` gives the teacher's outputs for the batch, as the live teacher would.

    Attributes:
      folder: where it lives.
      capture: what was kept beside the logits.
      index: id and length of every record.
      entry_N: the record of every row of the table.
      reader: of the shards.
      memory_bytes: records that were read stay in memory, as they are on disk, up to so many
        bytes. Every example is read once an epoch, so what came first is as good to keep as
        anything else.
    """

    folder: Path
    capture: Capture
    index: Index
    entry_N: np.ndarray
    reader: ShardReader
    memory_bytes: int = MEMORY_BYTES
    _kept: dict[int, Arrays] = field(default_factory=dict, init=False, repr=False)
    _kept_bytes: int = field(default=0, init=False, repr=False)

    def __call__(self, batch: Batch) -> ModelOutput:
        batch_size, length = batch.input_ids_BT.shape
        rows_B = np.asarray(batch.example_ids_B)
        places = np.flatnonzero(rows_B >= 0)
        entries = self.entry_N[rows_B[places]].tolist()
        like, *said = self._records([0, *entries])
        logits_BC = np.zeros((batch_size, len(like["logits"])), np.float32)
        for place, arrays in zip(places, said, strict=True):
            logits_BC[place] = arrays["logits"]
        parts: dict[str, dict[int, np.ndarray]] = {kind: {} for kind in (*TOKENWISE, *SQUARE)}
        for kind, layer, name in names_of(self.capture):
            out = parts[kind][layer] = padded_zeros(name, like[name], batch_size, length)
            for place, arrays in zip(places, said, strict=True):
                fill_tokens(arrays[name], name, out[place])
        return ModelOutput(logits_BC=logits_BC, **parts)  # type: ignore[arg-type]

    def _records(self, entries: Iterable[int]) -> list[Arrays]:
        """The arrays of records, from memory where they are."""
        entries = list(entries)
        found = {entry: self._kept[entry] for entry in entries if entry in self._kept}
        try:
            missing = sorted(set(entries) - found.keys())
            for entry, payload in self.reader.read(missing).items():
                found[entry] = self._checked(entry, payload)
                if self._kept_bytes + len(payload) <= self.memory_bytes:
                    self._kept[entry] = found[entry]
                    self._kept_bytes += len(payload)
        except ValueError as error:
            raise Damaged(self.folder, str(error)) from error
        return [found[entry] for entry in entries]

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
