"""Who may teach: a model, what stands between it and the student, a file, nobody but a peer.

    python experiments/teachers.py
    python experiments/teachers.py --preset smoke

Students of one size learn on the movie snippets, a tenth of whose labels are known, from

- the fine-tuned MiniLM (``kl``), as everywhere;
- an assistant between that and the student (Mirzadeh et al. 2020);
- themselves: a student of labels alone teaches the next, that one the one after (born-again
  networks, Furlanello et al. 2018);
- each other (deep mutual learning, Zhang et al. 2018);
- a file: what a logistic regression on TF-IDF says, in the place of any system that is no model;
- MiniLM and the file: alike, with weights chosen by validation, with weights by how sure each of
  them is of each sentence.

Five seeds; each has its own fine-tuning of MiniLM and its own assistants; the file is the same.
"""

import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from distill_jax.cli.experiment import TableFlags
from distill_jax.cli.precision import computing_in
from distill_jax.cli.results import open_console
from distill_jax.cli.run import parse_flags, run
from distill_jax.engine.options import Precision

if TYPE_CHECKING:
    from distill_jax.engine.sweep import Axis, Sweep
    from distill_jax.tables.trends import Trend
    from distill_jax.tasks.classification.cells import DataConfig, TrainingConfig

NAME = "teachers"
LABELS, SMOOTHED, PLAIN = "labels alone", "labels alone, smoothed", "MiniLM"
ASSISTANT = "MiniLM > assistant"
FIRST, SECOND = "born again, once", "born again, twice"
PEERS = "two peers"
FILE = "file (TF-IDF)"
ALIKE, WEIGHED, SURE = "MiniLM + file, alike", "MiniLM + file, weighed", "MiniLM + file, the surer"


@dataclasses.dataclass(frozen=True)
class Teachers(TableFlags):
    """Students of one size and everybody who may teach them."""

    preset: Literal["default", "smoke"] = "default"
    """default: as committed. smoke: the whole path in a minute or two, on little data."""
    data: str = ""
    """Another data set: files:FOLDER, tfds:NAME ..."""
    teacher: str = "minilm-l6"
    student: str = "2x64x2"
    assistant: str = "4x128x4"
    max_length: int = 48
    steps: int = 0
    """Of every student and assistant; default: 266, two passes; smoke: 8."""
    seeds: tuple[int, ...] = ()
    """Default: 0 to 4, smoke: 0 and 1."""
    precision: Precision = "bf16"
    """bf16: students and teacher compute in bfloat16. bf16-params: students' parameters are
    bfloat16 too. f32: in float32."""
    output_dir: Path = Path("results")
    """Everything goes to teachers, or teachers-smoke, under this folder."""

    @property
    def small(self) -> bool:
        return self.preset == "smoke"

    @property
    def folder(self) -> Path:
        return self.output_dir / (f"{NAME}-smoke" if self.small else NAME)

    @property
    def predictions(self) -> str:
        """The file that teaches, ``{seed}`` in its name: each seed has a copy."""
        return str(self.folder / "predictions" / "tfidf-{seed}.npz")


def declare(flags: Teachers) -> "Sweep[Any]":
    """Teachers x seeds."""
    from distill_jax.engine.cell import Cell, Train
    from distill_jax.engine.sweep import Sweep, points
    from distill_jax.tables.columns import ACCURACY, COLUMNS
    from distill_jax.tasks.classification.cells import (
        ClassifierSetup,
        TeacherConfig,
        TrainingConfig,
    )
    from distill_jax.training.optimizer import OptimizerConfig

    training = TrainingConfig(
        steps=flags.steps or (8 if flags.small else 266),
        evaluations=2 if flags.small else 4,
        max_shapes=3,
        optimizer=OptimizerConfig(learning_rate=2e-3),
    )
    seeds = flags.seeds or ((0, 1) if flags.small else (0, 1, 2, 3, 4))
    shown = ("test/macro_f1", "test/fidelity", "test/ece", "parameters")
    sweep = Sweep(
        name=NAME,
        title="Who may teach",
        base=Cell(
            ClassifierSetup(data_of(flags), TeacherConfig(flags.teacher), flags.student),
            (Train("kl", training),),
        ),
        rows=_rows(flags, training),
        groups=points({flags.student: {}}),
        seeds=seeds,
        teacher_seeds=seeds,
        baseline=PLAIN,
        columns=(ACCURACY, *(each for each in COLUMNS if each.key in shown)),
        row_title="who teaches",
        trends=_trends(flags.student),
        protocol=(
            "10% of the labels; the other training sentences are the transfer set. Every student, "
            f"and every assistant, takes {training.steps} optimiser steps.",
            f"The assistant is {flags.assistant}; born-again students and peers are as the "
            "student, they hear `kl + ce`, the others `kl`.",
            "Fidelity is to the row's own teacher, of several to their mean probabilities.",
            "The step is chosen on validation; the test split is read once.",
        ),
    )
    return computing_in(sweep, flags.precision)


