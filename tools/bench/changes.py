"""What each way of being fast is worth: with it and without it, in one run.

    python tools/bench/changes.py
    python tools/bench/changes.py --rounds 30 --output experiments/results/bench

Variants take turns within a round, and a figure is the median over the rounds. Compiling is timed
once a variant, in processor seconds, since each shape can be compiled only once. A way that is
slower on the machine at hand is shown as that.
"""

import itertools
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import steps
import tyro
from rich.console import Console
from rich.table import Table

from distill_jax.core.files import write_atomic
from distill_jax.core.memory import keep_freed_memory
from distill_jax.core.mesh import make_mesh
from distill_jax.core.types import Batch, ModelOutput
from distill_jax.models.bert import BertConfig, init_bert
from distill_jax.models.build import build_model
from distill_jax.models.products import HALF, transposed
from distill_jax.objectives.resolve import resolve
from distill_jax.training.layout import Layout
from distill_jax.training.loop import step_numbers
from distill_jax.training.optimizer import OptimizerConfig, make_optimizer
from distill_jax.training.step import make_step

OCCURRING, VOCABULARY = 12_873, 30_522
"""Tokens of the default table's sentences, and of BERT."""
OPTIMIZER = OptimizerConfig()
PROCESSES = 3
"""Of each kind, where memory is compared."""


@dataclass(frozen=True)
class Arguments:
    """Times ways of being fast, each with and without."""

    rounds: int = 15
    rows: int = 64
    tokens: int = 32
    lengths: tuple[int, ...] = (19, 29, 39, 51, 79)
    """Batch lengths that are compiled."""
    output: Path | None = None
    """A folder for changes.json and changes.md."""
    memory: Literal["", "plain", "kept"] = ""
    """Only print the milliseconds of steps of all lengths in turn, with memory as glibc has it or
    as our commands keep it."""


@dataclass(frozen=True)
class Student:
    """A student on the first CPU.

    Attributes:
      vocabulary: tokens that it has embeddings for.
      dtype: in which it computes.
      parts: into which a batch is cut, one after another.
    """

    vocabulary: int = VOCABULARY
    dtype: Any = jnp.float32
    parts: int = 1

    def made(self, rows: int, tokens: int) -> tuple[Any, Any, tuple[Any, ...]]:
        """Its step, its state, and the other arguments of a call."""
        config = BertConfig(self.vocabulary, 128, 2, 2, 512, pooling="mean")
        objective = resolve("kl", config.shape, config.shape)
        optimizer, layout = make_optimizer(OPTIMIZER), Layout(make_mesh(jax.devices()[:1]))
        model = build_model(config, dtype=self.dtype)
        step = make_step(model, objective, optimizer, accumulate=self.parts)
        state = layout.new_state(init_bert(config, jax.random.key(0)), {}, optimizer)
        rng = np.random.default_rng(0)
        arrays: dict[str, Any] = dict(
            example_ids_B=np.arange(rows, dtype=np.int32),
            input_ids_BT=rng.integers(0, self.vocabulary, (rows, tokens)).astype(np.int32),
            token_type_ids_BT=np.zeros((rows, tokens), np.int32),
            where_BT=np.ones((rows, tokens), bool),
            labels_B=np.zeros(rows, np.int32),
            label_where_B=np.ones(rows, bool),
        )
        said: Any = ModelOutput(logits_BC=rng.normal(size=(rows, 2)).astype(np.float32))
        numbers = layout.put_numbers(step_numbers(objective, OPTIMIZER, 0, 0, 10))
        return step, state, (*layout.put_batch(Batch(**arrays), said), numbers)


def stepping(student: Student, args: Arguments) -> Callable[[], Any]:
    """A step of a student at a time."""
    step, state, rest = student.made(args.rows, args.tokens)
    compiled = Layout(make_mesh(jax.devices()[:1])).compile(step)

    def go() -> Any:
        nonlocal state
        state, _ = compiled(state, *rest)
        return state

    return go


def by_columns(x_NK: Any, grad_NF: Any) -> Any:
    """The gradient of a kernel as it is written down."""
    return jnp.einsum("NK,NF->KF", x_NK, grad_NF, preferred_element_type=jnp.float32)


def by_rows(x_NK: Any, grad_NF: Any) -> Any:
    """The same from a transposed copy."""
    return jnp.matmul(transposed(x_NK), grad_NF, preferred_element_type=jnp.float32)


def product(of: Callable[[Any, Any], Any], args: Arguments) -> Callable[[], Any]:
    """A gradient of a kernel [512, 128] at a time."""
    rows, rng = args.rows * args.tokens, np.random.default_rng(0)
    given = [jnp.asarray(rng.normal(size=(rows, width)), HALF) for width in (512, 128)]
    compiled = jax.jit(of)
    return lambda: compiled(*given)


