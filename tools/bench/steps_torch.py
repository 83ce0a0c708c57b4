"""Times steps in PyTorch, for steps.py."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import torch
import tyro
from torch import nn
from torch_model import (
    Batch,
    Classifier,
    Objective,
    Precision,
    Said,
    adamw,
    computing,
    take_step,
)
from transformers import BertConfig
from worker import (
    CLASSES,
    FULL,
    TINY,
    VOCABULARY,
    Shapes,
    Size,
    draw_labels,
    draw_logits,
    draw_tokens,
    serve,
)


@dataclass(frozen=True)
class Arguments:
    """Answers on standard input and output, see worker.py."""

    precision: Precision = "f32"
    """bf16: autocast."""
    compile: bool = False
    """Under torch.compile."""
    tiny: bool = False
    """Sizes that only show that it works."""


def make_model(size: Size) -> Classifier:
    """A BERT of random weights."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=size.width,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        intermediate_size=4 * size.width,
    )
    return Classifier(config, CLASSES)


@dataclass
class Steps:
    """All that is timed.

    Attributes:
      taken: batches so far, so that each has other sentences.
    """

    args: Arguments
    shapes: Shapes
    taken: int = 0
    trained: dict[str, tuple[nn.Module, torch.optim.Optimizer]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.tokens = torch.tensor(draw_tokens(self.shapes)).long()
        self.labels = torch.tensor(draw_labels(self.shapes)).long()
        self.logits = torch.tensor(draw_logits(self.shapes))

    def tasks(self) -> dict[str, Callable[[int], float]]:
        shapes = self.shapes
        kinds = {name: (size, Objective("kl")) for name, size in shapes.students.items()}
        kinds["fine-tuning step"] = shapes.teacher, Objective("ce")
        return {
            **{name: partial(self.train, name, *kind) for name, kind in kinds.items()},
            "teacher forward": self.forward,
            f"matrix product, {self.args.precision}": self.gemm,
        }

    def batch(self) -> Batch:
        """The next rows of the table."""
        first = self.taken * self.shapes.rows % self.shapes.examples
        rows = torch.arange(first, first + self.shapes.rows)
        self.taken += 1
        ids = self.tokens[rows]
        return Batch(ids, torch.ones_like(ids), self.labels[rows], rows)

    def model(self, name: str, size: Size) -> nn.Module:
        model: nn.Module = make_model(size)
        return torch.compile(model) if self.args.compile else model

    def train(self, name: str, size: Size, objective: Objective, steps: int) -> float:
        if name not in self.trained:
            model = self.model(name, size).train()
            self.trained[name] = model, adamw([model], weight_decay=0.01)
            self.train(name, size, objective, 2)
        model, optimizer = self.trained[name]
        started = time.perf_counter()
        for _ in range(steps):
            batch = self.batch()
            said = Said(self.logits[batch.rows]) if objective.needs_teacher else None
            take_step(
                model,
                objective,
                optimizer,
                batch,
                said,
                rate=1e-4,
                clip_norm=1.0,
                precision=self.args.precision,
            )
        return (time.perf_counter() - started) / steps

    @torch.no_grad()
    def forward(self, steps: int) -> float:
        if not hasattr(self, "teacher"):
            self.teacher = self.model("teacher", self.shapes.teacher).eval()
            self.forward(2)
        started = time.perf_counter()
        for _ in range(steps):
            batch = self.batch()
            with computing(self.args.precision):
                self.teacher(batch.ids, batch.mask)
        return (time.perf_counter() - started) / steps

    def gemm(self, steps: int) -> float:
        dtype = torch.float32 if self.args.precision == "f32" else torch.bfloat16
        a, b = torch.randn(2, self.shapes.gemm, self.shapes.gemm).to(dtype)
        a @ b
        started = time.perf_counter()
        for _ in range(steps):
            a @ b
        return (time.perf_counter() - started) / steps


if __name__ == "__main__":
    arguments = tyro.cli(Arguments)
    serve(Steps(arguments, TINY if arguments.tiny else FULL).tasks())
