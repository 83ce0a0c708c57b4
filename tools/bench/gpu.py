"""Steps on one accelerator: time, examples a second, model FLOPs utilisation, populations, pmap.

    python tools/bench/gpu.py                  # under 8 minutes on one GPU
    python tools/bench/gpu.py --tiny           # on a CPU, to see that it works

Needs jax, flax, optax and this package; weights and inputs are random. A teacher of BERT-base's
shape and a student of 6 layers compute in bfloat16 at length 128 with float32 parameters and
dropout; many ``tiny`` students in one step are timed against one after another, and against PyTorch
where it is installed.

Model FLOPs, counted as usual (no recomputation, embeddings free): a layer of width D with a
feed-forward block F wide takes 8 D^2 + 4 D F + 4 T D a token forward (projections, feed-forward,
scores and context over T tokens), training three times as much. Utilisation is FLOPs over seconds
over the device's dense bfloat16 peak.
"""

import importlib.util
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # PyTorch wants memory too
ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402

from distill_jax.core.mesh import make_mesh, make_placement  # noqa: E402
from distill_jax.core.types import Batch, Capture, ModelOutput  # noqa: E402
from distill_jax.models.bert import Bert, BertConfig, init_bert  # noqa: E402
from distill_jax.objectives.resolve import ResolvedObjective, resolve  # noqa: E402
from distill_jax.teachers.live import LiveTeacher  # noqa: E402
from distill_jax.training.layout import Layout  # noqa: E402
from distill_jax.training.optimizer import OptimizerConfig, make_optimizer  # noqa: E402
from distill_jax.training.step import CompiledStep, StepNumbers, make_step  # noqa: E402

VOCABULARY = 30_522
PEAKS = {
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L4": 121e12,
    "A10G": 70e12,
    "TPU v6 lite": 918e12,
    "TPU v5 lite": 197e12,
    "TPU v5": 459e12,
    "TPU v4": 275e12,
}
"""Part of a device's name -> dense bfloat16 FLOP/s by its maker's data sheet; the first that fits.
"""
OPTIMIZER = OptimizerConfig(learning_rate=1e-4)


@dataclass(frozen=True)
class Sizes:
    """What is timed.

    Attributes:
      teacher, student: of the large pair; ``rows`` x ``tokens`` is its batch.
      tiny: the student of populations; ``tiny_rows`` x ``tiny_tokens`` is its batch.
      population: students in one step.
      seconds: that a timing lasts at least.
    """

    teacher: BertConfig
    student: BertConfig
    rows: int
    tokens: int
    tiny: BertConfig
    tiny_rows: int
    tiny_tokens: int
    population: int
    seconds: float


def bert(layers: int, width: int, heads: int) -> BertConfig:
    """By its sizes."""
    return BertConfig(VOCABULARY, width, layers, heads, 4 * width, pooling="mean")


FULL = Sizes(bert(12, 768, 12), bert(6, 768, 12), 256, 128, bert(2, 128, 2), 64, 32, 64, 2.0)
TINY = Sizes(bert(2, 16, 2), bert(1, 16, 2), 8, 16, bert(1, 8, 2), 8, 8, 4, 0.02)


def forward_flops(config: BertConfig, rows: int, tokens: int) -> float:
    """Of one batch, see the module."""
    width, inner = config.hidden_size, config.intermediate_size
    layer = 8 * width**2 + 4 * width * inner + 4 * tokens * width
    return float(rows * tokens * config.num_layers * layer)


def peak_of(device: jax.Device) -> float | None:
    """Dense bfloat16 FLOP/s of a device; None where its kind is not known."""
    return next((peak for name, peak in PEAKS.items() if name in device.device_kind), None)


def draw_batch(rows: int, tokens: int, seed: int = 0) -> Batch:
    """Random words without padding, and labels, on the host."""
    rng = np.random.default_rng(seed)
    arrays: dict[str, Any] = dict(
        example_ids_B=np.arange(rows, dtype=np.int32),
        input_ids_BT=rng.integers(999, VOCABULARY, (rows, tokens), np.int32),
        token_type_ids_BT=np.zeros((rows, tokens), np.int32),
        where_BT=np.ones((rows, tokens), bool),
        labels_B=rng.integers(0, 2, rows, np.int32),
        label_where_B=np.ones(rows, bool),
    )
    return Batch(**arrays)


def draw_logits(rows: int) -> ModelOutput:
    """What a teacher said that was asked before."""
    logits: Any = np.random.default_rng(1).normal(size=(rows, 2)).astype(np.float32)
    return ModelOutput(logits_BC=logits)


def numbers_of(objective: ResolvedObjective) -> StepNumbers:
    """Of a step in the middle of training."""
    rate = np.float32(OPTIMIZER.learning_rate)
    return StepNumbers(objective.numbers(5, 10), rate, np.uint32(0))


