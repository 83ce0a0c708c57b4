"""docs/teachers.md says what is so: its files are read, its commands and objectives are parsed."""

import re
import shlex
from pathlib import Path

import numpy as np

from distill_jax.cli.compare import sweep_of
from distill_jax.cli.compare_flags import CompareLosses, parse_arguments
from distill_jax.cli.data import Data
from distill_jax.cli.main import COMMANDS
from distill_jax.cli.run import parse_flags
from distill_jax.objectives.grammar import parse
from distill_jax.tasks.classification.cells import TeacherConfig
from distill_jax.tasks.classification.finished_models import RESULTS
from distill_jax.teachers.predictions import LEAST, TOLERANCE, read_predictions

PAGE = (Path(__file__).resolve().parents[2] / "docs/teachers.md").read_text(encoding="utf-8")


def test_its_files_say_the_same(tmp_path):
    one, two = re.findall(r"```csv\n(.*?)```", PAGE, re.S)
    (three,) = re.findall(r"```jsonl\n(.*?)```", PAGE, re.S)
    said = []
    for name, text in (("a.csv", one), ("b.csv", two), ("c.jsonl", three)):
        (tmp_path / name).write_text(text, encoding="utf-8")
        said.append(read_predictions(tmp_path / name))
    wide, top, by_text = said
    assert wide.keys == top.keys and by_text.by == "text"
    for each in said:
        columns = [each.names.index(name) for name in ("neg", "pos")]
        np.testing.assert_allclose(
            np.exp(each.logits(columns, "spread")), [[0.9, 0.1], [0.25, 0.75]], rtol=1e-5
        )


def test_its_commands_are_read():
    lines = re.findall(r"^distill-jax (.*)$", PAGE, flags=re.M)
    assert len(lines) == 8
    for line in lines:
        command, *arguments = shlex.split(line)
        assert command in COMMANDS
        if command == "data":
            assert parse_flags(Data, arguments, "data").ids == Path("ids.csv")
            continue
        args = parse_arguments(arguments, "compare-losses")
        assert sweep_of(args).entries()


def test_its_objectives_are_objectives():
    terms = re.findall(r"`((?:kl|rkd_distance|ce|linear)\([^`]*)`", PAGE)
    assert len(terms) >= 6
    for text in terms:
        assert parse(text)


def test_its_numbers_are_those_of_the_code():
    assert f"within {TOLERANCE:g}" in PAGE and f"below {LEAST:.6f}" in PAGE
    assert "by default\n  (`--teacher-gaps`)" in PAGE
    assert f"{TeacherConfig().most_silent:g} of the training examples" in PAGE
    assert CompareLosses().teacher_gaps == TeacherConfig().most_silent
    assert f"under `{RESULTS}`" in PAGE
