"""What losses cost: each on logits of many classes, and one more of them in a student's step.

    python tools/bench/losses.py
    python tools/bench/losses.py --rounds 40 --output results/bench
    python tools/bench/losses.py --losses kl js --classes 250000

First every loss with its gradient beside a KL of two log-softmaxes as one writes it down, which is
less exact where two models are alike. Then steps of a student on logits of two classes, the first
objective beside those that ask more. All take turns within a round, so that what the machine does
meanwhile meets all alike; figures are medians over the rounds, ratios those within a round.
"""

import json
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from distill_jax import losses
from distill_jax.core.files import write_atomic
from distill_jax.core.mesh import make_mesh
from distill_jax.core.types import Batch, ModelOutput
from distill_jax.models.bert import BertConfig, init_bert
from distill_jax.models.build import build_model
from distill_jax.objectives.resolve import resolve
from distill_jax.training.layout import Layout
from distill_jax.training.loop import step_numbers
from distill_jax.training.optimizer import OptimizerConfig, make_optimizer
from distill_jax.training.step import make_step

PLAIN = "plain KL"
STEPS = 5
"""Steps of a student that make a figure of a round."""


@dataclass(frozen=True)
class Arguments:
    """Times losses, and steps with one loss more."""

    losses: tuple[str, ...] = ("kl", "reverse_kl", "jeffreys", "js", "skew_kl", "mse_logits")
    """Of those on a student's and a teacher's logits."""
    classes: int = 30_000
    rows: int = 64
    tokens: int = 32
    objectives: tuple[str, ...] = ("kl", "kl + mse_logits", "kl + ce", "kl + mse_logits + ce")
    """Of the steps; the first is what others are compared with."""
    layers: int = 2
    width: int = 128
    vocabulary: int = 30_522
    rounds: int = 20
    output: Path | None = None
    """A folder for losses.json."""


def plain_kl(student: jax.Array, teacher: jax.Array) -> jax.Array:
    """KL(teacher || student) of each row, as one writes it down."""
    log_t, log_s = (jax.nn.log_softmax(logits, axis=-1) for logits in (teacher, student))
    return jnp.sum(jnp.exp(log_t) * (log_t - log_s), axis=-1)


def loss_calls(args: Arguments) -> dict[str, Callable[[], Any]]:
    """Value and gradient of each loss, compiled."""
    rng = np.random.default_rng(0)
    student, teacher = np.float32(rng.normal(size=(2, args.rows, args.classes)))
    student, teacher = jnp.asarray(student), jnp.asarray(teacher)

    def call(loss: Callable[..., jax.Array]) -> Callable[[], Any]:
        def total(student: jax.Array, teacher: jax.Array) -> jax.Array:
            return jnp.mean(loss(student, jax.lax.stop_gradient(teacher)))

        compiled = jax.jit(jax.value_and_grad(total))
        return lambda: jax.block_until_ready(compiled(student, teacher))

    return {PLAIN: call(plain_kl), **{name: call(getattr(losses, name)) for name in args.losses}}


def student_config(args: Arguments) -> BertConfig:
    """The student of the steps; by default the size of ``tiny``."""
    return BertConfig(
        args.vocabulary,
        args.width,
        args.layers,
        max(args.width // 64, 1),
        4 * args.width,
        pooling="mean",
        num_labels=2,
    )


def step_calls(args: Arguments) -> dict[str, Callable[[], Any]]:
    """Some steps with each objective, compiled; every objective has a student of its own."""
    config = student_config(args)
    params = init_bert(config, jax.random.key(0))
    layout, optimizing = Layout(make_mesh(jax.devices()[:1])), OptimizerConfig()
    batch, said = layout.put_batch(*draw_batch(args))

    def call(text: str) -> Callable[[], Any]:
        objective, optimizer = resolve(text, config.shape, config.shape), make_optimizer(optimizing)
        step = layout.compile(make_step(build_model(config), objective, optimizer))
        numbers = layout.put_numbers(step_numbers(objective, optimizing, 0, 0, 100))
        state = layout.new_state(params, objective.init_params(jax.random.key(1)), optimizer)

        def some() -> None:
            nonlocal state
            for _ in range(STEPS):
                state, metrics = step(state, batch, said, numbers)
            jax.block_until_ready((state, metrics))

        return some

    return {text: call(text) for text in args.objectives}


def draw_batch(args: Arguments) -> tuple[Batch, ModelOutput]:
    """A full batch of random tokens, and a teacher's logits for it."""
    rng = np.random.default_rng(0)
    shape = args.rows, args.tokens
    batch = Batch(
        example_ids_B=np.arange(args.rows, dtype=np.int32),
        input_ids_BT=rng.integers(0, args.vocabulary, shape).astype(np.int32),
        token_type_ids_BT=np.zeros(shape, np.int32),
        where_BT=np.ones(shape, bool),
        labels_B=rng.integers(0, 2, args.rows).astype(np.int32),
        label_where_B=np.ones(args.rows, bool),
    )
    return batch, ModelOutput(logits_BC=np.float32(rng.normal(size=(args.rows, 2))))


def in_turns(calls: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each call, a figure a round, after a first one that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(rounds + 1):
        for name, call in calls.items():
            started = time.perf_counter()
            call()
            if number:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def lines(seconds: Mapping[str, list[float]], heading: str, unit: float = 1e3) -> list[str]:
    """A Markdown table: milliseconds, and the ratio to the first within a round."""
    first = next(iter(seconds.values()))
    rows = [f"| {heading} | ms | least | over the first |", "|---|---:|---:|---:|"]
    for name, own in seconds.items():
        ratio = statistics.median(a / b for a, b in zip(own, first, strict=True))
        times = f"{unit * statistics.median(own):.2f} | {unit * min(own):.2f}"
        rows.append(f"| `{name}` | {times} | {ratio:.3f} |")
    return rows


def page_of(
    args: Arguments,
    of_losses: Mapping[str, list[float]],
    of_steps: Mapping[str, list[float]],
) -> str:
    """Both tables."""
    losses_ = lines(of_losses, f"with gradient, {args.rows} x {args.classes:,}")
    return "\n".join([*losses_, "", *lines(of_steps, f"a step, {args.rows} x {args.tokens}")])


def main(args: Arguments) -> None:
    """Measure, print, and keep the seconds."""
    of_losses = in_turns(loss_calls(args), args.rounds)
    taken = in_turns(step_calls(args), args.rounds)
    of_steps = {text: [value / STEPS for value in own] for text, own in taken.items()}
    page = page_of(args, of_losses, of_steps)
    print(page)
    if args.output:
        made = {"jax": jax.__version__, "device": jax.devices()[0].device_kind}
        flags = {name: value for name, value in asdict(args).items() if name != "output"}
        body = {
            "made_with": {**made, "machine": platform.machine()},
            "arguments": flags,
            "losses": of_losses,
            "steps": of_steps,
        }
        args.output.mkdir(parents=True, exist_ok=True)
        write_atomic(args.output / "losses.json", json.dumps(body, indent=1) + "\n")
        write_atomic(args.output / "losses.md", f"{page}\n")


if __name__ == "__main__":
    main(tyro.cli(Arguments))
