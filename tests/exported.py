"""Fixtures: exports of a small student, written once."""

import pytest
from exports import save_student

from distill_jax.export.formats import format_named, names
from distill_jax.export.own_data import NoData
from distill_jax.export.source import open_source
from distill_jax.export.write import export_model
from distill_jax.tasks.kinds.kinds import kind_named

TAGS = ["O", "B-praise", "I-praise"]
KINDS = {
    "number": (("rating",), {"mean": 50.0, "deviation": 12.0}),
    "labels": (("bad", "good", "music"), {"threshold": 0.4}),
    "tags": (tuple(TAGS), {"tags": TAGS}),
    "intent_slots": ((*TAGS, "ask", "tell"), {"tags": TAGS}),
    "spans": (("start", "end"), {"unanswerable": True, "null_threshold": 0.25}),
    "relations": (("before", "behind"), {"temperature": 1.5}),
}
"""Names of the outputs, and what is kept for answers."""


def rounded(value, digits=3):
    """Plain values with fewer digits."""
    if isinstance(value, float):
        return round(value, digits)
    if isinstance(value, dict):
        return {name: rounded(each, digits) for name, each in value.items()}
    return [rounded(each, digits) for each in value] if isinstance(value, list) else value


@pytest.fixture(scope="session")
def write_export():
    """(run, format, folder) -> the manifest of what was written, without data of its own."""

    def write(run, format, folder):
        source, said = open_source(run), NoData("a toy")
        return export_model(source, format_named(format), folder, data=said, max_drop=0.02)

    return write


@pytest.fixture(scope="session")
def student_run(toy_teacher, tmp_path_factory):
    """The folder of a run."""
    return save_student(tmp_path_factory.mktemp("student") / "run", toy_teacher)


@pytest.fixture(scope="session")
def exports(student_run, write_export, tmp_path_factory):
    """format -> a folder of it; not to be changed."""
    folder = tmp_path_factory.mktemp("exports")
    for name in names():
        write_export(student_run, name, folder / name)
    return {name: folder / name for name in names()}


@pytest.fixture(scope="session")
def kind_run(toy_teacher, tmp_path_factory):
    """(kind, family) -> the folder of a run; not to be changed."""
    runs = {}

    def made(task, family="bert"):
        if (task, family) not in runs:
            kind, (outputs, saved) = kind_named(task), KINDS[task]
            folder = tmp_path_factory.mktemp(task) / "run"
            how = {"pooling": "tokens"} if kind.head == "tokens" else {}
            save_student(
                folder, toy_teacher, family, pairs=kind.pairs, outputs=outputs, temperature=1.0,
                **how,
            )  # fmt: skip
            kind.mark(folder / "model", saved)
            runs[task, family] = folder
        return runs[task, family]

    return made


@pytest.fixture(scope="session")
def kind_export(kind_run, write_export):
    """(kind, format, family) -> an export of that run, in its folder; not to be changed."""

    def made(task, format="onnx", family="bert"):
        run = kind_run(task, family)
        folder = run / "export" / format
        if not folder.is_dir():
            write_export(run, format, folder)
        return folder

    return made
