"""A teacher's outputs on disk: computed once, keyed by example id, refused for anything else.

Token-level outputs are ragged: only real tokens are stored, one example after another, so a
batch may pad them to any length. ``hidden_states`` keep [t, D] for an example of t tokens,
``attention_scores`` [H, t, t], and so on.
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from distill_jax.core.digests import digest, sha256_file
from distill_jax.core.errors import UserError
from distill_jax.core.files import atomic_folder
from distill_jax.core.types import Batch, Capture, ModelOutput
from distill_jax.data.plan import ExampleTable, choose_lengths, make_batch, plan_in_order

FORMAT = 1
_SQUARE = ("attention_scores", "attention_probs")
_TOKENWISE = ("hidden_states", "queries", "keys", "values")


@dataclass(frozen=True)
class Provenance:
    """What a cache was made of. A cache serves exactly the provenance it names.

    Attributes:
      teacher: content digest of the teacher's parameters and configuration.
      data: content digest of the tokenised examples, which covers the tokeniser.
      capture: which outputs were kept.
      dtype: of the token-level outputs; logits are always float32.
    """

    teacher: str
    data: str
    capture: Capture
    dtype: Literal["float16", "float32"] = "float16"

    @property
    def digest(self) -> str:
        return digest({"format": FORMAT, "provenance": self})


@dataclass(frozen=True, eq=False)
class TeacherCache:
    """An open cache, bound to one table of examples.

    ``cache(batch)`` gives the teacher's outputs for the batch, as the live teacher would.
    """

    arrays: dict[str, np.ndarray]
    capture: Capture
    entry_N: np.ndarray
    token_starts: np.ndarray
    lengths: np.ndarray
    square_starts: np.ndarray

    def __call__(self, batch: Batch) -> ModelOutput:
        rows_B = np.asarray(batch.example_ids_B)
        real_B = rows_B >= 0
        entries = self.entry_N[rows_B[real_B]]
        batch_size, length = batch.input_ids_BT.shape
        logits = self.arrays["logits"]
        logits_BC = np.zeros((batch_size, logits.shape[1]), np.float32)
        logits_BC[real_B] = logits[entries]
        parts: dict[str, dict[int, np.ndarray]] = {}
        for kind in (*_TOKENWISE, *_SQUARE):
            gather = self._square if kind in _SQUARE else self._tokenwise
            parts[kind] = {
                layer: gather(self.arrays[f"{kind}_{layer}"], entries, batch_size, length)
                for layer in getattr(self.capture, kind)
            }
        return ModelOutput(logits_BC=logits_BC, **parts)  # type: ignore[arg-type]

    def _tokenwise(
        self, flat: np.ndarray, entries: np.ndarray, batch_size: int, length: int
    ) -> np.ndarray:
        out = np.zeros((batch_size, length, *flat.shape[1:]), np.float32)
        for row, entry in enumerate(entries):
            tokens = self.lengths[entry]
            start = self.token_starts[entry]
            out[row, :tokens] = flat[start : start + tokens]
        return out

    def _square(
        self, flat: np.ndarray, entries: np.ndarray, batch_size: int, length: int
    ) -> np.ndarray:
        heads = flat.shape[1]
        out = np.zeros((batch_size, heads, length, length), np.float32)
        for row, entry in enumerate(entries):
            tokens = self.lengths[entry]
            start = self.square_starts[entry]
            block = flat[start : start + tokens * tokens]
            out[row, :, :tokens, :tokens] = block.reshape(tokens, tokens, heads).transpose(2, 0, 1)
        return out


def cache_folder(root: Path, provenance: Provenance) -> Path:
    """Where the cache of this provenance lives under ``root``."""
    return root / "teacher_outputs" / provenance.digest


def build_cache(
    folder: Path,
    provenance: Provenance,
    table: ExampleTable,
    teacher: Callable[[Batch], ModelOutput],
    *,
    batch_size: int = 32,
    on_batch: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Ask the teacher about every example of ``table`` and write ``folder``, whole or not at all.

    Args:
      teacher: gives at least ``provenance.capture`` of every batch.
      on_batch: called with finished and all batches; may raise to stop.

    Raises:
      UserError: when a value does not fit ``provenance.dtype``, or the disk is full.
    """
    plan = plan_in_order(table.lengths_N, choose_lengths(table.lengths_N), batch_size=batch_size)
    token_starts, square_starts = _starts(table.lengths_N)
    with atomic_folder(folder) as scratch:
        arrays: dict[str, np.ndarray] = {}
        for done, planned in enumerate(plan, 1):
            output = teacher(make_batch(table, planned, batch_size=batch_size))
            named = _named_arrays(output, provenance.capture)
            if not arrays:
                sizes = {
                    "logits": len(table),
                    "token": token_starts[-1],
                    "square": square_starts[-1],
                }
                arrays = _create(scratch, named, sizes, provenance.dtype)
            _write_batch(arrays, named, planned.rows, table.lengths_N, token_starts, square_starts)
            on_batch(done, len(plan))
        _finish(scratch, provenance, table, arrays)


