"""A teacher's outputs on disk: computed once, keyed by example id, refused for anything else.

A cache is a folder of shards (``teachers.shards``), each a fixed run of examples
(``teachers.records``), beside a description of what it was made of (``teachers.manifest``).
Any shard can be made alone: by a build that goes on after it was killed, by several hosts at
once, or again when its file was damaged.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from distill_jax.core.errors import UserError
from distill_jax.core.types import Batch, Capture, ModelOutput
from distill_jax.data.plan import (
    ExampleTable,
    PlannedBatch,
    choose_lengths,
    make_batch,
    plan_in_order,
)
from distill_jax.teachers.cached import ABSENT, MEMORY, RecordMemory, TeacherCache
from distill_jax.teachers.manifest import (
    EXAMPLES,
    MANIFEST,
    Damaged,
    Manifest,
    Provenance,
    check_provenance,
    index_of,
    read_index,
    read_manifest,
    write_index,
    write_manifest,
)
from distill_jax.teachers.records import batch_arrays, encode, example_arrays
from distill_jax.teachers.shards import (
    OPEN_FILES,
    ShardReader,
    drop_left_overs,
    find_shards,
    is_whole,
    write_shard,
)

__all__ = [
    "Provenance",
    "TeacherCache",
    "build_cache",
    "cache_folder",
    "damaged_shards",
    "open_cache",
    "teacher_outputs",
    "union_of",
]

SHARD_EXAMPLES = 512
"""At least; of more examples so many that a reader has all shards open: opening one for every
record that is asked for would cost more the more there are."""
PATIENCE_SECONDS = 300.0
"""After which a host that hears nothing new from the others makes their shards itself."""
POLL_SECONDS = 0.5

Speaker = Callable[[Batch], ModelOutput]
OnBatch = Callable[[int, int], None]
Say = Callable[[str], None]


def cache_folder(root: Path, provenance: Provenance) -> Path:
    """Where the cache of this provenance lives under ``root``."""
    return root / "teacher_outputs" / provenance.digest


def build_cache(
    folder: Path,
    provenance: Provenance,
    table: ExampleTable,
    teacher: Speaker,
    *,
    batch_size: int = 32,
    part: tuple[int, int] = (0, 1),
    shard_examples: int | None = None,
    origin: Mapping[str, Any] | None = None,
    on_batch: OnBatch = lambda done, total: None,
    on_rebuild: Say = lambda message: None,
) -> None:
    """Ask the teacher about the examples of every shard that is missing or damaged.

    Shards that are whole are kept, so a build that was killed goes on where it was. A shard is
    written whole or not at all.

    Args:
      teacher: gives at least ``provenance.capture`` of every batch.
      part: ``(index, count)``: only every ``count``-th shard from ``index`` on; several hosts
        may build one cache in a folder that they share.
      shard_examples: examples of a shard, for a cache that is begun, one that exists keeps its;
        None for what suits their number.
      origin: where teacher and data can be found, kept for ``distill-jax cache verify``.
      on_batch: called with finished and all batches of this part; may raise to stop.
      on_rebuild: called with one line about each file that is damaged and made again.

    Raises:
      UserError: when a value does not fit ``provenance.dtype``, the disk is full, or ``folder``
        holds something else.
    """
    index, count = part
    if not 0 <= index < count:
        raise UserError(f"a part is (index, count) with 0 <= index < count, not {part}")
    manifest = _describe(folder, provenance, table, shard_examples, origin or {}, on_rebuild)
    drop_left_overs(folder)
    own = range(index, manifest.shards, count)
    whole, broken = _sort_out(folder, manifest.shards, own)
    plans = _plans(table, manifest.shard_examples, own, batch_size)
    total = sum(map(len, plans.values()))
    done = sum(len(plans[number]) for number in whole)

    def after_batch() -> None:
        nonlocal done
        done += 1
        on_batch(done, total)

    for number in own:
        if number in whole:
            continue
        for path in broken.get(number, []):
            on_rebuild(f"{path} is damaged; this shard of the teacher cache is made again")
        payloads = _ask(teacher, table, provenance, plans[number], batch_size, after_batch)
        written = write_shard(folder, number, manifest.shards, payloads)
        for path in broken.get(number, []):
            if path != written:
                path.unlink(missing_ok=True)


def open_cache(
    folder: Path,
    provenance: Provenance,
    table: ExampleTable,
    *,
    partial: bool = False,
    memory: RecordMemory = MEMORY,
) -> TeacherCache:
    """Open a cache for ``table``, refusing it unless it is whole and of this provenance.

    Every shard's digest is checked, once a process.

    Args:
      table: examples that the cache has, all of them or some, in any order.
      partial: whether it may lack some, which must then not be asked for.
      memory: where records that were read are kept.

    Raises:
      UserError: when files are missing or damaged, when anything it was made of differs from
        ``provenance``, or when it lacks an example of ``table``.
    """
    manifest = read_manifest(folder)
    check_provenance(folder, manifest, provenance)
    index = read_index(folder, manifest, table.ids)
    entry_of = {example_id: entry for entry, example_id in enumerate(index.ids)}
    missing = [example_id for example_id in table.ids if example_id not in entry_of]
    if missing and not partial:
        raise UserError(
            f"the teacher cache {folder} lacks {len(missing)} of {len(table)} examples, "
            f"{missing[0]!r} for one"
        )
    entries = (entry_of.get(example_id, ABSENT) for example_id in table.ids)
    entry_N = np.fromiter(entries, np.int64, len(table))
    there_N = entry_N != ABSENT
    if not np.array_equal(index.lengths_N[entry_N[there_N]], table.lengths_N[there_N]):
        raise UserError(f"the teacher cache {folder} was made with other tokens for these examples")
    whole, broken = _sort_out(folder, manifest.shards, range(manifest.shards))
    absent = [number for number in range(manifest.shards) if number not in whole]
    if absent:
        state = "damaged" if absent[0] in broken else "missing"
        raise Damaged(folder, f"{len(absent)} of {manifest.shards} shards, {absent[0]} is {state}")
    paths = [whole[number] for number in range(manifest.shards)]
    reader = ShardReader(paths, manifest.shard_examples)
    return TeacherCache(folder, provenance.capture, index, entry_N, reader, memory)


def teacher_outputs(
    root: Path,
    provenance: Provenance,
    table: ExampleTable,
    teacher: Speaker,
    *,
    part: tuple[int, int] = (0, 1),
    patience: float = PATIENCE_SECONDS,
    on_wait: Callable[[], None] = lambda: None,
    **building: Any,
) -> TeacherCache:
    """The cache of this provenance: what is missing or damaged is built, the rest opened.

    Args:
      part: as for ``build_cache``; after its own part a host waits for the others'. Where
        nothing new appears for ``patience`` seconds it makes the missing shards itself.
      on_wait: called now and then while waiting; may raise to stop.
      **building: more arguments of ``build_cache``.
    """
    folder = cache_folder(root, provenance)
    build_cache(folder, provenance, table, teacher, part=part, **building)
    if part[1] > 1:
        _await_others(folder, patience, on_wait)
        build_cache(folder, provenance, table, teacher, **building)
    return open_cache(folder, provenance, table)


def damaged_shards(folder: Path, manifest: Manifest) -> tuple[list[int], list[int]]:
    """Numbers of the damaged and of the missing shards; every digest is checked."""
    whole, broken = _sort_out(folder, manifest.shards, range(manifest.shards))
    absent = set(range(manifest.shards)) - whole.keys()
    return sorted(absent & broken.keys()), sorted(absent - broken.keys())


def union_of(wanted: Iterable[Capture]) -> Capture:
    """The union of what several listeners want, so that one pass of the teacher serves all."""
    union = Capture()
    for capture in wanted:
        union = union | capture
    return union


def _describe(
    folder: Path,
    provenance: Provenance,
    table: ExampleTable,
    shard_examples: int | None,
    origin: Mapping[str, Any],
    on_rebuild: Say,
) -> Manifest:
    """The description of the cache in ``folder``, written where it is missing or damaged."""
    if (folder / MANIFEST).exists():
        try:
            manifest = read_manifest(folder)
        except Damaged:
            on_rebuild(f"{folder / MANIFEST} is damaged; it is written again")
        else:
            check_provenance(folder, manifest, provenance)
            index = index_of(table, manifest.shard_examples)
            if index.digest != manifest.index:
                raise UserError(f"the teacher cache {folder} is one of other examples")
            try:
                read_index(folder, manifest)
            except Damaged:
                on_rebuild(f"{folder / EXAMPLES} is damaged; it is written again")
                write_index(folder, index)
            return manifest
    shard_examples = shard_examples or max(SHARD_EXAMPLES, -(-len(table) // OPEN_FILES))
    index = index_of(table, shard_examples)
    manifest = Manifest(provenance, len(table), shard_examples, index.digest, origin)
    write_index(folder, index)
    write_manifest(folder, manifest)
    return manifest


def _sort_out(
    folder: Path, total: int, numbers: Iterable[int]
) -> tuple[dict[int, Path], dict[int, list[Path]]]:
    """Of these shards: the whole ones, and the files of those that are there but damaged."""
    found = find_shards(folder, total)
    claims = [(number, path) for number in numbers for path in found.get(number, [])]
    whole: dict[int, Path] = {}
    broken: dict[int, list[Path]] = {}
    with ThreadPoolExecutor() as pool:  # hashing releases the interpreter lock
        for (number, path), good in zip(
            claims, pool.map(is_whole, [path for _, path in claims]), strict=True
        ):
            if good:
                whole.setdefault(number, path)
            else:
                broken.setdefault(number, []).append(path)
    return whole, {number: paths for number, paths in broken.items() if number not in whole}


def _plans(
    table: ExampleTable, shard_examples: int, numbers: Iterable[int], batch_size: int
) -> dict[int, list[PlannedBatch]]:
    """The batches in which the teacher is asked about each shard, in the order of its records.

    They depend on table and shard only, so a shard comes out the same whoever makes it.
    """
    shape_lengths = choose_lengths(table.lengths_N)
    plans = {}
    for number in numbers:
        start = number * shard_examples
        lengths = table.lengths_N[start : start + shard_examples]
        plans[number] = [
            PlannedBatch(planned.rows + np.int32(start), planned.length)
            for planned in plan_in_order(lengths, shape_lengths, batch_size=batch_size)
        ]
    return plans


def _ask(
    teacher: Speaker,
    table: ExampleTable,
    provenance: Provenance,
    plan: Iterable[PlannedBatch],
    batch_size: int,
    after_batch: Callable[[], None],
) -> Iterator[bytes]:
    """The records of a shard."""
    for planned in plan:
        output = teacher(make_batch(table, planned, batch_size=batch_size))
        arrays = batch_arrays(output, provenance.capture)
        for place, row in enumerate(planned.rows):
            kept = example_arrays(
                arrays,
                place,
                int(table.lengths_N[row]),
                dtype=provenance.dtype,
                top_k=provenance.top_k,
                example_id=table.ids[row],
            )
            yield encode(table.ids[row], kept)
        after_batch()


def _await_others(folder: Path, patience: float, on_wait: Callable[[], None]) -> None:
    """Wait until every shard is there, or nothing new has come for ``patience`` seconds."""
    shards = read_manifest(folder).shards
    most, since = -1, time.monotonic()
    while (present := len(find_shards(folder, shards))) < shards:
        if present > most:
            most, since = present, time.monotonic()
        elif time.monotonic() - since > patience:
            return
        on_wait()
        time.sleep(POLL_SECONDS)
