"""Every kind of task: a teacher, a student on labels alone and distilled ones, a table each.

    python experiments/tasks.py --data shared/data            # all tasks whose data are there
    python experiments/tasks.py --preset smoke                # a few steps of each
    python experiments/tasks.py --data shared/data --tables task_wnut17 task_xquad

``--data`` names the folder with the data sets, see the README there; those that are not there are
left out with a line. A new task is one entry of ``TASKS``.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from distill_jax.cli.experiment import Flags, HalfPrecision, run_experiment
from distill_jax.core.files import user_path
from distill_jax.engine.cell import Cell, Train
from distill_jax.engine.sweep import Sweep, axis, points
from distill_jax.tables.names import YARDSTICK
from distill_jax.tasks.classification.cells import (
    ClassifierSetup,
    DataConfig,
    TeacherConfig,
    TrainingConfig,
)
from distill_jax.tasks.kinds.kinds import kind_named
from distill_jax.training.optimizer import OptimizerConfig

ROOT = "shared/data"
TEACHER, STUDENT, COPIED = "minilm-l6", "tiny", "l2"
BOTH = (STUDENT, COPIED)
"""Where few examples and words that look at each other ask for more than a start by chance: a
student of two of the teacher's layers beside it."""
RATES = {STUDENT: 1e-3, COPIED: 3e-4}
SMOKE_STEPS = 4


@dataclass(frozen=True)
class TaskTable:
    """A table.

    Attributes:
      name: of the table, behind ``task_``.
      title: for people.
      task: the kind, see docs/data.md.
      data: a folder under ``--data``, or the name of a data set that comes with the package.
      columns: further fields of ``DataConfig``.
      objectives: rows; the kind's own where none are named.
      select: what decides on validation; the kind's own where nothing is named.
      teacher_epochs, steps: lengths of the teacher's fine-tuning and of every student's training.
      max_length: tokens.
      students: groups of rows.
    """

    name: str
    title: str
    task: str
    data: str
    columns: dict[str, Any] = field(default_factory=dict)
    objectives: tuple[str, ...] = ()
    select: str = ""
    teacher_epochs: float = 2.0
    steps: int = 400
    max_length: int = 64
    students: tuple[str, ...] = (STUDENT,)


SICK = {"text": "sentence_A", "text_b": "sentence_B", "label_fraction": 1.0}
TASKS = (
    TaskTable(
        "sick_entailment",
        "SICK, entailment of pairs, 3 classes",
        "classes",
        "sick",
        {**SICK, "label": "entailment_judgment"},
        select="macro_f1",
        students=BOTH,
    ),
    TaskTable(
        "sick_relatedness",
        "SICK, how alike two sentences are, from 1 to 5",
        "number",
        "sick",
        {**SICK, "label": "relatedness_score"},
        students=BOTH,
    ),
    TaskTable(
        "review_rating",
        "Movie review snippets, mean rating of people",
        "number",
        "review_snippets/movie",
        {"label_fraction": 0.1},
    ),
    TaskTable(
        "goemotions",
        "GoEmotions, 28 labels, several a text, a tenth of the labels",
        "labels",
        "goemotions",
        {"text": "text", "label": "labels", "label_fraction": 0.1},
        select="macro_f1",
        teacher_epochs=4.0,
        steps=600,
    ),
    TaskTable(
        "wnut17",
        "WNUT 2017, emerging entities, 6 types",
        "tags",
        "wnut17",
        {"label_fraction": 1.0},
        teacher_epochs=4.0,
        steps=600,
        max_length=96,
        students=BOTH,
    ),
    TaskTable(
        "snips_slots",
        "SNIPS, slots of sentences, a tenth of the labels",
        "tags",
        "snips",
        {"label_fraction": 0.1},
        teacher_epochs=6.0,
        steps=600,
    ),
    TaskTable(
        "snips_intents",
        "SNIPS, 7 intents, 1% of the labels",
        "classes",
        "snips",
        {"text": "sentence", "label": "intent", "label_fraction": 0.01},
        teacher_epochs=20.0,
    ),
    TaskTable(
        "snips_intent_slots",
        "SNIPS, intent and slots in one model, a tenth of the labels",
        "intent_slots",
        "snips",
        {"label_fraction": 0.1},
        teacher_epochs=6.0,
        steps=600,
    ),
    TaskTable(
        "xquad",
        "XQuAD, English: answers in paragraphs, split by paragraph",
        "spans",
        "xquad",
        {"label_fraction": 1.0},
        teacher_epochs=10.0,
        steps=100,
        max_length=256,
        students=(COPIED,),
    ),
)


def declare(flags: Flags) -> Sequence[Sweep]:
    """A table each, of the data that are there."""
    return list(_declared(flags))


def _declared(flags: Flags) -> Iterator[Sweep]:
    root = user_path(flags.data or ROOT)
    for table in TASKS:
        spec = spec_of(table, root)
        if spec is None:
            print(f"{table.name}: left out, there is no {root / table.data}")
        else:
            yield sweep_of(table, spec, smoke=flags.preset == "smoke")


def spec_of(table: TaskTable, root: Path) -> str | None:
    """The data of a table as ``compare-losses --data`` has it; None where it is not there."""
    if "/" in table.data:
        return table.data
    folder = root / table.data
    return f"files:{folder}" if folder.is_dir() else None


def sweep_of(table: TaskTable, data: str, *, smoke: bool, teacher: str = TEACHER) -> Sweep:
    """A table: objectives x seeds of each student."""
    kind = kind_named(table.task)
    students = table.students[:1] if smoke else table.students
    rates = " and ".join(f"{RATES[name]:g} ({name})" for name in students)
    training = TrainingConfig(
        epochs=1.0,
        steps=SMOKE_STEPS if smoke else table.steps,
        evaluations=2 if smoke else 8,
        max_shapes=2 if smoke else 8,
        optimizer=OptimizerConfig(learning_rate=RATES[STUDENT]),
        select=table.select or next(iter(kind.decides)),
    )
    of_teacher = replace(
        training,
        epochs=table.teacher_epochs,
        steps=SMOKE_STEPS if smoke else 0,
        evaluations=2 if smoke else 6,
        batch_size=32,
        optimizer=OptimizerConfig(learning_rate=1e-4),
    )
    setup = ClassifierSetup(
        DataConfig(data, max_length=table.max_length, task=table.task, **table.columns),
        TeacherConfig(teacher, training=of_teacher),
        STUDENT,
    )
    objectives = table.objectives or kind.rows
    return Sweep(
        name=f"task_{table.name}",
        title=table.title,
        base=Cell(setup, (Train(kind.alone, training),)),
        rows=axis("objective", objectives[:2] if smoke else objectives),
        groups=points(
            {
                name: {"student": name, "training.optimizer.learning_rate": RATES[name]}
                for name in students
            }
        ),
        seeds=(0,) if smoke else (0, 1, 2),
        baseline=kind.alone,
        columns=kind.columns,
        tested=kind.tested,
        references=(YARDSTICK,),
        protocol=(
            f"All rows take the same {training.steps} optimiser steps of 64 examples at learning "
            f"rates of {rates}; the step is chosen on validation by {training.select}, the test "
            "split is read once.",
            f"`{kind.alone}` hears no teacher and sees the labels that are used.",
        ),
    )


if __name__ == "__main__":
    run_experiment(declare, flags=HalfPrecision)
