"""A process of its own for one model: loads it, answers when it is asked, says what that took.

    python -m distill_jax.export.bench_worker FOLDER BATCHES

It reads the name of a list of batches a line, and answers each with a line of JSON: nanoseconds a
batch. At the end of its input it says how much memory it ever held. Exports are opened without
JAX, where their format needs none, so that their memory is what a service of theirs would hold.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from distill_jax.core.errors import UserError
from distill_jax.evaluation.timing import timed_pass
from distill_jax.export.manifest import is_export

Batch = tuple[np.ndarray, np.ndarray, np.ndarray]
"""input_ids_BT, token_type_ids_BT, attention_mask_BT, int64."""
NAMES = ("ids", "types", "mask")


def main() -> None:
    """Serve one model over standard input and output."""
    folder, batches = map(Path, sys.argv[1:])
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    try:
        for said in serve(folder, batches, sys.stdin):
            print(json.dumps(said), file=answers, flush=True)
    except UserError as error:
        print(json.dumps({"error": str(error)}), file=answers, flush=True)


def serve(folder: Path, batches: Path, asked: IO[str]) -> Iterator[Any]:
    """What is said to each line that is asked.

    Raises:
      UserError: the model cannot be opened.
    """
    lists = read_batches(batches)
    call, prepare = caller(folder)
    ready = {name: list(map(prepare, some)) for name, some in lists.items()}
    yield {"ready": True}
    for line in asked:
        some = ready[line.strip()]
        call(some[0])  # whatever the processes before left behind
        yield timed_pass(call, some).tolist()
    yield {"peak_bytes": peak_bytes()}


def caller(folder: Path) -> tuple[Callable[[Any], object], Callable[[Batch], Any]]:
    """What answers a batch, and what brings one into the form that it takes."""
    if is_export(folder):
        from distill_jax.export.opened import open_export

        logits = open_export(folder).logits
        return lambda batch: logits(*batch), lambda batch: batch

    import jax.numpy as jnp

    from distill_jax.core.types import as_batch
    from distill_jax.evaluation.open_classifier import compiled
    from distill_jax.models.build import load_model

    inner = folder / "model"
    runtime = compiled(load_model(inner if inner.is_dir() else folder))

    def prepare(batch: Batch) -> Any:
        ids_BT, types_BT, mask_BT = (array.astype(np.int32) for array in batch)
        return as_batch(jnp.asarray(ids_BT), jnp.asarray(mask_BT != 0), jnp.asarray(types_BT))

    return lambda batch: np.asarray(runtime(batch)), prepare


def write_batches(path: Path, lists: dict[str, list[Batch]]) -> None:
    """Keep lists of batches where ``read_batches`` finds them."""
    arrays = {
        f"{name}/{number}/{part}": array
        for name, some in lists.items()
        for number, batch in enumerate(some)
        for part, array in zip(NAMES, batch, strict=True)
    }
    with open(path, "wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]


def read_batches(path: Path) -> dict[str, list[Batch]]:
    """What ``write_batches`` kept."""
    with np.load(path, allow_pickle=False) as kept:
        places = {tuple(key.split("/")[:2]): None for key in kept.files}
        lists: dict[str, list[Batch]] = {}
        for name, number in places:
            ids, types, mask = (kept[f"{name}/{number}/{part}"] for part in NAMES)
            lists.setdefault(name, []).append((ids, types, mask))
    return lists


def peak_bytes() -> int:
    """The most memory that this process ever held, resident.

    On Linux it is read from ``/proc``: what ``getrusage`` says there starts with the size of the
    process that started this one.
    """
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return held * (1 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    main()
