"""One function for users of Python: a teacher and texts in, a student out."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console

from distill_jax.cli.compare import CompareLosses, sweep_of
from distill_jax.core.compiled import keep_compiled_programs
from distill_jax.core.errors import UserError, unknown
from distill_jax.core.fields import check_fields
from distill_jax.core.files import atomic_folder, user_path
from distill_jax.core.memory import keep_freed_memory
from distill_jax.data.lists import Examples, write_lists
from distill_jax.engine.progress import Reporter
from distill_jax.engine.run import run_table
from distill_jax.evaluation.open_classifier import Answer, OpenClassifier, open_classifier
from distill_jax.tables.ledger import LedgerRow
from distill_jax.tables.names import MODEL, RUNS
from distill_jax.tasks.classification.table import Classification
from distill_jax.tasks.kinds.kinds import form_of

_OWN = {"teacher", "data"}
_OF_TABLES = {
    *("preset", "students", "objectives", "controls", "yardsticks", "baseline", "output_dir"),
    *("seeds", "teacher_seeds", "label_seeds"),
}
SETTINGS = tuple(
    each.name for each in dataclasses.fields(CompareLosses) if each.name not in _OWN | _OF_TABLES
)
"""Flags of ``compare-losses`` that ``distil`` takes by name."""


@dataclass(frozen=True, eq=False)
class Student:
    """What came out of ``distil``.

    Attributes:
      scores: of the student on the test split, ``accuracy`` and ``macro_f1`` among them.
      teacher_scores: the same of the teacher, of several of the first; {} where it does not speak
        of the test split.
      folder: of the run; it goes with this object where ``distil`` was given none.
      classifier: the opened model.
    """

    scores: dict[str, float]
    teacher_scores: dict[str, float]
    folder: Path
    classifier: OpenClassifier = field(repr=False)
    _temporary: TemporaryDirectory[str] | None = field(default=None, repr=False)

    def predict(
        self, texts: Sequence[str], texts_b: Sequence[str] | None = None
    ) -> list[Answer | None]:
        """Class and probabilities of each text, or pair of texts; None for blank ones.

        Raises:
          UserError: for one text in the place of a list, and for single texts where the student
            was trained on pairs, or the other way round.
        """
        if isinstance(texts, str) or isinstance(texts_b, str):
            raise UserError("predict takes a list of texts, not one text")
        return self.classifier.classify(texts, texts_b)

    def save(self, folder: Path | str) -> Path:
        """Write the student as a Hugging Face folder, see docs/predict.md.

        Raises:
          UserError: the folder exists and is not empty, or cannot be written.
        """
        target = user_path(folder)
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise UserError(f"{target} exists and is not empty; choose another folder")
        with atomic_folder(target) as scratch:
            shutil.copytree(self.folder / MODEL, scratch, dirs_exist_ok=True)
        return target


def distil(
    teacher: str | Path | Sequence[str | Path],
    data: str | Examples,
    student: str = "tiny",
    objective: str = "kl",
    *,
    unlabelled: Sequence[str] = (),
    validation: Examples | None = None,
    test: Examples | None = None,
    seed: int = 0,
    folder: Path | str | None = None,
    quiet: bool = False,
    **settings: Any,
) -> Student:
    """Fine-tune a teacher on the labels, and train a student by what it says.

    It is a table of ``compare-losses`` with one row and one seed, and has its defaults.

    Args:
      teacher: ``minilm-l6``, a folder with a BERT checkpoint, or a hub id; a file of predictions, a
        finished run, or ``none``, see ``docs/teachers.md``; a list of several that teach together.
      data: ``(texts, labels)`` of the training examples, a label being a word, a whole number, or
        None; or a name as of ``--data``, ``files:FOLDER`` say.
      student: ``tiny``, ``l2``, ``l3`` or ``LAYERSxWIDTHxHEADS``.
      objective: as text, ``0.9*kl(T=2) + 0.1*ce`` say.
      unlabelled: more texts, on which only the teacher speaks.
      validation, test: ``(texts, labels)``; held out of ``data`` where they are missing. These
        three are for data that are lists.
      seed: of initialisation, dropout and the order of the data.
      folder: where the run is kept, with its ledger and checkpoints: the same call goes on from
        there, and a finished run is not trained again. By default a temporary folder.
      quiet: say nothing while it runs.
      **settings: further flags of ``compare-losses``, see ``SETTINGS``: ``epochs``, ``steps``,
        ``teacher_epochs``, ``label_fraction``, ``options`` and so on.

    Raises:
      UserError: for anything the user can mend, before anything is trained where possible.
      Interrupted: after Ctrl-C; with a ``folder``, the same call goes on from there.
    """
    given = _checked(teacher, student, objective, seed, settings)
    lists = not isinstance(data, str)
    if not lists and (len(unlabelled) or validation is not None or test is not None):
        raise UserError(f"data {data!r} has its own splits: leave out unlabelled, validation, test")
    temporary = TemporaryDirectory(prefix="distill_jax-") if folder is None else None
    home = user_path(temporary.name if temporary else str(folder))
    notes: tuple[str, ...] = ()
    if not isinstance(data, str):
        more = {"validation": validation, "test": test}
        written, notes = write_lists(home / "data", data, unlabelled=unlabelled, **more)
        data = f"files:{written}"
    reporter = Reporter(Console(quiet=quiet))
    for note in notes:
        reporter.say(f"data: {note}")
    keep_compiled_programs()
    keep_freed_memory()
    args = dataclasses.replace(given, data=data)
    sweep = dataclasses.replace(sweep_of(args), name="distil")
    protocol = (*sweep.protocol, *(f"{note}." for note in notes))
    spec, rows = run_table(
        Classification(dataclasses.replace(sweep, protocol=protocol)),
        home,
        reporter,
        track=args.track,
        strategy=args.strategy,
        options=args.options,
    )
    by_hash = {row.hash: row for row in rows}
    (place,) = spec.places
    taught_by = next((by_hash[each.hash] for each in spec.teachers), None)
    run = home / RUNS / place.hash
    return Student(
        _on_test(by_hash[place.hash]),
        {} if taught_by is None else _on_test(taught_by),
        run,
        open_classifier(run, form_of=form_of),
        temporary,
    )


def _checked(
    teacher: str | Path | Sequence[str | Path],
    student: str,
    objective: str,
    seed: int,
    settings: Mapping[str, Any],
) -> CompareLosses:
    """The flags of a table with one row and one seed."""
    teachers = (teacher,) if isinstance(teacher, (str, Path)) else teacher
    for name in settings:
        if name not in SETTINGS:
            raise unknown("setting", name, SETTINGS)
    if isinstance(plugin := settings.get("plugin"), str):
        settings = {**settings, "plugin": Path(plugin)}
    args = CompareLosses(
        teacher=tuple(map(str, teachers)),
        students=(student,),
        objectives=(objective,),
        seeds=(seed,),
        yardsticks=False,
        **settings,
    )
    check_fields(args)
    if not args.options.share.whole:
        raise UserError("one run has no parts: leave out part")
    return args


def _on_test(row: LedgerRow) -> dict[str, float]:
    """Scores by their names without ``test/``."""
    found = {name.partition("test/")[2]: value for name, value in row.metrics.items()}
    return {name: value for name, value in found.items() if name}
