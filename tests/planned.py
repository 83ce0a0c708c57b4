"""Runs as a sweep would plan them, between toys, and what the self-checks say of them."""

import dataclasses
import io

import numpy as np
from rich.console import Console

from distill_jax.engine.cell import Cell, Train
from distill_jax.engine.progress import Reporter
from distill_jax.engine.sweep import Entry
from distill_jax.objectives.grammar import parse
from distill_jax.objectives.resolve import resolve
from distill_jax.tasks.classification.cells import ClassifierSetup, DataConfig, TrainingConfig
from distill_jax.tasks.classification.models import Checkpoint, check_student
from distill_jax.tasks.classification.runs import ClassifierRun
from distill_jax.tasks.classification.self_checks import run_self_checks
from distill_jax.tasks.classification.splits import Splits
from distill_jax.tasks.classification.teacher import Teacher

TRAINING = TrainingConfig(steps=10, batch_size=8)
LABELS = ("bad", "good")


def toy_splits(toy_table):
    """Twenty labelled examples among some more, the rest for validation and test."""

    def part(rows, name):
        table = toy_table.take(rows)
        return dataclasses.replace(table, ids=tuple(f"{name}-{n}" for n in range(len(rows))))

    labelled = np.flatnonzero(toy_table.labels_N >= 0)
    return Splits(
        config=DataConfig(),
        label_names=LABELS,
        labelled=part(labelled[:20], "train"),
        everything=part(np.concatenate([labelled[:20], np.arange(0, 44, 5)]), "train"),
        validation=part(labelled[20:25], "validation"),
        test=part(labelled[25:], "test"),
        few_lengths=(12,),
        evaluation_batch=8,
        digest="data",
        labels_digest="labels",
        tokens_digest="tokens",
    )


def toy_teacher(teacher):
    """A teacher as a sweep has it."""
    model, params = teacher
    checkpoint = Checkpoint(model.config, params, None, "pretrained", LABELS)
    return Teacher(checkpoint, model.config, params, "teacher", None, {}, LABELS)


def plan(splits, teacher, objective, *, before=None, student="2x8x2", seed=0):
    """A run as a sweep would plan it."""
    stages = [Train(str(parse(text)), TRAINING) for text in (before, objective) if text]
    cell = Cell(
        ClassifierSetup(splits.config, student=student),
        tuple(stages),
        seed,
        data_digest="data",
        teacher_digest="teacher",
    )
    model = check_student(cell, teacher.config)
    fitted = [resolve(stage.objective, model.shape, teacher.config.shape) for stage in stages]
    entry = Entry(objective, student, cell)
    return ClassifierRun(entry, splits, (teacher,), model, tuple(fitted))


def check(*runs):
    """Runs the checks; returns what was said."""
    out = io.StringIO()
    reporter = Reporter(Console(file=out, width=400))
    run_self_checks(runs, lambda each: each.splits.everything, reporter)
    return out.getvalue()
