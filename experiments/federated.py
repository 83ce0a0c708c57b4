"""Federated distillation (Lin et al. 2020): three clients, a server who hears their logits alone.

    python experiments/federated.py
    python experiments/federated.py --preset smoke

Three clients share out three tenths of the labels of the movie snippets, alike or skewed (shares of
each class from a Dirichlet distribution of concentration 1). Each trains a student of its own on
its part. On the other training texts, which all know and nobody has labels of, each writes down its
logits; the server's student learns from the mean of these files. Beside it stand each client alone
and one student trained on all labels in one place. Students start from two of MiniLM's layers,
before any fine-tuning, and take the same number of steps.

Simulated in one process: what passes from a client to the server is a file of logits by id. The
validation split, on which the step is chosen, is known to all.
"""

import dataclasses
import shutil
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

NAME = "federated"
CLIENTS = 3
GROUPS = ("alike", "skewed")
CENTRAL, SERVER = "all labels in one place", "server, mean of the clients' logits"


@dataclasses.dataclass(frozen=True)
class Federated(TableFlags):
    """Clients alone, a server who hears them, and one who has all data."""

    preset: Literal["default", "smoke"] = "default"
    """default: as committed. smoke: the whole path in a minute or two, on little data."""
    data: str = ""
    """Another data set: files:FOLDER, tfds:NAME ..."""
    student: str = "l2"
    tokenizer: str = "minilm-l6"
    """Whose tokeniser and layers the students have."""
    label_fraction: float = 0.3
    """Share of the training labels that the clients have together."""
    alpha: float = 1.0
    """Concentration of the skewed clients' shares of each class."""
    max_length: int = 48
    steps: int = 0
    """Of every student; default: 160, smoke: 8."""
    seeds: tuple[int, ...] = ()
    """Default: 0 to 4, smoke: 0 and 1."""
    precision: Precision = "bf16"
    """bf16: students compute in bfloat16. bf16-params: their parameters are bfloat16 too. f32: in
    float32."""
    output_dir: Path = Path("results")
    """Everything goes to federated, or federated-smoke, under this folder."""

    @property
    def small(self) -> bool:
        return self.preset == "smoke"

    @property
    def folder(self) -> Path:
        return self.output_dir / (f"{NAME}-smoke" if self.small else NAME)


def declare(flags: Federated, *, with_server: bool = False) -> "Sweep[Any]":
    """The table; its first part, which makes the clients, is the table without the server."""
    from distill_jax.engine.cell import Cell, Train
    from distill_jax.engine.sweep import Point, Sweep, points
    from distill_jax.tables.columns import ACCURACY, COLUMNS
    from distill_jax.tasks.classification.cells import (
        ClassifierSetup,
        DataConfig,
        TeacherConfig,
        TrainingConfig,
    )
    from distill_jax.training.optimizer import OptimizerConfig

    usual = "review_snippets/product" if flags.small else "review_snippets/movie"
    data = DataConfig(
        flags.data or usual, label_fraction=flags.label_fraction, max_length=flags.max_length
    )
    training = TrainingConfig(
        steps=flags.steps or (8 if flags.small else 160),
        evaluations=2 if flags.small else 4,
        max_shapes=3,
        optimizer=OptimizerConfig(learning_rate=3e-4),
    )
    nobody = TeacherConfig("none", fine_tune=False, tokenizer=flags.tokenizer)
    rows: Axis = tuple(
        Point(f"client {number} alone", (("data.client", f"{number}/{CLIENTS}"),))
        for number in range(1, CLIENTS + 1)
    )
    rows += (Point(CENTRAL),)
    seeds = flags.seeds or ((0, 1) if flags.small else (0, 1, 2, 3, 4))
    sweep = Sweep(
        name=NAME,
        title=f"{CLIENTS} clients and a server",
        base=Cell(ClassifierSetup(data, nobody, flags.student), (Train("ce", training),)),
        rows=rows,
        groups=points(
            {"alike": {"data.client_alpha": 0.0}, "skewed": {"data.client_alpha": flags.alpha}}
        ),
        seeds=seeds,
        teacher_seeds=seeds,
        baseline="client 1 alone",
        columns=(ACCURACY, *(c for c in COLUMNS if c.key in ("test/macro_f1", "test/ece"))),
        group_title="clients",
        row_title="who learns",
        trends=_trends() if with_server else (),
        protocol=(
            f"{100 * flags.label_fraction:g}% of the training labels, shared out among {CLIENTS} "
            "clients who show nobody their examples; the other training texts are known to all, "
            "without labels.",
            f"Every student takes {training.steps} optimiser steps. The step is chosen on "
            "validation; the test split is read once.",
            "The server hears files of logits by id, of the clients of its own seed.",
        ),
    )
    sweep = computing_in(sweep, flags.precision)
    if not with_server:
        return sweep
    rows = (*rows, Point(SERVER, (("objective", _objective()),)))
    return dataclasses.replace(sweep, rows=rows, overrides=_servers(flags, data))


def _objective() -> str:
    from distill_jax.tasks.classification.federated import OBJECTIVE

    return OBJECTIVE


def _servers(flags: Federated, data: Any) -> tuple[Any, ...]:
    """Of each group: the server's teachers are its clients' files."""
    from distill_jax.engine.sweep import Override
    from distill_jax.tasks.classification.federated import answers_file, server_setup

    overrides = []
    for group in GROUPS:
        files = [answers_file(flags.folder / "answers", group, n + 1) for n in range(CLIENTS)]
        setup = server_setup(data, flags.student, files, flags.tokenizer)
        fields = ("data", "teacher", "more_teachers")
        changes = tuple((name, getattr(setup, name)) for name in fields)
        overrides.append(Override(changes, row=SERVER, group=group))
    return tuple(overrides)


def _trends() -> "tuple[Trend, ...]":
    from distill_jax.tables.trends import best_of, difference

    found = []
    for group in GROUPS:
        clients = [(f"client {number} alone", group) for number in range(1, CLIENTS + 1)]
        found += [
            difference(
                f"the server's student is better than the client that is best on validation "
                f"({group})",
                (SERVER, group),
                best_of(clients),
            ),
            difference(
                f"all labels in one place are better than the server ({group})",
                (CENTRAL, group),
                (SERVER, group),
            ),
        ]
    return tuple(found)


def main(flags: Federated) -> None:
    """Train the clients, let them answer, train the server; what was done before is taken."""
    from distill_jax.engine.progress import Reporter
    from distill_jax.tables.outputs import load_results
    from distill_jax.tasks.classification.federated import (
        answers_file,
        client_answers,
        shared_texts,
    )
    from distill_jax.tasks.classification.table import Classification

    flags.use_plugin()
    console = open_console()
    clients = declare(flags, with_server=False)
    flags.run(Classification(clients), flags.folder, console)
    spec, _ = load_results(flags.folder)
    shared = shared_texts(clients.base.setup.data)
    asked = [place for place in spec.places if place.row.startswith("client")]
    with Reporter(console).stage("clients answer", len(asked)) as bar:
        for done, place in enumerate(asked, 1):
            number = int(place.row.split()[1])
            said = flags.folder / "answers" / f"{place.hash}.npz"
            if not said.is_file():
                client_answers(flags.folder / "runs" / place.hash, shared, said)
            name = answers_file(flags.folder / "answers", place.group, number)
            shutil.copyfile(said, name.replace("{seed}", str(place.seed)))
            bar.update(done)
    table = declare(flags, with_server=True)
    flags.run(Classification(table), flags.folder, console)


if __name__ == "__main__":
    run(lambda: main(parse_flags(Federated, sys.argv[1:], "federated.py")))
