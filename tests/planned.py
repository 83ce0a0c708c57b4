"""Runs as a sweep would plan them, between toys, and what the self-checks say of them."""

import dataclasses
import io

import numpy as np
from rich.console import Console

from distill_jax.engine.progress import Reporter
from distill_jax.objectives.grammar import parse
from distill_jax.objectives.resolve import resolve
from distill_jax.tasks.classification.cells import (
    Cell,
    DataConfig,
    Stage,
    TeacherConfig,
    TrainingConfig,
)
from distill_jax.tasks.classification.models import Checkpoint, check_student
from distill_jax.tasks.classification.runs import Planned
from distill_jax.tasks.classification.self_checks import run_self_checks
from distill_jax.tasks.classification.task import Task
from distill_jax.tasks.classification.teacher import Teacher

TRAINING = TrainingConfig(steps=10, batch_size=8)
LABELS = ("bad", "good")


def toy_task(toy_table):
    """Twenty labelled examples among some more, the rest for validation and test."""

    def part(rows, name):
        table = toy_table.take(rows)
        return dataclasses.replace(table, ids=tuple(f"{name}-{n}" for n in range(len(rows))))

    labelled = np.flatnonzero(toy_table.labels_N >= 0)
    return Task(
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


def plan(task, teacher, objective, *, before=None, student="2x8x2", seed=0):
    """A run as a sweep would plan it."""
    cell = Cell(
        data=task.config,
        teacher=TeacherConfig(),
        student=student,
        objective=str(parse(objective)),
        training=TRAINING,
        seed=seed,
        intermediate=None if before is None else Stage(str(parse(before)), TRAINING),
        data_digest="data",
        teacher_digest="teacher",
    )
    config = check_student(cell, teacher.config)

    def fit(text):
        return resolve(text, config.shape, teacher.config.shape)

    return Planned(
        cell,
        objective,
        student,
        task,
        teacher,
        config,
        fit(objective),
        None if before is None else fit(before),
    )


def check(*planned):
    """Runs the checks; returns what was said."""
    out = io.StringIO()
    reporter = Reporter(Console(file=out, width=400))
    run_self_checks(planned, lambda each: each.task.everything, reporter)
    return out.getvalue()
