"""What an example costs, in seconds and in memory, from 8,000 to 800,000 training examples.

    python tools/bench/growth.py --output-dir experiments/results/bench

Real sentences, repeated, with ids of their own, go the way that an experiment's go: read from CSV,
tokenised, opened again, their labels chosen, an epoch planned, its batches made, a teacher's logits
(random ones) kept, opened and read. Each size has a process of its own. Memory is what the process
owns itself: pages of files that are mapped belong to the system, which takes them back when it
likes.
"""

from __future__ import annotations

import contextlib
import csv
import ctypes
import dataclasses
import gc
import json
import multiprocessing
import os
import platform
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

MB = 2**20


@dataclass(frozen=True)
class Growth:
    """Measure and print a table; write it, and JSON, where a folder is given."""

    sizes: tuple[int, ...] = (8_000, 80_000, 800_000)
    """Training examples."""
    data: str = "review_snippets/movie"
    """The data set whose training sentences are repeated."""
    batch_size: int = 64
    output_dir: Path | None = None
    """Where growth.json goes."""


@dataclass(frozen=True)
class Cost:
    """Of one stage, at one size.

    Attributes:
      seconds: of the wall clock.
      most: bytes, the most memory of its own that the process had in it, over what it had before.
      held: bytes that it kept of those.
    """

    stage: str
    examples: int
    seconds: float
    most: int
    held: int


def give_back() -> None:
    """Freed memory goes back to the system, where the C library can do that."""
    gc.collect()
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)


def own_memory() -> int:
    """Bytes of this process that belong to no file."""
    resident, shared = Path("/proc/self/statm").read_text().split()[1:3]
    return (int(resident) - int(shared)) * os.sysconf("SC_PAGE_SIZE")


class Meter:
    """``with meter(stage):`` measures what is done inside."""

    def __init__(self, examples: int) -> None:
        self.examples = examples
        self.costs: list[Cost] = []

    @contextlib.contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        give_back()
        before = most = own_memory()
        done = threading.Event()

        def watch() -> None:
            nonlocal most
            while not done.wait(0.005):
                most = max(most, own_memory())

        thread = threading.Thread(target=watch)
        thread.start()
        start = time.perf_counter()
        try:
            yield
        finally:
            seconds = time.perf_counter() - start
            done.set()
            thread.join()
        most = max(most, own_memory())
        give_back()
        after = own_memory()
        self.costs.append(Cost(stage, self.examples, seconds, most - before, after - before))


def write_files(folder: Path, data: str, examples: int) -> None:
    """``train.csv`` of as many examples as asked for; ``dev.csv`` and ``test.csv`` as they are."""
    from distill_jax.data.load import load_dataset

    dataset = load_dataset(data)
    folder.mkdir(parents=True)
    for split, name in {"train": "train", "validation": "dev", "test": "test"}.items():
        table = dataset.splits[split]
        rows = range(examples if split == "train" else len(table))
        with open(folder / f"{name}.csv", "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["id", "sentence", "label"])
            for row in rows:
                at = row % len(table)
                label = dataset.label_names[table.labels_N[at]]
                writer.writerow([f"{name}-{row}", table.texts[at], label])


def measure(data: str, examples: int, batch_size: int, home: str) -> list[Cost]:
    """All stages at one size; in a process of its own."""
    own = Path(home) / str(examples)
    texts = own / "texts"
    write_files(texts, data, examples)

    import numpy as np

    from distill_jax.core.types import Capture, ModelOutput
    from distill_jax.data import files
    from distill_jax.data.assets import fetch
    from distill_jax.data.plan import choose_lengths, make_batch, plan_epoch
    from distill_jax.data.tokenise import tokenise_dataset
    from distill_jax.tasks.classification.cells import DataConfig
    from distill_jax.tasks.classification.splits import prepare_texts
    from distill_jax.teachers.cache import Provenance, build_cache, open_cache

    tokenizer = fetch("minilm-l6") / "tokenizer.json"
    os.environ["DISTILL_JAX_HOME"] = str(own)
    meter = Meter(examples)
    with meter("read the files"):
        dataset = files.load(texts)
    with meter("tokenise"):
        tokenise_dataset(dataset, tokenizer, cache=own / "tokens")
    with meter("open the tokens, choose labels"):
        splits = prepare_texts(DataConfig(f"files:{texts}"), dataset, tokenizer)
    table = splits.everything
    lengths = choose_lengths(table.lengths_N, batch_size=batch_size)
    with meter("plan an epoch"):
        plan = plan_epoch(table.lengths_N, lengths, batch_size=batch_size, seed=0, epoch=0)
    with meter("make its batches"):
        for planned in plan:
            make_batch(table, planned, batch_size=batch_size)
    provenance = Provenance("random", table.digest, Capture())

    def speak(batch: Any) -> ModelOutput:
        logits_BC = np.random.default_rng(0).normal(size=(len(batch.labels_B), 2))
        return ModelOutput(logits_BC=logits_BC)  # type: ignore[arg-type]

    with meter("keep a teacher's logits"):
        build_cache(own / "cache", provenance, table, speak)
    with meter("open them"):
        cache = open_cache(own / "cache", provenance, table)
    with meter("read them, batch by batch"):
        for planned in plan:
            cache(make_batch(table, planned, batch_size=batch_size))
    return meter.costs


def table_of(costs: list[Cost], sizes: tuple[int, ...]) -> str:
    """Microseconds and bytes an example, a line a stage."""
    stages = list(dict.fromkeys(cost.stage for cost in costs))
    at = {(cost.stage, cost.examples): cost for cost in costs}
    columns: list[tuple[str, Callable[[Cost], float]]] = [
        ("us", lambda cost: 1e6 * cost.seconds / cost.examples),
        ("B most", lambda cost: cost.most / cost.examples),
        ("B held", lambda cost: cost.held / cost.examples),
    ]
    head = [f"{unit} {size:,}" for unit, _ in columns for size in sizes]
    lines = [f"| an example, of | {' | '.join(head)} |", "|---|" + "---:|" * len(head)]
    for stage in stages:
        cells = [f"{value(at[stage, size]):,.1f}" for _, value in columns for size in sizes]
        lines.append(f"| {stage} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(args: Growth) -> None:
    """Measure every size, print, write."""
    costs: list[Cost] = []
    with tempfile.TemporaryDirectory() as home:
        for size in args.sizes:
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                costs += pool.apply(measure, (args.data, size, args.batch_size, home))
    table = table_of(costs, args.sizes)
    print(table)
    if args.output_dir is not None:
        args.output_dir.mkdir(parents=True, exist_ok=True)
        body = {
            "machine": {"cores": os.cpu_count(), "processor": platform.machine()},
            "python": platform.python_version(),
            "costs": [dataclasses.asdict(cost) for cost in costs],
        }
        (args.output_dir / "growth.json").write_text(json.dumps(body, indent=1) + "\n")
        (args.output_dir / "growth.md").write_text(f"{table}\n")


if __name__ == "__main__":
    main(tyro.cli(Growth))
