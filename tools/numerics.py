"""A numerics certificate: how far every loss is from float64, in value and in gradient.

    python tools/numerics.py                                  # this device, minutes
    python tools/numerics.py --report docs/numerics.md
    python tools/numerics.py --losses kl js --sizes 2 100

Each loss is computed on random student and teacher arrays of a given spread (standard deviation),
at several sizes, with inputs of float32 and of bfloat16, under `jit` and op by op, and compared
with itself in float64 on the same (rounded) inputs. A figure is the largest difference in a batch,
divided by the largest value, or entry of the gradient, of that batch; for gradients of logits at
least by a thousandth of the likeliest class's probability, where a softmax that has decided leaves
less.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from rich.console import Console
from rich.progress import track

from distill_jax.core.files import write_atomic
from distill_jax.objectives.expert_feeds import ExpertFeed
from distill_jax.objectives.feeds import EitherLabelFeed, LogitFeed, RankingFeed
from distill_jax.objectives.layer_feeds import ExampleFeed, FlowFeed, InnerFeed
from distill_jax.objectives.registry import Spec, lookup, names

SIZES = {
    "classes": (2, 100, 10_000, 250_000),
    "items": (2, 50, 500),
    "tokens": (3, 16, 128),
    "examples": (4, 32, 128),
}
DTYPES = ("float32", "bfloat16")
SUBTRACTING = ("mse_regression", "margin_mse")
"""Outputs are subtracted as numbers, among which -inf has no meaning."""
LEAST = 1e-30
"""Differences of values are not taken relative to less: float32 ends a little below."""
SHARE = 1e-3
"""Those of gradients with respect to logits not to less than so much of the likeliest class's
probability: where a softmax has decided its gradient is e^-1000, and 1e-8 instead does no harm."""
MEANING = """
- In brackets the batch that the figure is of. Spreads go from 0.001 to 10,000 at temperature 1;
  batches with a temperature, or with logits of -inf on both sides, have spread 1. Op by op is run
  at the second size of each kind.
- The reference is the loss itself in float64, float64 all the way. The tests (`tests/losses`) hold
  it to formulas in plain loops, its gradients to differences; losses with a softmax also at spreads
  of 0.001 and of 10 or 30.
- Gradients with respect to bfloat16 arrays are bfloat16: up to 4e-3 is their own rounding.
- At a spread of 0.001 probabilities differ by a thousandth, and float32 keeps them to 6e-8: 1e-4
  of the gradient is what can be had. Relations between vectors of that spread (`value_kl`,
  `minilm_v2`) differ by a millionth, and values and gradients are good to a twentieth. At a spread
  of 10 three tokens attend to themselves alone, and what is left of the gradient (5e-10) is lost.
- `reverse_kl` at a spread of 1,000 subtracts numbers of 1,000 from one another, good to 6e-5 each.
- `tvd` has a kink wherever two probabilities are equal; rounding decides on which side.
- `dist` counts every class alike between examples; classes with a probability below 1e-38 in all
  of them are lost, which takes logits that differ by 90 times T.
- Equals: the value farthest from 0 of a model beside itself, over T^2, at spreads up to 10; nothing
  where a loss is not 0 there.
"""
HEADS, WIDTH, EXPERTS = 2, 16, 3


@dataclass(frozen=True)
class Condition:
    """What is special about a batch.

    Attributes:
      words: for people.
      spread: standard deviation of both sides.
      excluded: whether both give three in ten of the classes a logit of -inf.
      temperature: other than 1.
    """

    words: str
    spread: float = 1.0
    excluded: bool = False
    temperature: float = 1.0

    def suits(self, spec: Spec, size: int) -> bool:
        """Whether it means something to a loss."""
        if self.temperature != 1:
            return "T" in spec.own
        scores = isinstance(spec.feed, InnerFeed) and spec.feed.parts == ("attention_scores",)
        logits = isinstance(spec.feed, LogitFeed | RankingFeed) and spec.name not in SUBTRACTING
        return not self.excluded or (size > 3 and (scores or logits))


CONDITIONS = (
    *(
        Condition(f"spread {spread:g}", spread)
        for spread in (1e-3, 1e-2, 0.1, 1, 10, 100, 1e3, 1e4)
    ),
    Condition("some at -inf", excluded=True),
    Condition("T = 0.05", temperature=0.05),
    Condition("T = 50", temperature=50.0),
)


@dataclass(frozen=True)
class Inputs:
    """Arguments of a loss beside its numbers; the student's side comes first."""

    student: Any
    others: tuple[Any, ...]
    options: dict[str, Any] = field(default_factory=dict)

    def cast(self, dtype: Any) -> "Inputs":
        """With all real numbers in another precision."""

        def to(x: Any) -> Any:
            return x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x

        return Inputs(*jax.tree.map(to, (self.student, self.others, self.options)))


@dataclass(frozen=True)
class Finding:
    """What came of one loss on one batch.

    Attributes:
      way: ``jit`` or ``eager``.
      value, gradient: relative errors; infinite where something is not finite.
    """

    loss: str
    dtype: str
    way: str
    size: int
    condition: str
    value: float
    gradient: float


