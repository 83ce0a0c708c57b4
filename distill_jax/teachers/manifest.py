"""What a teacher cache was made of, written before its first shard.

``cache.json`` says what the cache serves, ``examples.json`` which example each record is. Both
are functions of provenance and table alone, so every host that writes them writes the same.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from distill_jax.core.digests import digest
from distill_jax.core.errors import UserError
from distill_jax.core.files import write_atomic
from distill_jax.core.types import Capture
from distill_jax.data.plan import ExampleTable
from distill_jax.teachers.records import Dtype

FORMAT = 2
MANIFEST = "cache.json"
EXAMPLES = "examples.json"


class Damaged(UserError):
    """A cache that cannot be used as it is, but can be mended by whoever has its teacher."""

    def __init__(self, folder: Path, what: str) -> None:
        super().__init__(
            f"the teacher cache {folder} is damaged or unfinished ({what}). Run the command that "
            "made it again: what is whole is kept, the rest is made again. Or delete that folder."
        )


@dataclass(frozen=True)
class Provenance:
    """What a cache was made of. A cache serves exactly the provenance it names.

    Attributes:
      teacher: content digest of the teacher's parameters and configuration.
      data: content digest of the tokenised examples, which covers the tokeniser.
      capture: which outputs were kept.
      dtype: of the token-level outputs; logits are always float32.
      top_k: of more logits than this the largest are kept, and the log-sum-exp of the rest;
        None keeps all.
      precision: in which the teacher computed.
    """

    teacher: str
    data: str
    capture: Capture
    dtype: Dtype = "float16"
    top_k: int | None = None
    precision: str = "f32"

    def __post_init__(self) -> None:
        if self.dtype not in ("float32", "float16", "bfloat16"):
            raise UserError(f"a cache is kept in float32, float16 or bfloat16, not {self.dtype!r}")
        if self.top_k is not None and self.top_k < 1:
            raise UserError(f"a cache keeps at least 1 logit, not {self.top_k}")

    @property
    def digest(self) -> str:
        return digest({"format": FORMAT, "provenance": self})


@dataclass(frozen=True)
class Manifest:
    """``cache.json``.

    Attributes:
      examples: how many there are; the last shard may have fewer than ``shard_examples``.
      index: content digest of ``examples.json``.
      origin: where teacher and data were found, for whoever wants to check; may be empty.
    """

    provenance: Provenance
    examples: int
    shard_examples: int
    index: str
    origin: Mapping[str, Any] = field(default_factory=dict)

    @property
    def shards(self) -> int:
        return -(-self.examples // self.shard_examples)


@dataclass(frozen=True, eq=False)
class Index:
    """``examples.json``: id and length of every record, in the order of the records."""

    ids: tuple[str, ...]
    lengths_N: np.ndarray

    @property
    def digest(self) -> str:
        return digest({"ids": self.ids, "lengths": self.lengths_N.tolist()})


def record_order(table: ExampleTable, shard_examples: int) -> np.ndarray:
    """Rows of ``table`` in the order of the records: shards in the table's order, in each the
    shortest rows first, as the teacher is asked about them."""
    shard_N = np.arange(len(table)) // shard_examples
    return np.lexsort((table.lengths_N, shard_N))


def index_of(table: ExampleTable, shard_examples: int) -> Index:
    """The index of a cache of ``table``."""
    order_N = record_order(table, shard_examples)
    ids = tuple(table.ids[row] for row in order_N)
    return Index(ids, np.asarray(table.lengths_N, np.int64)[order_N])


def write_sealed(folder: Path, body: Mapping[str, Any]) -> None:
    """Write ``cache.json``; it carries its own digest."""
    text = json.dumps({**body, "digest": digest(body)}, indent=1, ensure_ascii=False)
    write_atomic(folder / MANIFEST, text)


def read_sealed(folder: Path, format: int) -> dict[str, Any]:
    """What ``write_sealed`` wrote.

    Raises:
      UserError: when it is of another format.
      OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError: when it is
        missing or damaged.
    """
    body = json.loads((folder / MANIFEST).read_bytes())
    if body["format"] != format:
        raise UserError(
            f"the teacher cache {folder} has format {body['format']}, not {format}; delete that "
            "folder and run again"
        )
    if digest({k: v for k, v in body.items() if k != "digest"}) != body["digest"]:
        raise ValueError(f"{MANIFEST} was changed after it was written")
    return body


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write ``cache.json`` of a cache."""
    write_sealed(folder, {"format": FORMAT, **asdict(manifest)})


def write_index(folder: Path, index: Index) -> None:
    """Write ``examples.json``."""
    body = {"ids": index.ids, "lengths": index.lengths_N.tolist()}
    write_atomic(folder / EXAMPLES, json.dumps(body, ensure_ascii=False))


def read_manifest(folder: Path) -> Manifest:
    """What ``cache.json`` says.

    Raises:
      UserError: when it is missing, damaged or of another format.
    """
    if not (folder / MANIFEST).exists() and (folder / "manifest.json").exists():
        raise UserError(f"the teacher cache {folder} has an older format; delete that folder")
    try:
        body = read_sealed(folder, FORMAT)
        said = body["provenance"]
        capture = Capture(**{kind: tuple(layers) for kind, layers in said["capture"].items()})
        return Manifest(
            provenance=Provenance(**{**said, "capture": capture}),
            examples=int(body["examples"]),
            shard_examples=int(body["shard_examples"]),
            index=body["index"],
            origin=body["origin"],
        )
    except (OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise Damaged(folder, f"{MANIFEST}: {_reason(error)}") from error


def read_index(folder: Path, manifest: Manifest, known: Sequence[str] = ()) -> Index:
    """What ``examples.json`` says.

    Args:
      known: ids that are held already; the same ones are not held twice.

    Raises:
      UserError: when it is missing or damaged.
    """
    try:
        body = json.loads((folder / EXAMPLES).read_bytes())
        index = Index(tuple(body["ids"]), np.asarray(body["lengths"], np.int64))
        if index.digest != manifest.index:
            raise ValueError("it was changed after it was written")
        held = {example_id: example_id for example_id in known}
        index = Index(tuple(held.get(each, each) for each in index.ids), index.lengths_N)
    except (OSError, ValueError, TypeError, LookupError, RecursionError, OverflowError) as error:
        raise Damaged(folder, f"{EXAMPLES}: {_reason(error)}") from error
    return index


def check_provenance(folder: Path, manifest: Manifest, wanted: Provenance) -> None:
    """Raises ``UserError`` where a cache was made of anything else than ``wanted``."""
    check_made_of(folder, vars(manifest.provenance), vars(wanted))


def check_made_of(folder: Path, theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> None:
    """Raises ``UserError`` where what a cache was made of differs."""
    differing = [key for key in ours if theirs.get(key) != ours[key]]
    if differing:
        raise UserError(
            f"the teacher cache {folder} was made of something else: {', '.join(differing)} "
            "differ. Build a new one; this one is not used."
        )


def _reason(error: Exception) -> str:
    if isinstance(error, OSError):
        return error.strerror or "cannot be read"
    return f"no entry {error}" if isinstance(error, KeyError) else str(error)
