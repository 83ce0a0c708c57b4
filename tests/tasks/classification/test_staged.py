"""Several stages as one text: read, cut into steps, trained, gone on with."""

import io
import itertools
from functools import partial
from typing import ClassVar

import jax
import numpy as np
import pytest
from rich.console import Console

from distill_jax.cli.compare import sweep_of
from distill_jax.core.errors import UserError
from distill_jax.core.mesh import make_mesh
from distill_jax.engine import run as run_module
from distill_jax.engine.cell import Train
from distill_jax.engine.engine import Engine
from distill_jax.engine.progress import Reporter
from distill_jax.engine.run import run_table
from distill_jax.tasks.classification.cells import TrainingConfig
from distill_jax.tasks.classification.finished import cell_of
from distill_jax.tasks.classification.staged import (
    canonical,
    expanded,
    layer_by_layer,
    parse_stages,
)
from distill_jax.tasks.classification.table import Classification
from distill_jax.training.interrupt import Interrupted

THREE = "hidden_mse(layers={1: 1}) for 0.25 -> hidden_mse for 0.25 freezing '^embeddings/' -> kl"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("kl", "kl"),
        (" 0.5*kl+ce ->kl(T=2) ", "0.5*kl + ce -> kl(T=2)"),
        ("hidden_mse for 0.25 freezing classifier -> kl", None),
        (THREE, THREE),
        ("kl freezing 'a b' -> ce", "kl freezing 'a b' -> ce"),
    ],
)
def test_texts_have_one_form(text, expected):
    expected = expected or "hidden_mse for 0.25 freezing 'classifier' -> kl"
    assert canonical(text) == expected
    assert canonical(expected) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kl ->", "the objective is empty"),
        ("kll -> ce", "Did you mean 'kl'"),
        ("kl for 2 -> ce", r"share of the steps in \(0, 1\], not 2"),
        ("kl for ever -> ce", "not ever"),
        ("kl for 1 -> ce", "leave no steps to the others"),
        ("kl for 0.5 -> ce for 0.4", "come to 0.9, not to 1"),
        ("kl for 0.5", "one stage takes all steps"),
    ],
)
def test_mistakes_are_named(text, message):
    with pytest.raises(UserError, match=message) as told:
        parse_stages(text)
    assert "\n" not in str(told.value)


def test_stages_share_the_steps_of_a_row():
    stages = expanded(Train("hidden_mse for 0.3 -> sp -> kl", TrainingConfig(steps=7)))
    assert [stage.training.steps for stage in stages] == [2, 3, 2]
    assert [stage.objective for stage in stages] == ["hidden_mse", "sp", "kl"]
    by_epochs = expanded(Train("sp for 0.25 -> kl", TrainingConfig(epochs=8, min_steps=40)))
    assert [stage.training.total_steps(640) for stage in by_epochs] == [20, 60]
    with pytest.raises(UserError, match="1 steps are too few for 2 stages"):
        expanded(Train("sp -> kl", TrainingConfig(steps=1)))


def test_layer_by_layer_freezes_what_is_below():
    stages = parse_stages(layer_by_layer([(1, 3), (2, 6)]))
    assert [stage.objective for stage in stages] == [
        "hidden_mse(layers={1: 3})",
        "hidden_mse(layers={2: 6})",
        "kl",
    ]
    assert [stage.share for stage in stages] == [0.25, 0.25, None]
    assert [stage.frozen for stage in stages] == ["", "^(embeddings|layer_1)/", ""]


def run(args, folder, strategy="sequential"):
    out = io.StringIO()
    task = Classification(sweep_of(args))
    _, rows = run_table(
        task, folder, Reporter(Console(file=out, width=200)), track="none", strategy=strategy
    )
    return rows, task


def numbers(rows):
    return {
        (row.row, row.seed): {k: v for k, v in row.metrics.items() if not k.startswith("latency/")}
        for row in rows
    }


@pytest.fixture
def world(small_table):
    return partial(small_table, objectives=(THREE,), seeds=(0, 1), steps=8, max_length=16)


class Watched(Engine):
    """Keeps where each stage started and ended."""

    ends: ClassVar[list] = []

    def train(self, work, params, **given):
        result = super().train(work, params, **given)
        if given["label"].startswith("["):
            Watched.ends.append((work, jax.device_get(params), jax.device_get(result.params)))
        return result


@pytest.mark.long
def test_three_stages_alone_together_and_after_a_stop(world, tmp_path, monkeypatch):
    Watched.ends = []
    mesh = make_mesh(jax.devices()[:1])
    with monkeypatch.context() as patched:
        patched.setattr(run_module, "Engine", partial(Watched, mesh=mesh))
        rows, _ = run(world(), tmp_path / "alone")
    stages = Watched.ends[:3]
    assert [work.steps for work, *_ in stages] == [2, 2, 4]
    assert [work.prefix for work, *_ in stages] == ["intermediate-", "intermediate-2-", ""]
    for (_, _, end), (_, start, _) in itertools.pairwise(stages):
        jax.tree.map(np.testing.assert_array_equal, end, start)
    frozen = [
        np.array_equal(
            start["embeddings"]["word"]["embedding"], end["embeddings"]["word"]["embedding"]
        )
        for _, start, end in stages
    ]
    assert frozen == [False, True, False]

    row = rows[1]
    assert [stage["objective"] for stage in row.config["intermediate"]] == [
        "hidden_mse(layers={1: 1})",
        "hidden_mse",
    ]
    assert cell_of(row).hash == row.hash
    assert not [
        p for p in (tmp_path / "alone/runs" / row.hash).iterdir() if "intermediate" in p.name
    ]

    together, _ = run(world(), tmp_path / "together", "vmap")
    for place, found in numbers(together).items():
        assert found["test/nll"] == pytest.approx(numbers(rows)[place]["test/nll"], rel=2e-3)

    class Impatient(Engine):
        runs = 0

        def train(self, *args, **given):
            Impatient.runs += 1
            if Impatient.runs in (2, 3):  # in the second stage of the first run, in its third
                self.stop.requested = True
            return super().train(*args, **given)

    with monkeypatch.context() as patched:
        patched.setattr(run_module, "Engine", partial(Impatient, mesh=mesh))
        for _ in range(2):
            with pytest.raises(Interrupted):
                run(world(), tmp_path / "disturbed")
    again, _ = run(world(), tmp_path / "disturbed")
    assert numbers(again) == numbers(rows)