def kind_of(spec: Spec) -> str:
    """What a loss compares: the key of its sizes."""
    if isinstance(spec.feed, LogitFeed):
        return "classes"
    if isinstance(spec.feed, RankingFeed):
        return "items"
    return "examples" if isinstance(spec.feed, ExampleFeed) else "tokens"


class Draw:
    """Random arrays for a loss, the same at every call; rows of tokens differ in length."""

    def __init__(self, size: int, condition: Condition) -> None:
        self.size, self.condition = size, condition
        self.batch = 8 if size <= 10_000 else 4
        self.excluded = max(3 * size // 10, 1) if condition.excluded else 0
        self._rng = np.random.default_rng(0)

    def inputs(self, spec: Spec) -> Inputs:
        """All arguments, as the loss's feed would give them."""
        feed, size, batch = spec.feed, self.size, self.batch
        if isinstance(feed, LogitFeed):
            student, *teacher = (self._logits(batch, size) for _ in range(1 + feed.needs_teacher))
            labels = self._rng.integers(0, size - self.excluded, batch).astype(np.int32)
            if isinstance(feed, EitherLabelFeed):
                labels[::2] = -1
                return Inputs(student, (*teacher, labels))
            return Inputs(student, (*teacher, labels) if feed.labelled else tuple(teacher))
        if isinstance(feed, ExampleFeed):
            return self._examples(feed)
        return Inputs(self._side(feed), (self._side(feed),), {"where": self._where()})

    def _examples(self, feed: ExampleFeed) -> Inputs:
        student, teacher = self._normal(self.size, WIDTH), self._normal(self.size, WIDTH)
        if not isinstance(feed, ExpertFeed):
            return Inputs(student, (teacher,))
        experts = self._normal(self.size, EXPERTS, WIDTH)
        selection = {"selection": self._normal(self.size, EXPERTS)}
        if feed.compares:
            return Inputs(student, (teacher,), {"experts": experts, **selection})
        return Inputs(experts, (teacher,), selection)

    def _side(self, feed: Any) -> Any:
        """One model's part of a loss on lists or tokens."""
        if isinstance(feed, RankingFeed):
            return self._logits(self.batch, self.size)
        if isinstance(feed, InnerFeed):
            vectors = self.batch, self.size, HEADS, WIDTH
            scores = self.batch, HEADS, self.size, self.size
            arrays = tuple(
                self._logits(*scores) if part == "attention_scores" else self._normal(*vectors)
                for part in feed.parts
            )
        else:
            layers = 2 if isinstance(feed, FlowFeed) else 1
            arrays = tuple(self._normal(self.batch, self.size, WIDTH) for _ in range(layers))
        return arrays if len(arrays) > 1 else arrays[0]

    def _where(self) -> np.ndarray:
        lengths_B = self.size - np.arange(self.batch) * (self.size - 1) // self.batch
        return np.arange(self.size) < lengths_B[:, None]

    def _normal(self, *shape: int) -> np.ndarray:
        return self._rng.standard_normal(shape, np.float32) * np.float32(self.condition.spread)

    def _logits(self, *shape: int) -> np.ndarray:
        array = self._normal(*shape)
        array[..., shape[-1] - self.excluded :] = -np.inf
        return array


class Meter:
    """Runs one loss; every program is compiled once."""

    def __init__(self, spec: Spec) -> None:
        def run(student: Any, others: Any, options: Any, T: Any) -> Any:
            numbers = {"T": T} if "T" in spec.own else {}

            def total(student: Any) -> Any:
                values = spec.function(student, *others, **options, **numbers)
                return jnp.sum(values), values

            gradient, values = jax.grad(total, has_aux=True)(student)
            return values, gradient

        hasty = {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else None
        self.spec = spec
        self.reference = jax.jit(run, compiler_options=hasty)
        self.ways: dict[str, Callable[..., Any]] = {"jit": jax.jit(run), "eager": run}

    def findings(self, sizes: Sequence[int]) -> Iterator[Finding]:
        """On every batch that suits the loss; op by op at the second size alone."""
        for size, condition in self._batches(sizes):
            drawn, T = Draw(size, condition).inputs(self.spec), condition.temperature
            for dtype in DTYPES:
                given = drawn.cast(jnp.dtype(dtype))
                with jax.enable_x64(True):
                    wide = given.cast(np.float64)
                    right = self._host(self.reference, wide, np.float64(np.float32(T)))
                least = self._least(wide.student, T)
                for way in ("jit", "eager") if size == sizes[:2][-1] else ("jit",):
                    got = self._host(self.ways[way], given, np.float32(T))
                    value = _error(got[0], right[0], LEAST)
                    gradient = _error(got[1], right[1], least)
                    yield Finding(
                        self.spec.name, dtype, way, size, condition.words, value, gradient
                    )

    def of_equals(self, sizes: Sequence[int]) -> float | None:
        """The value farthest from 0 of a model beside itself; None where 0 is not the best."""
        worst = 0.0
        for size, condition in self._batches(sizes[:2]):
            if condition.spread > 10:  # equal sums of large numbers differ by their rounding
                continue
            drawn = Draw(size, condition).inputs(self.spec)
            first = drawn.others[0]
            if jax.tree.map(np.shape, drawn.student) != jax.tree.map(np.shape, first):
                return None
            same = Inputs(drawn.student, (drawn.student, *drawn.others[1:]), drawn.options)
            for dtype in DTYPES:
                given = same.cast(jnp.dtype(dtype))
                values, _ = self._host(self.ways["jit"], given, np.float32(condition.temperature))
                worst = max(worst, *(values / condition.temperature**2).tolist(), key=abs)
        return worst if abs(worst) < 1e-3 else None

    def _batches(self, sizes: Sequence[int]) -> Iterator[tuple[int, Condition]]:
        return ((n, c) for n in sizes for c in CONDITIONS if c.suits(self.spec, n))

    def _least(self, student: Any, T: float) -> float:
        """What differences of gradients are relative to at least."""
        if not isinstance(self.spec.feed, LogitFeed | RankingFeed):
            return LEAST
        odds = np.exp((student - student.max(axis=-1, keepdims=True)) / T)
        return SHARE * T * float((1 / odds.sum(axis=-1)).max())

    def _host(self, function: Any, given: Inputs, T: Any) -> tuple[np.ndarray, np.ndarray]:
        """Values and gradient, flat and in float64."""
        values, gradient = function(given.student, given.others, given.options, T)
        flat = [np.ravel(np.asarray(leaf).astype(np.float64)) for leaf in jax.tree.leaves(gradient)]
        return np.asarray(values).astype(np.float64), np.concatenate(flat)


def certify(spec: Spec, sizes: Sequence[int] = ()) -> tuple[list[Finding], float | None]:
    """All findings of a loss, and what it says of equals."""
    meter, sizes = Meter(spec), sizes or SIZES[kind_of(spec)]
    return list(meter.findings(sizes)), meter.of_equals(sizes)


def _error(got: np.ndarray, right: np.ndarray, least: float) -> float:
    if not np.isfinite(got).all():
        return float("inf")
    return float(np.abs(got - right).max() / max(np.abs(right).max(), least))


@dataclass(frozen=True)
class Arguments:
    """Measure every loss against float64 on the device at hand."""

    losses: tuple[str, ...] = ()
    """Some of them; all by default."""
    sizes: tuple[int, ...] = ()
    """How many classes, items, tokens or examples; by default several of each."""
    report: Path | None = None
    """A Markdown file to write."""


def main(args: Arguments) -> None:
    """Print the certificate."""
    specs = [lookup(name) for name in args.losses or names("classes")]
    rows, findings = [], []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        made = pool.map(lambda spec: certify(spec, args.sizes), specs)
        console = Console(stderr=True)
        for spec, (own, equals) in track(
            zip(specs, made, strict=True), "losses", len(specs), console=console, transient=True
        ):
            rows.append(row_of(spec, own, equals))
            findings += own
    text = page(rows, findings)
    print(text)
    if args.report:
        write_atomic(args.report, text)


def row_of(spec: Spec, findings: Sequence[Finding], of_equals: float | None) -> str:
    """A loss's line: its worst errors and where they are."""
    kind, cells = kind_of(spec), []
    for dtype in DTYPES:
        for part in ("value", "gradient"):
            own = [finding for finding in findings if finding.dtype == dtype]
            worst = max(own, key=lambda finding: getattr(finding, part))
            error = getattr(worst, part)
            cells.append(f"{error:.0e} ({worst.size:,} {kind}, {worst.condition})")
    zero = "" if of_equals is None else f"{of_equals:.0e}" if of_equals else "0"
    return f"| `{spec.name}` | {' | '.join(cells)} | {zero} |"


def summary(findings: Sequence[Finding]) -> list[str]:
    """The worst error over all losses by condition, a line each."""
    lines = ["| batch | float32: value | gradient | bfloat16: value | gradient |", "|---" * 5 + "|"]
    for condition in CONDITIONS:
        cells = []
        for dtype in DTYPES:
            own = [f for f in findings if (f.dtype, f.condition) == (dtype, condition.words)]
            for part in ("value", "gradient"):
                worst = max(own, key=lambda f: getattr(f, part), default=None)
                cells.append(f"{getattr(worst, part):.0e} ({worst.loss})" if worst else "")
        lines.append(f"| {condition.words} | {' | '.join(cells)} |")
    return lines


def page(rows: Sequence[str], findings: Sequence[Finding]) -> str:
    """The certificate."""
    assert __doc__ is not None
    device = jax.devices()[0]
    facts = f"{device.platform} ({device.device_kind}) with jax {jax.__version__}"
    lines = [
        "# How far every loss is from float64",
        "",
        __doc__.split("\n\n")[-1].strip(),
        "",
        f"Made by `python tools/numerics.py` on {facts}.",
        "",
        MEANING.strip(),
        "",
        "| loss | float32: value | gradient | bfloat16: value | gradient | equals |",
        "|---" * 6 + "|",
        *rows,
        "",
        "The worst of all losses, by what is special about the batch:",
        "",
        *summary(findings),
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main(tyro.cli(Arguments))