def timed(step: Callable[[], Any], least: float) -> float:
    """Median seconds of a call over three timings that last ``least`` seconds each."""
    jax.block_until_ready(step())
    started = time.perf_counter()
    jax.block_until_ready(step())
    calls = max(1, round(least / max(time.perf_counter() - started, 1e-6)))
    found = []
    for _ in range(3):
        started = time.perf_counter()
        for _ in range(calls):
            told = step()
        jax.block_until_ready(told)
        found.append((time.perf_counter() - started) / calls)
    return statistics.median(found)


def train_step(
    config: BertConfig,
    objective: ResolvedObjective,
    batch: Batch,
    said: Callable[[Batch], ModelOutput | None],
    parallel: Literal["jit", "pmap"] = "jit",
) -> Callable[[], Any]:
    """() -> takes a step; the state goes from call to call.

    Args:
      said: what the teacher says of the batch, asked in every step.
    """
    layout = Layout(make_mesh(jax.devices()[:1]), parallel)
    optimizer = make_optimizer(OPTIMIZER)
    model = Bert(config, dtype=jnp.bfloat16)
    step = layout.compile(make_step(model, objective, optimizer, axis=layout.axis))
    state = layout.new_state(init_bert(config, jax.random.key(0)), {}, optimizer)
    numbers = layout.put_numbers(numbers_of(objective))
    on_device = jax.device_put(batch)

    def take() -> Any:
        nonlocal state
        state, metrics = step(state, *layout.put_batch(on_device, said(on_device)), numbers)
        return metrics

    return take


def population_step(sizes: Sizes, objective: ResolvedObjective) -> Callable[[], Any]:
    """The same for all members of a population, each with sentences of its own."""
    optimizer, members = make_optimizer(OPTIMIZER), range(sizes.population)
    placement = make_placement("vmap", make_mesh(jax.devices()[:1]))
    layout = Layout(make_mesh(jax.devices()[:1]))
    pure = make_step(Bert(sizes.tiny, dtype=jnp.bfloat16), objective, optimizer)
    step = CompiledStep(placement.vmap(pure, in_axes=(0, 0, 0, 0)))

    def stacked(make: Callable[[int], Any]) -> Any:
        trees = [jax.device_get(make(member)) for member in members]
        return placement.put_members(jax.tree.map(lambda *leaves: np.stack(leaves), *trees))

    state = stacked(
        lambda member: layout.new_state(
            init_bert(sizes.tiny, jax.random.key(member)), {}, optimizer
        )
    )
    batch = stacked(partial(draw_batch, sizes.tiny_rows, sizes.tiny_tokens))
    said = stacked(lambda member: draw_logits(sizes.tiny_rows))
    numbers = stacked(lambda member: numbers_of(objective))

    def take() -> Any:
        nonlocal state
        state, metrics = step(state, batch, said, numbers)
        return metrics

    return take


Lines = list[tuple[str, float, int, float]]
"""What is timed, seconds, examples, FLOPs."""


def large_pair(sizes: Sizes) -> Lines:
    """Teacher and student of one size of batch."""
    teacher, student, rows, tokens = sizes.teacher, sizes.student, sizes.rows, sizes.tokens
    batch, logits = draw_batch(rows, tokens), draw_logits(rows)
    kl = resolve("kl", student.shape, teacher.shape)
    ce = resolve("ce", teacher.shape, None)
    speaker = LiveTeacher(
        Bert(teacher, dtype=jnp.bfloat16), init_bert(teacher, jax.random.key(1)), Capture()
    )
    asked, trained = (forward_flops(config, rows, tokens) for config in (teacher, student))
    kept = jax.device_put(logits)
    on_device = jax.device_put(batch)
    ways: dict[str, tuple[Callable[[], Callable[[], Any]], float]] = {
        "student step, logits kept": (
            lambda: train_step(student, kl, batch, lambda _: kept),
            3 * trained,
        ),
        "student step, logits kept, pmap": (
            lambda: train_step(student, kl, batch, lambda _: kept, "pmap"),
            3 * trained,
        ),
        "student step, teacher asked": (
            lambda: train_step(student, kl, batch, speaker),
            3 * trained + asked,
        ),
        "teacher forward": (lambda: lambda: speaker(on_device), asked),
        "teacher's fine-tuning step": (
            lambda: train_step(teacher, ce, batch, lambda _: None),
            3 * asked,
        ),
    }
    found: Lines = []
    for name, (make, flops) in ways.items():
        found.append((name, timed(make(), sizes.seconds), rows, flops))
        print(f"  {name}: {1e3 * found[-1][1]:.2f} ms", flush=True)
    return found


