"""Times our steps, for steps.py: by the engine, as a table takes them."""

import itertools
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from rich.console import Console
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

from distill_jax.core.memory import keep_freed_memory
from distill_jax.core.types import Capture, ModelOutput
from distill_jax.data.tokenise import TokenTable
from distill_jax.engine.cell import Cell, Train
from distill_jax.engine.engine import Engine
from distill_jax.engine.options import Precision, RunOptions
from distill_jax.engine.progress import Reporter
from distill_jax.engine.work import compute_dtype
from distill_jax.models.bert import BertConfig, init_bert
from distill_jax.models.build import build_model
from distill_jax.objectives.resolve import resolve
from distill_jax.tasks.classification.cells import (
    TEACHER,
    ClassifierSetup,
    DataConfig,
    TrainingConfig,
)
from distill_jax.tasks.classification.classify import classifier_work
from distill_jax.tasks.classification.splits import Splits
from distill_jax.teachers.live import LiveTeacher
from distill_jax.training.interrupt import StopRequest


@dataclass(frozen=True)
class Arguments:
    """Answers on standard input and output, see worker.py."""

    precision: Precision = "f32"
    tiny: bool = False
    """Sizes that only show that it works."""


def make_config(size: Size) -> BertConfig:
    """A BERT of this size whose head reads the mean of all tokens."""
    return BertConfig(
        VOCABULARY,
        size.width,
        size.layers,
        size.heads,
        4 * size.width,
        pooling="mean",
        num_labels=CLASSES,
    )


def make_splits(shapes: Shapes) -> Splits:
    """The random table as the examples of an experiment."""
    tokens = draw_tokens(shapes)
    table = TokenTable(
        ids=tuple(map(str, range(len(tokens)))),
        tokens_S=tokens.reshape(-1),
        token_types_S=np.zeros(tokens.size, np.int8),
        offsets_N1=np.arange(0, tokens.size + 1, shapes.tokens),
        labels_N=draw_labels(shapes),
    )
    few = table.take(np.arange(shapes.rows))
    return Splits(
        config=DataConfig("random"),
        label_names=tuple(map(str, range(CLASSES))),
        labelled=table,
        everything=table,
        validation=few,
        test=few,
        few_lengths=(shapes.tokens,),
        evaluation_batch=shapes.rows,
        digest="random",
        labels_digest="random",
        tokens_digest="random",
    )


@dataclass
class Steps:
    """All that is timed."""

    args: Arguments
    shapes: Shapes
    engine: Engine

    def __post_init__(self) -> None:
        self.splits = make_splits(self.shapes)
        self.logits = draw_logits(self.shapes)
        self.runs = itertools.count()

    def tasks(self) -> dict[str, Callable[[int], float]]:
        shapes = self.shapes
        kinds = {name: (name, size, "kl") for name, size in shapes.students.items()}
        kinds["fine-tuning step"] = TEACHER, shapes.teacher, "ce"
        return {
            **{name: partial(self.train, *kind) for name, kind in kinds.items()},
            "teacher forward": self.forward,
            "matrix product, f32": partial(self.gemm, jnp.float32),
            "matrix product, bf16": partial(self.gemm, jnp.bfloat16),
        }

    def train(self, student: str, size: Size, objective: str, steps: int) -> float:
        """By the engine's loop: its seconds without those of compiling."""
        config = make_config(size)
        training = TrainingConfig(steps=steps, batch_size=self.shapes.rows)
        setup = ClassifierSetup(self.splits.config, student=student)
        cell = Cell(
            setup,
            (Train(objective, training),),
            precision=self.args.precision,
            data_digest="random",
            teacher_digest="random",
        )
        fitted = resolve(objective, config.shape, make_config(self.shapes.teacher).shape)
        work = classifier_work(cell, self.splits, config, fitted, training, steps, selects=False)
        folder = self.engine.folder / str(next(self.runs))
        params = init_bert(config, jax.random.key(0))
        result = self.engine.train(work, params, teacher=self.asked, label=student, folder=folder)
        return result.progress.train_seconds / steps

    def asked(self, batch: Any) -> ModelOutput:
        """What the teacher said of a batch, its logits alone."""
        return ModelOutput(logits_BC=self.logits[np.maximum(batch.example_ids_B, 0)])

    @cached_property
    def teacher(self) -> LiveTeacher:
        config = make_config(self.shapes.teacher)
        model = build_model(config, dtype=compute_dtype(self.args.precision))
        return LiveTeacher(model, init_bert(config, jax.random.key(0)), Capture())

    def forward(self, steps: int) -> float:
        shapes = self.shapes
        starts = [n * shapes.rows % shapes.examples for n in range(steps + 1)]
        batches = [
            self.splits.everything.batch(
                np.arange(start, start + shapes.rows), shapes.tokens, shapes.rows
            )
            for start in starts
        ]
        jax.block_until_ready(self.teacher(batches[0]))
        started = time.perf_counter()
        for batch in batches[1:]:
            jax.block_until_ready(self.teacher(batch))
        return (time.perf_counter() - started) / steps

    def gemm(self, dtype: Any, steps: int) -> float:
        side = self.shapes.gemm
        a, b = jax.random.normal(jax.random.key(0), (2, side, side)).astype(dtype)
        product = jax.jit(jnp.matmul)
        product(a, b).block_until_ready()
        started = time.perf_counter()
        for _ in range(steps):
            product(a, b).block_until_ready()
        return (time.perf_counter() - started) / steps


def main(args: Arguments) -> None:
    """Until standard input ends."""
    keep_freed_memory()  # as every command does
    shapes = TINY if args.tiny else FULL
    reporter = Reporter(Console(quiet=True))
    with tempfile.TemporaryDirectory() as folder, StopRequest() as stop:
        options = RunOptions(resume="never")
        engine = Engine(Path(folder), reporter, stop, "none", options)
        serve(Steps(args, shapes, engine).tasks())


if __name__ == "__main__":
    main(tyro.cli(Arguments))
