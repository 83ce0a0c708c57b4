"""Fixtures: exports of a small student, written once."""

import pytest
from exports import save_student

from distill_jax.export.formats import format_named, names
from distill_jax.export.own_data import NoData
from distill_jax.export.source import open_source
from distill_jax.export.write import export_model


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
