"""Toy texts with a number and several labels each, and a table of them in small."""

import csv
import dataclasses
import random
from functools import partial

import jax
import pytest
from toys import WORDS

from distill_jax.cli.compare_flags import CompareLosses, parse_arguments
from distill_jax.core.mesh import make_mesh
from distill_jax.engine import run as run_module
from distill_jax.engine.engine import Engine

SIZES = {"train": 60, "dev": 24, "test": 30}


@pytest.fixture(scope="session")
def toy_tasks(tmp_path_factory):
    """A folder with columns sentence, second, rating (good less bad), moods, relation."""
    folder = tmp_path_factory.mktemp("toy") / "tasks"
    folder.mkdir()
    rng = random.Random(3)
    for split, size in SIZES.items():
        with open(folder / f"{split}.csv", "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["sentence", "second", "rating", "moods", "relation"])
            for number in range(size):
                words = rng.choices(WORDS, k=number % 6 + 3)
                rating = 50 + 10 * (words.count("good") - words.count("bad"))
                moods = [w for w in ("good", "bad", "music") if w in words]
                relation = ("same", "other", "none")[number % 3]
                writer.writerow(
                    [f"{' '.join(words)} {split} {number}", " ".join(words[::-1]), rating,
                     "|".join(moods) or "|", relation]
                )  # fmt: skip
    return folder


@pytest.fixture
def small(toy_teacher, toy_tasks, tmp_path, monkeypatch):
    """(flags of the command line, changes) -> arguments of a small table, on one device."""
    monkeypatch.setenv("DISTILL_JAX_HOME", str(tmp_path / "home"))
    one_device = partial(Engine, mesh=make_mesh(jax.devices()[:1]))
    monkeypatch.setattr(run_module, "Engine", one_device)

    def arguments(*flags: str, **changes) -> CompareLosses:
        given = parse_arguments(["--data", f"files:{toy_tasks}", *flags], "test")
        usual = {
            "teacher": (str(toy_teacher),),
            "label_fraction": 0.5,
            "students": ("1x8x2",),
            "seeds": (0,),
            "steps": 6,
            "evaluations": 2,
            "batch_size": 16,
            "teacher_batch_size": 16,
            "teacher_epochs": 1,
            "teacher_learning_rate": 1e-4,
            "max_shapes": 1,
            "max_length": 16,
            "yardsticks": False,
            "track": "none",
        }
        return dataclasses.replace(given, **{**usual, **changes})

    return arguments
