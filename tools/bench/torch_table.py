"""The table of ``compare-losses`` as a careful PyTorch user would write it.

    python tools/bench/export.py FOLDER                              # once, see there
    python tools/bench/torch_table.py --inputs FOLDER
    python tools/bench/torch_table.py --inputs FOLDER --precision bf16 --teacher cached

The same tokens, splits, labels, first weights, steps, rates and objectives as ours; batches of
sentences of like length, padded to the longest of them; fused AdamW; the teacher asked under
``no_grad``, in every step, or once where its logits are enough (``cached``). Validation, looked at
as often as in ours, decides the step; the test split is read at the end. Prints JSON: seconds by
phase, accuracy of every run, threads and versions.
"""

import copy
import json
import platform
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

STARTED = time.perf_counter()

import torch  # noqa: E402
import tyro  # noqa: E402
from safetensors.torch import load_file  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from torch_model import (  # noqa: E402
    Batch,
    Classifier,
    Objective,
    Precision,
    Said,
    adamw,
    computing,
    projections_of,
    take_step,
)

POOL = 50
"""Batches whose sentences are sorted by length together, as ``transformers`` does it."""
EVALUATION_BATCH = 64


@dataclass(frozen=True)
class Arguments:
    """The table of compare-losses in PyTorch."""

    inputs: Path
    """The folder that export.py wrote."""
    precision: Precision = "f32"
    """bf16: autocast."""
    teacher: Literal["live", "cached"] = "live"
    """Ask it in every step, or once about everything and keep its logits (hidden states are asked
    for in every step either way)."""
    compile: bool = False
    """Try torch.compile; where it fails that is said, and the table is made without."""
    output: Path | None = None
    """A JSON file for what is printed."""


@dataclass
class Clock:
    """Seconds by phase; a phase inside another does not count twice."""

    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    _open: list[float] = field(default_factory=list)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        self._open.append(0.0)
        started = time.perf_counter()
        yield
        whole = time.perf_counter() - started
        self.seconds[name] += whole - self._open.pop()
        if self._open:
            self._open[-1] += whole


@dataclass(frozen=True)
class Table:
    """Sentences of a split as token ids, and their labels, -1 where none may be used."""

    sentences: list[Tensor]
    labels: Tensor

    def __len__(self) -> int:
        return len(self.sentences)

    @property
    def labelled(self) -> "Table":
        rows = torch.nonzero(self.labels >= 0).flatten()
        return Table([self.sentences[row] for row in rows], self.labels[rows])

    def batch(self, rows: Tensor) -> Batch:
        """The rows, padded to the longest of them."""
        own = [self.sentences[row] for row in rows]
        ids = nn.utils.rnn.pad_sequence(own, batch_first=True)
        lengths = torch.tensor([len(sentence) for sentence in own])
        mask = (torch.arange(ids.shape[1])[None] < lengths[:, None]).long()
        return Batch(ids, mask, self.labels[rows], rows)

    def epoch(self, batch_size: int, draw: torch.Generator) -> list[Tensor]:
        """Rows of the batches of an epoch: at random, but of like length within a batch."""
        order = torch.randperm(len(self), generator=draw)
        batches: list[Tensor] = []
        for pool in order.split(POOL * batch_size):
            batches += self._by_length(pool).split(batch_size)
        return [batches[n] for n in torch.randperm(len(batches), generator=draw)]

    def in_order(self) -> Sequence[Tensor]:
        """Rows of the batches of everything, by length."""
        return self._by_length(torch.arange(len(self))).split(EVALUATION_BATCH)

    def _by_length(self, rows: Tensor) -> Tensor:
        lengths = torch.tensor([len(self.sentences[row]) for row in rows])
        return rows[torch.argsort(lengths, stable=True)]


def read_table(tensors: dict[str, Tensor], split: str) -> Table:
    """A split as export.py wrote it."""
    offsets = tensors[f"{split}.offsets"]
    sizes = (offsets[1:] - offsets[:-1]).tolist()
    sentences = list(tensors[f"{split}.tokens"].long().split(sizes))
    return Table(sentences, tensors[f"{split}.labels"].long())


def rate_at(training: dict[str, Any], step: int) -> float:
    """A linear warm-up, then down to 0 in a line; of the update after ``step`` updates."""
    peak, steps = training["learning_rate"], training["steps"]
    warmup = round(training["warmup"] * steps)
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * (steps - step) / max(steps - warmup, 1)


@torch.no_grad()
def logits_of(model: nn.Module, table: Table, precision: Precision) -> Tensor:
    """Logits [N, C] of a whole table."""
    model.eval()
    parts, rows = [], []
    for own in table.in_order():
        batch = table.batch(own)
        with computing(precision):
            parts.append(model(batch.ids, batch.mask).logits.float())
        rows.append(own)
    in_order = torch.empty(len(table), parts[0].shape[1])
    in_order[torch.cat(rows)] = torch.cat(parts)
    return in_order


def accuracy(model: nn.Module, table: Table, precision: Precision) -> float:
    """Share of the examples that a model gets right."""
    said = logits_of(model, table, precision).argmax(-1)
    return (said == table.labels).float().mean().item()