def small_students(sizes: Sizes) -> Lines:
    """One ``tiny`` student, and a population of them."""
    kl = resolve("kl", sizes.tiny.shape, sizes.tiny.shape)
    batch, said = draw_batch(sizes.tiny_rows, sizes.tiny_tokens), draw_logits(sizes.tiny_rows)
    kept = jax.device_put(said)
    flops = 3 * forward_flops(sizes.tiny, sizes.tiny_rows, sizes.tiny_tokens)
    one = timed(train_step(sizes.tiny, kl, batch, lambda _: kept), sizes.seconds)
    print(f"  one student: {1e3 * one:.2f} ms", flush=True)
    many = timed(population_step(sizes, kl), sizes.seconds)
    print(f"  population: {1e3 * many:.2f} ms", flush=True)
    count = sizes.population
    return [
        ("one tiny student", one, sizes.tiny_rows, flops),
        (f"{count} tiny students in one step", many, count * sizes.tiny_rows, count * flops),
    ]


def in_torch(sizes: Sizes) -> Lines:
    """The same steps in PyTorch, fused AdamW under bf16 autocast; none where it is not there."""
    missing = [name for name in ("torch", "transformers") if not importlib.util.find_spec(name)]
    if missing:
        print(f"  {' and '.join(missing)} not installed: nothing to compare with")
        return []
    import gpu_torch

    found: Lines = []
    for name, config, rows, tokens in (
        ("student step, logits kept, PyTorch", sizes.student, sizes.rows, sizes.tokens),
        ("one tiny student, PyTorch", sizes.tiny, sizes.tiny_rows, sizes.tiny_tokens),
    ):
        batch, said = draw_batch(rows, tokens), draw_logits(rows)
        seconds = gpu_torch.seconds_of_a_step(config, batch, said, sizes.seconds)
        found.append((name, seconds, rows, 3 * forward_flops(config, rows, tokens)))
        print(f"  {name}: {1e3 * seconds:.2f} ms", flush=True)
    return found


def report(lines: Lines, peak: float | None) -> str:
    """A Markdown table; without utilisation where the peak is not known."""
    rows = ["| what | ms | examples/s | TFLOP/s | MFU % |", "| --- | ---: | ---: | ---: | ---: |"]
    for name, seconds, examples, flops in lines:
        rate = flops / seconds
        share = f"{100 * rate / peak:.1f}" if peak else "–"
        rows.append(
            f"| {name} | {1e3 * seconds:.2f} | {examples / seconds:,.0f} | {rate / 1e12:.2f} "
            f"| {share} |"
        )
    return "\n".join(rows)


def ratios(lines: Lines, population: int) -> list[str]:
    """What the table comes to, in sentences."""
    seconds = {name: took for name, took, _, _ in lines}
    one = seconds["one tiny student"]
    together = seconds[f"{population} tiny students in one step"]
    told = [
        f"A population of {population} is {population * one / together:.1f} times as fast as one "
        "student after another.",
        "A step under pmap takes {:.2f} times that under jit.".format(
            seconds["student step, logits kept, pmap"] / seconds["student step, logits kept"]
        ),
    ]
    if (theirs := seconds.get("one tiny student, PyTorch")) is not None:
        told.append(
            f"PyTorch's step of one tiny student takes {theirs / one:.2f} times ours alone, "
            f"{population * theirs / together:.1f} times ours in the population."
        )
    if (theirs := seconds.get("student step, logits kept, PyTorch")) is not None:
        ours = seconds["student step, logits kept"]
        told.append(f"PyTorch's large student step takes {theirs / ours:.2f} times ours.")
    return told


def main(tiny: bool = False, output: Path | None = None) -> dict[str, Any]:
    """Time, print, and keep the figures."""
    sizes, device = TINY if tiny else FULL, jax.devices()[0]
    peak, started = peak_of(device), time.perf_counter()
    print(f"{device.device_kind}, jax {jax.__version__}", flush=True)
    if peak is None:
        print("the peak of this device is not known here: no utilisation is given")
    else:
        print(f"dense bfloat16 peak: {peak / 1e12:.0f} TFLOP/s")
    lines = [*large_pair(sizes), *small_students(sizes), *in_torch(sizes)]
    said = ratios(lines, sizes.population)
    print(report(lines, peak), *said, sep="\n")
    print(f"in {time.perf_counter() - started:.0f} s")
    told = {
        "device": device.device_kind,
        "jax": jax.__version__,
        "peak": peak,
        "lines": lines,
        "ratios": said,
    }
    if output:
        output.write_text(json.dumps(told, indent=1) + "\n")
    return told


if __name__ == "__main__":
    import argparse  # tyro may not be there

    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tiny", action="store_true", help="sizes that only show that it works")
    parser.add_argument("--output", type=Path, help="a JSON file for the figures")
    main(**vars(parser.parse_args()))