def data_of(flags: Teachers) -> "DataConfig":
    """The examples."""
    from distill_jax.tasks.classification.cells import DataConfig

    usual = "review_snippets/product" if flags.small else "review_snippets/movie"
    return DataConfig(flags.data or usual, max_length=flags.max_length)


def _rows(flags: Teachers, training: "TrainingConfig") -> "Axis":
    from distill_jax.engine.sweep import points
    from distill_jax.tasks.classification.cells import AssistantConfig, TeacherConfig

    file = TeacherConfig(f"file:{flags.predictions}", fine_tune=False, tokenizer=flags.teacher)
    nobody = TeacherConfig("none", fine_tune=False, tokenizer=flags.teacher)
    assistant = AssistantConfig(flags.assistant, "kl", training)
    first = AssistantConfig(flags.student, "ce", training)
    again = AssistantConfig(flags.student, "kl + ce", training)
    both = {"more_teachers": (file,)}
    rows: dict[str, dict[str, Any]] = {
        PLAIN: {},
        LABELS: {"objective": "ce"},
        SMOOTHED: {"objective": "ce(label_smoothing=0.1)"},
        ASSISTANT: {"teacher.assistants": (assistant,)},
        FIRST: {
            "teacher": dataclasses.replace(nobody, assistants=(first,)),
            "objective": "kl + ce",
        },
        SECOND: {
            "teacher": dataclasses.replace(nobody, assistants=(first, again)),
            "objective": "kl + ce",
        },
        PEERS: {"teacher": nobody, "peers": 2, "objective": "kl + ce"},
        FILE: {"teacher": file},
        ALIKE: {**both, "objective": "kl(teachers='mean_probabilities')"},
        WEIGHED: {
            **both,
            "weigh": "validation",
            "objective": "kl(teachers='mean_probabilities')",
        },
        SURE: {
            **both,
            "objective": "kl(teachers='mean_probabilities', trust='certainty')",
        },
    }
    return points(rows)


def _trends(student: str) -> "tuple[Trend, ...]":
    from distill_jax.tables.trends import difference

    statements = (
        ("a teacher helps", PLAIN, LABELS),
        ("an assistant helps (Mirzadeh et al. 2020)", ASSISTANT, PLAIN),
        ("a born-again student beats labels alone (Furlanello et al. 2018)", FIRST, LABELS),
        ("a second generation gains more", SECOND, FIRST),
        ("peers beat labels alone (Zhang et al. 2018)", PEERS, LABELS),
        ("soft labels of a student beat smoothed ones", FIRST, SMOOTHED),
        ("a file teaches", FILE, LABELS),
        ("weights by validation beat equal ones", WEIGHED, ALIKE),
        ("weights by confidence beat equal ones", SURE, ALIKE),
        ("a second teacher helps", WEIGHED, PLAIN),
    )
    return tuple(
        difference(statement, (better, student), (worse, student))
        for statement, better, worse in statements
    )


def write_file(flags: Teachers, data: "DataConfig", seeds: tuple[int, ...]) -> None:
    """What a logistic regression on TF-IDF, fitted to the labels used, says of all texts."""
    import numpy as np

    from distill_jax.data.subsets import labelled_rows
    from distill_jax.evaluation.metrics import accuracy
    from distill_jax.evaluation.yardsticks import Regression, regression, text_features
    from distill_jax.tasks.classification.splits import load_texts
    from distill_jax.teachers.predictions import write_predictions

    paths = [Path(flags.predictions.replace("{seed}", str(seed))) for seed in seeds]
    if all(path.is_file() for path in paths):
        return
    dataset = load_texts(data)
    train, validation = dataset.splits["train"], dataset.splits["validation"]
    labelled = train.take(labelled_rows(train, data.label_fraction))
    tables = list(dataset.splits.values())
    texts = [text for table in tables for text in table.texts]
    recipe, classes = Regression(), len(dataset.label_names)
    features = text_features(recipe, [labelled.texts], [[list(validation.texts)], [texts]], classes)
    assert labelled.labels_N is not None and validation.labels_N is not None
    labels_N = validation.labels_N
    fitted = regression(
        recipe, labelled.labels_N, features, classes, lambda said_NC: accuracy(said_NC, labels_N)
    )
    logits_NC = np.maximum(fitted.test_NC, -50.0)  # -inf for a class without a label
    ids = [example for table in tables for example in table.ids]
    for path in paths:
        write_predictions(path, ids, dataset.label_names, logits_NC, "logits")


def main(flags: Teachers) -> None:
    """Write the file, run the table; what was done before is taken."""
    from distill_jax.tasks.classification.table import Classification

    flags.use_plugin()
    sweep = declare(flags)
    console = open_console()
    write_file(flags, sweep.base.setup.data, sweep.seeds)
    flags.run(Classification(sweep), flags.folder, console)


if __name__ == "__main__":
    run(lambda: main(parse_flags(Teachers, sys.argv[1:], "teachers.py")))