@dataclass(frozen=True)
class Bench:
    """What all runs share."""

    args: Arguments
    clock: Clock
    train: Table
    validation: Table
    test: Table

    def fit(
        self,
        name: str,
        model: Classifier,
        objective: Objective,
        teacher: Callable[[Batch], Said] | None,
        training: dict[str, Any],
        seed: int,
    ) -> tuple[Classifier, float]:
        """Train to the end; the model at its best validation accuracy, and that."""
        torch.manual_seed(seed)
        table = self.train if objective.needs_teacher else self.train.labelled
        optimizer = adamw([model, objective.projections], training["weight_decay"])
        draw, batches = torch.Generator().manual_seed(seed), list[Tensor]()
        student = maybe_compiled(model) if self.args.compile else model
        best, kept = -1.0, copy.deepcopy(model.state_dict())
        for step in range(training["steps"]):
            with self.clock.phase(name):
                batches = batches or table.epoch(training["batch_size"], draw)
                batch = table.batch(batches.pop())
                model.train()
                take_step(
                    student,
                    objective,
                    optimizer,
                    batch,
                    teacher(batch) if teacher else None,
                    rate=rate_at(training, step),
                    clip_norm=training["clip_norm"],
                    precision=self.args.precision,
                )
            done = step + 1
            if done % training["eval_every"] == 0 or done == training["steps"]:
                with self.clock.phase("evaluation"):
                    score = accuracy(model, self.validation, self.args.precision)
                if score > best:
                    best, kept = score, copy.deepcopy(model.state_dict())
        model.load_state_dict(kept)
        return model, best

    def on_test(self, model: Classifier) -> float:
        """Accuracy on the test split."""
        with self.clock.phase("evaluation"):
            return accuracy(model, self.test, self.args.precision)

    def asked(self, teacher: Classifier, objective: Objective) -> Callable[[Batch], Said]:
        """The teacher in every step, without dropout."""

        @torch.no_grad()
        def ask(batch: Batch) -> Said:
            with self.clock.phase("asking the teacher"), computing(self.args.precision):
                return teacher(batch.ids, batch.mask, objective.reads_hidden)

        return ask


def maybe_compiled(model: nn.Module) -> nn.Module:
    """The model under torch.compile, for batches of any length."""
    return torch.compile(model, dynamic=True)


def try_compile(model: nn.Module, batch: Batch) -> str:
    """What came of compiling a model, forward and backward: "it works in 20 s", or why not."""
    started = time.perf_counter()
    try:
        said = maybe_compiled(copy.deepcopy(model))(batch.ids, batch.mask, True)
        said.logits.sum().backward()
    except Exception as error:  # whatever its compilers raise is the answer
        reason = (str(error).strip().splitlines() or [""])[0]
        return f"failed: {type(error).__name__}: {reason}"
    return f"works: {time.perf_counter() - started:.0f} s for the first model"


def main(args: Arguments) -> dict[str, Any]:
    """The whole table."""
    clock = Clock()
    clock.seconds["imports"] = time.perf_counter() - STARTED
    with clock.phase("data"):
        plan = json.loads((args.inputs / "plan.json").read_text())
        tensors = load_file(args.inputs / "tokens.safetensors")
        tables = [read_table(tensors, split) for split in ("train", "validation", "test")]
        teacher = Classifier.load(args.inputs / "teacher")
    compiled = "not asked for"
    if args.compile:
        with clock.phase("compiling"):
            student = Classifier.load(args.inputs / plan["runs"][0]["start"])
            compiled = try_compile(student, tables[0].batch(torch.arange(8)))
        args = Arguments(**{**vars(args), "compile": compiled.startswith("works")})
    bench = Bench(args, clock, *tables)
    teacher, _ = bench.fit(
        "fine-tuning the teacher", teacher, Objective("ce"), None, plan["teacher"], seed=0
    )
    teacher.eval()
    rows = [{"objective": "teacher", "seed": 0, "accuracy": bench.on_test(teacher)}]
    cache = None
    if args.teacher == "cached":
        with clock.phase("asking the teacher"):
            cache = logits_of(teacher, bench.train, args.precision)
    for run in plan["runs"]:
        rows.append(run_of(bench, run, teacher, cache))
        print(
            f"{rows[-1]['objective']}, seed {run['seed']}: {rows[-1]['accuracy']:.3f}", flush=True
        )
    return {
        "seconds": {**clock.seconds, "total": time.perf_counter() - STARTED},
        "runs": rows,
        "arguments": {name: str(value) for name, value in asdict(args).items()},
        "compile": compiled,
        "threads": torch.get_num_threads(),
        "versions": {"torch": torch.__version__, "python": platform.python_version()},
    }


def run_of(
    bench: Bench, run: dict[str, Any], teacher: Classifier, cache: Tensor | None
) -> dict[str, Any]:
    """One student, from its start to its test accuracy."""
    inputs = bench.args.inputs
    with bench.clock.phase("data"):
        student = Classifier.load(inputs / run["start"])
        maps, pairs = inputs / run["projections"], run["pairs"]
        projections = nn.ModuleList(nn.Identity() for _ in pairs)  # of equal widths
        if pairs and maps.is_file():
            projections = projections_of(load_file(maps))
    objective = Objective(run["objective"], pairs, projections)
    ask = None
    if objective.needs_teacher:
        ask = bench.asked(teacher, objective)
        if cache is not None and not objective.reads_hidden:
            ask = lambda batch: Said(cache[batch.rows])  # noqa: E731
    student, best = bench.fit("steps", student, objective, ask, run["training"], run["seed"])
    return {
        "objective": run["objective"],
        "seed": run["seed"],
        "accuracy": bench.on_test(student),
        "validation": best,
    }


if __name__ == "__main__":
    arguments = tyro.cli(Arguments)
    told = json.dumps(main(arguments), indent=1)
    print(told)
    if arguments.output:
        arguments.output.write_text(told + "\n")