def open_cache(folder: Path, provenance: Provenance, table: ExampleTable) -> TeacherCache:
    """Open a cache for ``table``, refusing it unless it is whole and of this provenance.

    Raises:
      UserError: when files are missing or damaged, when anything it was made of differs from
        ``provenance``, or when it lacks an example of ``table``.
    """
    manifest = _read_manifest(folder)
    wanted = json.loads(json.dumps(asdict(provenance)))
    differing = [key for key in wanted if manifest["provenance"].get(key) != wanted[key]]
    if manifest["format"] != FORMAT:
        differing.append("format")
    if differing:
        raise UserError(
            f"the teacher cache {folder} was made of something else: {', '.join(differing)} "
            "differ. Build a new one; this one is not used."
        )
    for name, sha256 in manifest["files"].items():
        if not (folder / name).is_file() or sha256_file(folder / name) != sha256:
            raise UserError(
                f"the teacher cache {folder} is damaged ({name}); delete that folder and run again"
            )
    arrays = {
        name.removesuffix(".npy"): np.load(folder / name, mmap_mode="r", allow_pickle=False)
        for name in manifest["files"]
        if name.endswith(".npy")
    }
    ids = json.loads((folder / "ids.json").read_text())
    entry_of = {example_id: entry for entry, example_id in enumerate(ids)}
    missing = [example_id for example_id in table.ids if example_id not in entry_of]
    if missing:
        raise UserError(
            f"the teacher cache {folder} lacks {len(missing)} of {len(table)} examples, "
            f"{missing[0]!r} for one"
        )
    lengths = arrays.pop("lengths")
    entry_N = np.asarray([entry_of[example_id] for example_id in table.ids], np.int64)
    if not np.array_equal(lengths[entry_N], table.lengths_N):
        raise UserError(f"the teacher cache {folder} was made with other tokens for these examples")
    token_starts, square_starts = _starts(lengths)
    return TeacherCache(arrays, provenance.capture, entry_N, token_starts, lengths, square_starts)


def _starts(lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where each example's tokens and its square of tokens begin; one more entry for the end."""
    lengths = np.asarray(lengths, np.int64)
    zero = np.zeros(1, np.int64)
    tokens = np.concatenate([zero, np.cumsum(lengths)])
    return tokens, np.concatenate([zero, np.cumsum(lengths * lengths)])


def _named_arrays(output: ModelOutput, capture: Capture) -> dict[str, np.ndarray]:
    named = {"logits": np.asarray(output.logits_BC, np.float32)}
    for kind in (*_TOKENWISE, *_SQUARE):
        for layer in getattr(capture, kind):
            named[f"{kind}_{layer}"] = np.asarray(getattr(output, kind)[layer], np.float32)
    return named


def _create(
    folder: Path, named: dict[str, np.ndarray], sizes: dict[str, Any], dtype: str
) -> dict[str, np.ndarray]:
    arrays: dict[str, np.ndarray] = {}
    for name, array in named.items():
        if name == "logits":
            shape, kept = (sizes["logits"], array.shape[1]), "float32"
        elif name.startswith(_SQUARE):
            shape, kept = (sizes["square"], array.shape[1]), dtype
        else:
            shape, kept = (sizes["token"], *array.shape[2:]), dtype
        arrays[name] = np.lib.format.open_memmap(
            folder / f"{name}.npy", mode="w+", dtype=kept, shape=tuple(int(n) for n in shape)
        )
    return arrays


def _write_batch(
    arrays: dict[str, np.ndarray],
    named: dict[str, np.ndarray],
    rows: np.ndarray,
    lengths_N: np.ndarray,
    token_starts: np.ndarray,
    square_starts: np.ndarray,
) -> None:
    arrays["logits"][rows] = named["logits"][: len(rows)]
    for name, array in named.items():
        if name == "logits":
            continue
        limit = np.finfo(arrays[name].dtype).max
        for position, row in enumerate(rows):
            tokens = int(lengths_N[row])
            if name.startswith(_SQUARE):
                block = array[position, :, :tokens, :tokens].transpose(1, 2, 0)
                block, start = block.reshape(tokens * tokens, -1), square_starts[row]
            else:
                block, start = array[position, :tokens], token_starts[row]
            if not np.all(np.abs(block) <= limit):
                raise UserError(
                    f"the teacher's {name} has values that {arrays[name].dtype} cannot hold; "
                    "keep the cache in float32"
                )
            arrays[name][start : start + len(block)] = block


def _finish(
    folder: Path, provenance: Provenance, table: ExampleTable, arrays: dict[str, np.ndarray]
) -> None:
    """Flush the arrays and write the index and the manifest beside them."""
    for array in arrays.values():
        array.flush()  # type: ignore[attr-defined]
    np.save(folder / "lengths.npy", np.asarray(table.lengths_N, np.int64), allow_pickle=False)
    (folder / "ids.json").write_text(json.dumps(table.ids, ensure_ascii=False))
    manifest = {
        "format": FORMAT,
        "provenance": asdict(provenance),
        "files": {path.name: sha256_file(path) for path in sorted(folder.iterdir())},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1))


def _read_manifest(folder: Path) -> dict[str, Any]:
    try:
        return json.loads((folder / "manifest.json").read_text())
    except (OSError, ValueError) as error:
        raise UserError(
            f"{folder} is not a whole teacher cache ({error}); delete that folder and run again"
        ) from error


def teacher_outputs(
    root: Path,
    provenance: Provenance,
    table: ExampleTable,
    teacher: Callable[[Batch], ModelOutput],
    *,
    batch_size: int = 32,
    on_batch: Callable[[int, int], None] = lambda done, total: None,
) -> TeacherCache:
    """The cache of this provenance: opened where it exists, built and then opened elsewhere."""
    folder = cache_folder(root, provenance)
    if not folder.exists():
        build_cache(folder, provenance, table, teacher, batch_size=batch_size, on_batch=on_batch)
    return open_cache(folder, provenance, table)


def union_of(wanted: Iterable[Capture]) -> Capture:
    """The union of what several listeners want, so that one pass of the teacher serves all."""
    union = Capture()
    for capture in wanted:
        union = union | capture
    return union
