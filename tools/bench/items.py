"""What a catalogue costs, in seconds and in memory, from 10,000 to a million items.

    python tools/bench/items.py --output-dir experiments/results/bench
    python tools/refresh_readme.py                          # and into docs/recommendation.md
    python tools/bench/items.py --sizes 10000 100000       # without the largest
    python tools/bench/items.py --tiny

A shop that never was (``catalogue_files.py``), ten interactions an item, goes the way that an
experiment's data go: read from CSV, ordered and numbered, divided, cut into windows; a student
takes training steps with ``sampled_softmax(n=256)`` and with the softmax over all items; users are
asked about with all items ranked; one is given a list. Each size has a process of its own. Memory
is what the process owns itself, as in ``growth.py``.
"""

from __future__ import annotations

import dataclasses
import io
import json
import multiprocessing
import os
import platform
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import catalogue_files
import tyro
from growth import MB, Cost, Meter

TINY = (300, 600)
LOSSES = ("sampled_softmax(n=256)", "full_softmax")
PER_ITEM = 10
"""Interactions an item."""
UNTIMED = 2
"""Steps before those that are timed."""
NAME = "items"


@dataclass(frozen=True)
class Items:
    """Measure and print a table; write it as JSON and Markdown where a folder is given."""

    sizes: tuple[int, ...] = (10_000, 100_000, 1_000_000)
    """Items; ten times as many interactions."""
    model: str = "sasrec-1x64"
    batch_size: int = 32
    steps: int = 30
    """That are timed of the sampled loss, a tenth of them of the softmax over all items."""
    users: int = 128
    """That are asked about."""
    tiny: bool = False
    """Two catalogues of a few hundred items, to see that it works."""
    output_dir: Path | None = None
    """Where items.json and items.md go."""


@dataclass(frozen=True)
class Measured:
    """Of one size.

    Attributes:
      items, interactions, users, windows: what was read, and rows that are learned from.
      costs: of every stage, see ``growth.Cost``.
      per: stage -> seconds of one of its parts: a step, a user, a list.
      peak: bytes, the most that the process had, files that are mapped among them.
    """

    items: int
    interactions: int
    users: int
    windows: int
    costs: list[Cost]
    per: dict[str, float]
    peak: int


def measure(args: Items, items: int, home: str) -> Measured:
    """All stages at one size; in a process of its own."""
    import jax

    from distill_jax.data.build_interactions import Preparation, build_with_parts
    from distill_jax.data.histories import HistoryTable
    from distill_jax.data.interaction_splits import leave_one_out
    from distill_jax.data.load_interactions import read_raw

    os.environ["DISTILL_JAX_HOME"] = home
    jax.block_until_ready(jax.numpy.zeros(()))  # the device's own memory is no stage's
    meter, per = Meter(items), dict[str, float]()
    with meter("read the CSV"):
        raw = read_raw(f"files:{Path(home) / str(items)}")
    with meter("order and number"):
        data, _ = build_with_parts("shop", raw, Preparation())
        del raw
    with meter("divide"):
        split = leave_one_out(data)
        _ = split.digest
    with meter("cut into windows"):
        windows = len(HistoryTable(split, "next", 50, windows=True))
    for loss in LOSSES:
        _train(args, split, loss, meter, per)
    _ask(args, split, meter, per)
    peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return Measured(data.num_items, len(data), data.num_users, windows, meter.costs, per, peak)


