"""docs/data.md: its example is read, its names and endings are those of the code."""

import re
import shlex
from pathlib import Path

import pytest
from image_files import quarters

from distill_jax.cli.main import dispatch
from distill_jax.data.coverage import Coverage, in_words
from distill_jax.data.file_formats import ENDINGS
from distill_jax.data.image_files import ARRAYS, MOST_BYTES, TRAIN, VALIDATION
from distill_jax.data.split_files import STEMS, TEXT
from distill_jax.tasks.classification.cells import DataConfig
from distill_jax.tasks.kinds.kinds import all_names, kind_named

DOC = (Path(__file__).resolve().parents[2] / "docs/data.md").read_text(encoding="utf-8")


def test_the_example_is_read_by_the_command(tmp_path, toy_teacher, monkeypatch, capsys):
    monkeypatch.setenv("DISTILL_JAX_HOME", str(tmp_path / "home"))
    (example,) = re.findall(r"```\n(sentence;label\n.*?)```", DOC, re.S)
    (tmp_path / "data").mkdir()
    for name in ("train", "val", "test"):
        (tmp_path / f"data/{name}.csv").write_text(example)
    (command,) = re.findall(r"```\ndistill-jax (.*)\n```", DOC)
    arguments = command.replace("FOLDER", str(tmp_path / "data")).split()
    unlike = example.replace("film", "book").replace("flat", "thin")
    (tmp_path / "data/train.csv").write_text(unlike)
    dispatch([*arguments, "--teacher", str(toy_teacher)])
    told = capsys.readouterr().out
    assert "classes negative, positive" in told and "a gripping, clever film" in told
    assert "all checks of training passed" in told


def test_the_file_of_images_is_read_by_the_command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    images, labels = quarters(80)
    (code,) = re.findall(r"```python\n(.*?)```", DOC, re.S)
    exec(code, {"images": images, "labels": labels})
    dispatch(["data", "images:own.npz"])
    assert "all checks of training passed" in capsys.readouterr().out
    section = DOC.partition("## Images")[2].partition("\n## ")[0]
    told = {word for row in section.splitlines() for word in re.findall(r"^\| `(\w+)`", row)}
    assert told == set(ARRAYS) and MOST_BYTES == 256 << 20 and "256 MiB" in section
    assert (TRAIN, VALIDATION) == (0.8, 0.9) and "80% train, 10% validation" in section


def test_names_and_endings_are_those_that_are_read():
    tables = [re.findall(r"`([^`]+)`", row) for row in DOC.splitlines() if row.startswith("|")]
    told = {word for row in tables for word in row}
    assert {stem for stems in STEMS.values() for stem in stems} <= told
    assert {ending for ending in ENDINGS if not ending.endswith(".gz")} | {TEXT} <= told


def test_the_line_on_coverage_is_the_programs():
    (line,) = re.findall(r"```\ndata: (texts cut .*)\n```", DOC)
    none = Coverage(0.0, 0.0, 20)
    splits = {"train": Coverage(0.0, 0.001, 20), "validation": none, "test": none}
    assert in_words(splits, 128) == [line]


FORMS = re.findall(r"`(--task [^`]*)`[^`]*?:\n\n```(tsv|csv|jsonl|json|conll)\n(.*?)```", DOC, re.S)


COUNTS = {
    "jsonl": lambda text: len(text.splitlines()),
    "json": lambda text: text.count('"question"'),
    "conll": lambda text: text.count("\n\n") + 1,
}
"""Ending -> how many examples a file has; elsewhere a line each below the first."""


def _lines(text):
    return len(text.splitlines()) - 1


@pytest.mark.parametrize(("flags", "ending", "text"), FORMS)
def test_an_example_of_every_form_is_read(flags, ending, text, tmp_path):
    words = shlex.split(flags)
    given = dict(zip(words[::2], words[1::2], strict=True))
    named = {flag[2:].replace("-", "_"): value for flag, value in given.items()}
    for split in ("train", "dev", "test"):
        (tmp_path / f"{split}.{ending}").write_text(text)
    data = DataConfig(f"files:{tmp_path}", **named)
    dataset = data.kind.load(data)
    assert len(dataset.splits["train"]) == COUNTS.get(ending, _lines)(text)
    words = dataset.splits["train"].texts[0].split()
    assert all(word.strip("@#") in text for word in words)
    assert (dataset.splits["test"].labels_N >= 0).all()


def test_every_kind_of_task_has_a_row_and_an_example():
    assert {shlex.split(flags)[1] for flags, *_ in FORMS} == set(all_names())
    rows = dict(re.findall(r"^\| `(\w+)` \| .* \| ([^|]*) \|$", DOC, re.M))
    for name in all_names():
        words = re.findall(r"`(\w+)`", rows[name])
        assert words and {kind_named(name).metric_of(word) for word in words}
        assert words[0] == next(iter(kind_named(name).decides))