def milliseconds(variants: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Median of each variant, all taking turns."""
    for go in variants.values():
        jax.block_until_ready(go())
    taken: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(rounds):
        for name, go in variants.items():
            started = time.perf_counter()
            jax.block_until_ready(go())
            taken[name].append(1e3 * (time.perf_counter() - started))
    return {name: statistics.median(each) for name, each in taken.items()}


def compiling(args: Arguments) -> dict[str, tuple[float, float]]:
    """(seconds, processor seconds) of compiling a step for all lengths, by how it is done."""
    made = [Student(OCCURRING, HALF).made(args.rows, length) for length in args.lengths]

    def whole(of: tuple[Any, Any, tuple[Any, ...]]) -> None:
        step, state, rest = of
        jax.jit(lambda *given: step(*given)).lower(state, *rest).compile()

    def one_by_one() -> None:
        for each in made:
            whole(each)

    def halves(threads: int) -> None:
        (step, state, _rest), *_ = made
        first = jax.jit(lambda *given: step.gradients(*given))
        with ThreadPoolExecutor(threads) as pool:
            lowered = [first.lower(state.trained, state.step, *rest) for _, _, rest in made]
            update = jax.jit(lambda *given: step.update(*given))
            lowered.append(update.lower(state, lowered[0].out_info, np.float32(0)))
            list(pool.map(lambda program: program.compile(), lowered))

    ways: dict[str, Callable[[], None]] = {
        "whole steps, one by one": one_by_one,
        "halves, one by one": lambda: halves(1),
        "halves, side by side": lambda: halves(jax.local_device_count() + 1),
    }
    seconds = {}
    for name, way in ways.items():
        wall, processor = time.perf_counter(), time.process_time()
        way()
        seconds[name] = time.perf_counter() - wall, time.process_time() - processor
    return seconds


def all_lengths(args: Arguments) -> float:
    """Milliseconds of a step, where batches of all lengths take turns."""
    if args.memory == "kept":
        keep_freed_memory()
    student = Student(OCCURRING, HALF)
    goes = {str(n): stepping(student, replace(args, tokens=n)) for n in args.lengths}
    return statistics.mean(milliseconds(goes, args.rounds).values())


def by_memory(args: Arguments) -> dict[str, float]:
    """``all_lengths`` with plain and with kept memory, median of processes that take turns."""
    words = [sys.executable, __file__, "--rounds", str(args.rounds), "--rows", str(args.rows)]
    words += ["--lengths", *map(str, args.lengths)]
    taken: dict[str, list[float]] = {"plain": [], "kept": []}
    for _ in range(PROCESSES):
        for how, found in taken.items():
            command = [*words, "--memory", how]
            done = subprocess.run(command, env=steps.environment(), capture_output=True, check=True)
            found.append(float(done.stdout.split()[-1]))
    return {how: statistics.median(found) for how, found in taken.items()}


def lines_of(args: Arguments) -> list[list[str]]:
    """Everything, measured."""
    occurring = Student(OCCURRING)
    half = Student(OCCURRING, HALF)
    students = {
        "plain": Student(),
        "tokens that occur alone": occurring,
        "and bfloat16": half,
        "and four parts": Student(OCCURRING, HALF, 4),
    }
    taken = milliseconds(
        {name: stepping(student, args) for name, student in students.items()}, args.rounds
    )
    kernels = milliseconds(
        {"by columns": product(by_columns, args), "a transposed copy": product(by_rows, args)},
        args.rounds,
    )
    rows = [["what", "how", "before", "after", "ratio"]]

    def add(what: str, how: str, before: float, after: float, unit: str) -> None:
        ratio = f"{before / after:.2f}"
        rows.append([what, how, f"{before:.3g} {unit}", f"{after:.3g} {unit}", ratio])

    names = list(taken)
    for one, other in itertools.pairwise(names):
        add("`tiny` step", other, taken[one], taken[other], "ms")
    kept = by_memory(args)
    what = "`tiny` step, bfloat16, all lengths in turn"
    add(what, "freed memory is kept", kept["plain"], kept["kept"], "ms")
    before, after = kernels.values()
    add("gradient of a kernel, bfloat16", "a transposed copy", before, after, "ms")
    compiled = compiling(args)
    ways = list(compiled)
    what = f"compiling {len(args.lengths)} lengths"
    for one, other in itertools.pairwise(ways):
        add(what, other, compiled[one][0], compiled[other][0], "s")
    return rows


def main(args: Arguments) -> None:
    """Measure, print, and write."""
    if args.memory:
        print(all_lengths(args))
        return
    lines = lines_of(args)
    heading, *rows = lines
    table = Table(*heading)
    for row in rows:
        table.add_row(*row)
    Console().print(table)
    if args.output is not None:
        args.output.mkdir(parents=True, exist_ok=True)
        write_atomic(args.output / "changes.json", json.dumps(lines, indent=1) + "\n")
        write_atomic(args.output / "changes.md", steps.markdown(lines) + "\n")


if __name__ == "__main__":
    main(tyro.cli(Arguments, description=__doc__))
