"""docs/running.md names what there is."""

import dataclasses
import re
from pathlib import Path

from distill_jax.cli import teacher_training
from distill_jax.cli.compare import CompareLosses
from distill_jax.tasks.classification.teacher_rates import in_short

ROOT = Path(__file__).resolve().parents[2]
RUNNING = (ROOT / "docs/running.md").read_text(encoding="utf-8")
SOURCES = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "distill_jax").rglob("*.py"))


def test_scripts_and_experiments_exist():
    paths = set(re.findall(r"(?:tools|experiments)/[\w/]+\.(?:sh|py)", RUNNING))
    assert len(paths) >= 7
    assert [path for path in paths if not (ROOT / path).is_file()] == []
    assert {path.name for path in (ROOT / "tools/launch").glob("*.sh")} - {"common.sh"} <= {
        Path(path).name for path in paths
    }


def test_tables_have_rows_of_one_width():
    tables = re.findall(r"(?:^\|.*\n)+", RUNNING, flags=re.MULTILINE)
    for table in tables:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1
    assert len(tables) > 3


def test_the_messages_that_it_explains_are_messages():
    """Of the table of failures: literal pieces of what is quoted stand in the code."""
    table = RUNNING.partition("| what you see |")[2].partition("\n## ")[0]
    rows = [line for line in table.splitlines()[2:] if line.startswith("|")]
    theirs = {"Killed", "No space left on device", "Permission denied", "Read-only file system"}
    code = re.sub(r'"\s*\n\s*f?"', "", SOURCES)
    assert len(rows) > 15
    for row in rows:
        for quoted in re.findall(r"`([^`]+)`", row.split("|")[1]):
            pieces = re.split(r"\.{3}|ledger.jsonl:7| -> |part 2/8|: ", quoted)
            for piece in (piece.strip(" :") for piece in pieces):
                assert not piece or piece in theirs | {"old", "new"} or piece in code, piece


def test_the_length_of_the_teachers_fine_tuning_is_what_the_flags_stand_for():
    said = " ".join(RUNNING.split())
    assert f"it takes {teacher_training.MIN_STEPS} steps at least" in said
    assert f"where that is {teacher_training.RATES_WITHIN:,} steps at most" in said
    assert "at {} and at {}".format(*map(in_short, teacher_training.RATES)) in said
    assert (teacher_training.EVALUATIONS, teacher_training.PATIENCE) == (10, 3)
    assert "looks at validation ten times and ends when three looks in a row" in said
    flags = {f"teacher_{name}" for name in re.findall(r"`--teacher-([a-z-]+)`", RUNNING)}
    known = {field.name for field in dataclasses.fields(CompareLosses)}
    assert {flag.replace("-", "_") for flag in flags} <= known and len(flags) >= 5