def _train(args: Items, split: Any, loss: str, meter: Meter, per: dict[str, float]) -> None:
    """Training steps as the engine takes them, from the table to the state."""
    import jax

    from distill_jax.engine.engine import Engine
    from distill_jax.engine.progress import Reporter
    from distill_jax.objectives.items import resolve_ranking
    from distill_jax.tasks.recommendation.runs import recommender_work
    from distill_jax.training.interrupt import StopRequest
    from distill_jax.training.loop import step_numbers

    cell, recommender = _cell(args, loss, split.digest), _recommender(args, split)
    objective = resolve_ranking(
        loss, recommender.config.shape, positions=args.batch_size * cell.setup.model.max_length
    )
    work = recommender_work(split, cell, recommender, objective)
    with tempfile.TemporaryDirectory() as folder, meter(f"train, {loss}"):
        engine = Engine(Path(folder), Reporter(_silent()), StopRequest())
        work, params, _ = engine.as_trained(work, recommender.init(jax.random.key(0)))
        step, layout = engine.step(work), engine.layout
        state, feed = layout.put_state(engine.new_state(work, params)), work.feed(None)
        seconds = []
        for number in range(UNTIMED + (args.steps if loss == LOSSES[0] else args.steps // 10)):
            started = time.perf_counter()
            given = feed(number)
            given = work.by_rows.read(*given) if work.by_rows else given
            numbers = step_numbers(objective, work.optimizer, 0, number, work.steps)
            state, _ = step(state, *layout.put_batch(*given), layout.put_numbers(numbers))
            jax.block_until_ready(state)
            seconds.append(time.perf_counter() - started)
    per[f"train, {loss}"] = statistics.median(seconds[UNTIMED:])


def _ask(args: Items, split: Any, meter: Meter, per: dict[str, float]) -> None:
    """Users asked about, all items ranked; and a list for one of them, by names."""
    import jax

    from distill_jax.data.interaction_splits import asked_at_most
    from distill_jax.evaluation.item_catalogue import Catalogue
    from distill_jax.evaluation.open_recommender import Neural, OpenRecommender
    from distill_jax.evaluation.recommend import evaluate, rows_at_once
    from distill_jax.tasks.recommendation.runs import scorer_of

    recommender = _recommender(args, split)
    params = recommender.init(jax.random.key(0))
    scorer, scorers = scorer_of(recommender).of(params), scorer_of(recommender)
    least = rows_at_once(split.data.num_items)
    evaluate(scorer, asked_at_most(split, least))  # compiles
    asked = asked_at_most(split, max(args.users, least))
    with meter("ask about users"):
        evaluate(scorer, asked)
    per["ask about users"] = meter.costs[-1].seconds / len(asked.test)
    data = split.data
    opened = OpenRecommender(
        Neural(scorers, params, Path()), Catalogue(data.item_names, data.item_texts)
    )
    histories = asked.test.take(range(5)).histories(data)
    names = [
        [data.item_names[item] for item in histories.part(row, row + 1).items_S] for row in range(5)
    ]
    for each in names:
        opened.recommend(each, 10)  # compiles
    with meter("give a list"):
        for each in names:
            opened.recommend(each, 10)
    per["give a list"] = meter.costs[-1].seconds / len(names)


def _cell(args: Items, loss: str, digest: str) -> Any:
    from distill_jax.engine.cell import Cell, Train
    from distill_jax.tasks.recommendation.cells import RecModel, RecommenderSetup
    from distill_jax.training.recommender import FitConfig

    fit = FitConfig(epochs=1, batch_size=args.batch_size, windows=True)
    setup = RecommenderSetup(model=RecModel(args.model))
    return Cell(setup, (Train(loss, fit),), data_digest=digest)


def _recommender(args: Items, split: Any) -> Any:
    from distill_jax.tasks.recommendation.build import build_recommender
    from distill_jax.tasks.recommendation.cells import RecModel

    return build_recommender(RecModel(args.model), split, _no_texts)


def _no_texts() -> Any:
    raise AssertionError("the models of this benchmark read no texts")


def _silent() -> Any:
    from rich.console import Console

    return Console(file=io.StringIO())


def table_of(found: list[Measured]) -> str:
    """Seconds and memory, a line a stage, a column a size."""
    head = [f"{each.items:,} items" for each in found]
    lines = [f"| | {' | '.join(head)} |", "|---|" + "---:|" * len(head)]

    def line(name: str, value: Callable[[Measured], str]) -> None:
        lines.append(f"| {name} | {' | '.join(map(value, found))} |")

    line("interactions", lambda each: f"{each.interactions:,}")
    line("users", lambda each: f"{each.users:,}")
    for name in [cost.stage for cost in found[0].costs]:
        if name in found[0].per:
            line(f"{name}, ms each", lambda each, n=name: f"{1e3 * each.per[n]:,.1f}")
        else:
            line(f"{name}, s", lambda each, n=name: f"{_cost(each, n).seconds:,.2f}")
    for name in [cost.stage for cost in found[0].costs]:
        line(f"{name}, MiB at most", lambda each, n=name: f"{_cost(each, n).most / MB:,.0f}")
    line("the whole process, MiB at most", lambda each: f"{each.peak / MB:,.0f}")
    return "\n".join(lines)


def _cost(measured: Measured, stage: str) -> Cost:
    return next(cost for cost in measured.costs if cost.stage == stage)


def alone(work: Callable[..., Any], *arguments: Any) -> Any:
    """What a function gives, in a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(work, arguments)


def main(args: Items) -> list[Measured]:
    """Measure every size, print, write."""
    found = []
    with tempfile.TemporaryDirectory() as home:
        for items in TINY if args.tiny else args.sizes:
            alone(catalogue_files.write, Path(home) / str(items), items, PER_ITEM * items)
            found.append(alone(measure, args, items, home))
            print(f"{items:,} items: measured", flush=True)
    about = (
        f"`{args.model}`, batches of {args.batch_size} windows of 50 items; "
        f"{os.cpu_count()} cores ({platform.machine()}), Python {platform.python_version()}."
    )
    text = f"{table_of(found)}\n\n{about}\n"
    print(text)
    if args.output_dir is not None:
        args.output_dir.mkdir(parents=True, exist_ok=True)
        body = {
            "machine": {"cores": os.cpu_count(), "processor": platform.machine()},
            "sizes": [dataclasses.asdict(each) for each in found],
        }
        (args.output_dir / f"{NAME}.json").write_text(json.dumps(body, indent=1) + "\n")
        (args.output_dir / f"{NAME}.md").write_text(text)
    return found


if __name__ == "__main__":
    main(tyro.cli(Items))
