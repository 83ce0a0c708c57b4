"""However a table is trained, it is the same table; and it is compiled once a group."""

import json
import shutil

import numpy as np
import pytest
from digit_tables import Runner, digit_sweep

from distill_jax.core.memory import drop_programs
from distill_jax.engine import programs, strategies
from distill_jax.engine import run as run_module
from distill_jax.engine.cell import Train
from distill_jax.engine.engine import Engine
from distill_jax.engine.sweep import Sweep, axis, points
from distill_jax.tables.ledger import Ledger
from distill_jax.training.interrupt import Interrupted

SWEEP = digit_sweep(
    ["ce", "0.5*ce + 0.5*kl(T=2)", "0.9*ce + 0.1*kl(T=8)"],
    axis("training.optimizer.learning_rate", [5e-3, 2e-3]),
    steps=12,
    seeds=(0, 1),
    layout="grid",
)


@pytest.fixture
def run(home, tmp_path, monkeypatch):
    """See ``Runner``; in an empty folder."""
    monkeypatch.setenv("DISTILL_JAX_HOME", str(home))
    return Runner(tmp_path, monkeypatch)


@pytest.fixture(scope="module")
def usual(home, tmp_path_factory):
    """The folder and the rows of the table, trained in populations."""
    root = tmp_path_factory.mktemp("usual")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DISTILL_JAX_HOME", str(home))
        return root / "out", Runner(root, patch)(SWEEP, "out", "vmap")


def scores(rows):
    keys = ("validation/accuracy", "test/nll", "test/kl_to_teacher")
    return {place: [row.metrics[key] for key in keys] for place, row in rows.items()}


def assert_same(rows, others, tolerance):
    first, second = scores(rows), scores(others)
    assert first.keys() == second.keys()
    for place in first:
        np.testing.assert_allclose(first[place], second[place], rtol=tolerance, atol=tolerance)


def test_all_strategies_give_one_table(run, tmp_path, monkeypatch, nothing_compiled):
    """Own data orders, two structures, eight devices for the sharded population."""
    monkeypatch.setenv("DISTILL_JAX_HOME", str(tmp_path / "home"))
    alone = run(SWEEP, "sequential", "sequential")
    assert run.engine.compilations == 1 + 2  # the teacher, ce, ce + kl
    together = run(SWEEP, "vmap", "vmap")
    assert run.engine.compilations == 2  # the teacher is there already
    assert_same(alone, together, 2e-3)
    sharded = run(SWEEP, "sharded", "sharded", devices=8)
    assert_same(together, sharded, 2e-3)
    assert not list((run.engine.folder / strategies.POPULATIONS).glob("*/crew.json"))


def test_groups_of_populations_are_cut_into_crews_of_one_size(
    run, usual, monkeypatch, nothing_compiled
):
    monkeypatch.setattr(strategies, "MAX_MEMBERS", 3)
    cut = run(SWEEP, "cut", "vmap")
    assert run.engine.compilations == 2
    assert_same(usual[1], cut, 2e-3)
    crews = strategies._cut([str(number) for number in range(10)], "vmap")
    assert [len(crew.hashes) for crew in crews] == [3, 3, 3, 1]
    assert {crew.size for crew in crews} == {3}


def test_students_of_teachers_of_several_shapes_are_groups_of_their_own(run):
    teachers = axis("teacher.name", ["cnn-4-8", "cnn-4-8-8"])
    sweep = digit_sweep(["kl"], teachers, steps=2, seeds=(0, 1))
    assert len(run(sweep, "shapes", "vmap")) == 4


def test_a_stage_before_in_a_population(run):
    """The first stage's end is the second one's start, in either strategy."""
    before = Train("mse_logits", SWEEP.base.training)
    stages = points(
        {
            "ce": {"objective": "ce"},
            "mse, then kl": {"objective": "kl", "intermediate": before},
        }
    )
    sweep = Sweep(**(vars(SWEEP) | {"rows": stages, "groups": SWEEP.groups[:1]}))
    alone = run(sweep, "sequential", "sequential")
    together = run(sweep, "vmap", "vmap")
    assert_same(alone, together, 2e-3)
    other = Sweep(**(vars(sweep) | {"rows": points({"ce": {"objective": "kl"}})}))
    plain = run(other, "plain", "sequential")
    mixed = next(row for place, row in alone.items() if place[0] == "mse, then kl")
    assert all(row.metrics["test/nll"] != mixed.metrics["test/nll"] for row in plain.values())


def test_a_stopped_population_goes_on_to_the_very_same_table(
    run, usual, tmp_path, nothing_compiled
):
    class Impatient(Engine):
        """Asked to stop after its seventh step of a population."""

        def population_step(self, *args):
            step = super().population_step(*args)
            if not hasattr(self, "_calls"):
                self._calls, make = 0, step._compile

                def compile_stopping(state):
                    jitted, second = make(state)
                    assert second is None, "members take whole steps"

                    def stopping(*arguments):
                        self._calls += 1
                        self.stop.requested |= self._calls == 7
                        return jitted(*arguments)

                    return stopping, None

                step._compile = compile_stopping
            return step

    with pytest.raises(Interrupted):
        run(SWEEP, "disturbed", "vmap", make=Impatient)
    crews = list((tmp_path / "disturbed/runs/populations").glob("*/crew.json"))
    assert len(crews) == 2
    again = run(SWEEP, "disturbed", "vmap")
    assert scores(again) == scores(usual[1])
    assert again.keys() == usual[1].keys()


def test_finished_members_are_not_written_twice(run, usual, tmp_path):
    shutil.copytree(usual[0], tmp_path / "out")
    ledger = tmp_path / "out/ledger.jsonl"
    before = ledger.read_text()
    run(SWEEP, "out", "auto")
    assert ledger.read_text() == before
    assert "12 of 12 runs are finished already" in run.said


def test_auto_times_both_and_keeps_its_choice(run, tmp_path):
    rows = run(SWEEP, "out", "auto")
    assert "a step of a student takes: sequential" in run.said
    choices = json.loads((tmp_path / "out/runs/populations/choices.json").read_text())
    assert len(choices) == 2
    assert set(choices.values()) <= {"sequential", "vmap"}
    assert_same(rows, run(SWEEP, "other", "sequential"), 2e-3)


def test_a_member_that_diverges_does_not_take_the_others_along(run, tmp_path):
    wild = axis("training.optimizer.learning_rate", {"calm": 5e-3, "wild": 1e38})
    sweep = Sweep(**(vars(SWEEP) | {"groups": wild, "rows": SWEEP.rows[:1]}))
    with pytest.raises(run_module.UserError, match=r"wild.*not finite"):
        run(sweep, "out", "vmap")
    done = [row for row in Ledger(tmp_path / "out/ledger.jsonl").rows() if row.row == "ce"]
    assert {row.group for row in done} == {"calm"}
    assert len(done) == 2


def test_programs_that_fill_the_memory_are_dropped_between_structures(
    run, usual, monkeypatch, nothing_compiled
):
    """As where a table has dozens of objectives."""
    dropped = []
    monkeypatch.setattr(programs, "many_programs", lambda: True)
    monkeypatch.setattr(programs, "drop_programs", lambda: dropped.append(drop_programs()))
    again = run(SWEEP, "dropped", "vmap")
    assert len(dropped) == 2
    assert run.engine.compilations == 2
    assert_same(usual[1], again, 0.0)
