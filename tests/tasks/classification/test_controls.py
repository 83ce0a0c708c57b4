"""Control rows, and teachers and labels of several seeds, from end to end in small."""

import dataclasses
import io
from functools import partial

import jax
import numpy as np
import pytest
from rich.console import Console

from distill_jax.cli.compare import CompareLosses, sweep_of
from distill_jax.cli.controls import CHOSEN, LABELLED, PLACEBO, PSEUDO
from distill_jax.core.errors import UserError
from distill_jax.core.mesh import make_mesh
from distill_jax.engine import run as run_module
from distill_jax.engine.engine import Engine
from distill_jax.engine.progress import Reporter
from distill_jax.engine.run import run_table
from distill_jax.engine.sweep import axis, points
from distill_jax.tables.build import table_of
from distill_jax.tables.markdown import to_markdown
from distill_jax.tables.outputs import load_results, write_outputs
from distill_jax.tasks.classification.table import Classification
from distill_jax.training.interrupt import Interrupted

ONE_DEVICE = partial(Engine, mesh=make_mesh(jax.devices()[:1]))


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A teacher that one test fine-tuned serves the others."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture
def world(small_table, home, monkeypatch):
    """(changes) -> arguments of a small table, see ``small_table``."""
    monkeypatch.setenv("DISTILL_JAX_HOME", str(home))
    return partial(small_table, controls=True, steps=8)


def run(args, folder, strategy="sequential"):
    sweep = sweep_of(args) if isinstance(args, CompareLosses) else args
    out = io.StringIO()
    reporter = Reporter(Console(file=out, width=200))
    spec, rows = run_table(Classification(sweep), folder, reporter, track="none", strategy=strategy)
    return spec, rows, out.getvalue()


def by_place(spec, rows):
    by_hash = {row.hash: row for row in rows}
    return {place.where: by_hash[place.hash] for place in spec.places}


def numbers(spec, rows):
    """What a run must reproduce: everything measured but times."""
    return {
        where: {key: x for key, x in row.metrics.items() if not key.startswith("latency/")}
        for where, row in by_place(spec, rows).items()
    }


@pytest.mark.long
def test_the_controls_from_end_to_end_alone_and_together(world, tmp_path):
    spec, rows, _ = run(world(), tmp_path / "alone")
    table = table_of(spec, rows)
    assert [row.row for row in table.students] == ["ce", "kl", CHOSEN, LABELLED, PSEUDO, PLACEBO]
    assert all(len(row.runs) == 2 for row in table.students)
    assert len({p.candidate for p in spec.places if p.row == CHOSEN}) == 9

    runs = by_place(spec, rows)
    steps = {
        row: [runs[row, "1x8x2", seed, ""].history[-1]["step"] for seed in (0, 1)]
        for row in ("ce", "kl", LABELLED, PSEUDO, PLACEBO)
    }
    assert set(map(tuple, steps.values())) == {(8, 8)}
    own = runs[CHOSEN, "1x8x2", 0, "rate 0.001, 8 steps"]
    assert own.hash == runs["ce", "1x8x2", 0, ""].hash  # its own setting is among them
    means = {
        name: np.mean(
            [runs[CHOSEN, "1x8x2", s, name].metrics["validation/accuracy"] for s in (0, 1)]
        )
        for name in {p.candidate for p in spec.places if p.row == CHOSEN}
    }
    chosen = next(row for row in table.students if row.row == CHOSEN)
    assert np.mean(
        [run.metrics["validation/accuracy"] for run in chosen.runs.values()]
    ) == pytest.approx(max(means.values()))
    assert "of 9 settings the best by mean validation/accuracy" in table.notes[-1]

    nll = {row: runs[row, "1x8x2", 0, ""].metrics["test/nll"] for row in steps}
    assert len(set(nll.values())) == 5  # no control is another row under a new name

    write_outputs(table_of(spec, rows), tmp_path / "alone")
    again = load_results(tmp_path / "alone")
    assert to_markdown(table_of(*again)) == to_markdown(table)
    trends = (tmp_path / "alone/trends.md").read_text().splitlines()
    assert len(trends) == 2 + 6
    assert "kl, no transfer set − ce" in trends[2] and "kl − kl, no transfer set" in trends[3]
    page = (tmp_path / "alone/report.html").read_text()
    assert "not finished" not in page
    assert "ECE % (T fitted)" in (tmp_path / "alone/table.md").read_text()

    together = run(world(), tmp_path / "together", "vmap")
    alone = numbers(spec, rows)
    for where, found in numbers(*together[:2]).items():
        assert found["test/nll"] == pytest.approx(alone[where]["test/nll"], rel=2e-3), where


@pytest.mark.long
def test_the_controls_go_on_after_a_stop(world, tmp_path, monkeypatch):
    few = world(seeds=(0,))
    undisturbed = numbers(*run(few, tmp_path / "undisturbed")[:2])

    class Impatient(Engine):
        runs = 0

        def train(self, *args, **kwargs):
            Impatient.runs += 1
            if Impatient.runs in (3, 9):
                self.stop.requested = True
            return super().train(*args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(run_module, "Engine", partial(Impatient, mesh=make_mesh(jax.devices()[:1])))
        for _ in range(2):
            with pytest.raises(Interrupted):
                run(few, tmp_path / "disturbed")
    spec, rows, said = run(few, tmp_path / "disturbed")
    assert "0 of 13 runs" not in said
    assert numbers(spec, rows) == undisturbed


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"objectives": ("ce", "mse_logits")}, "held against ce and kl: kl is no objective here"),
        ({"objectives": ("kl",), "baseline": "kl"}, "ce is no objective here"),
        ({"objectives": ("ce", "kl", "pseudo_ce")}, "leave it out of --objectives"),
        ({"steps": 0}, "say how many with --steps"),
    ],
)
def test_controls_need_something_to_be_held_against(world, changes, message):
    with pytest.raises(UserError, match=message) as told:
        sweep_of(world(**changes))
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("objective", "message"),
    [("ce", "listens to no teacher"), ("hidden_mse + kl", "this objective reads more")],
)
def test_a_placebo_that_makes_no_sense_is_refused_before_anything_is_trained(
    world, tmp_path, objective, message
):
    sweep = sweep_of(world(controls=False))
    rows = points({"ce": {"objective": "ce"}, "x": {"objective": objective, "placebo": True}})
    wrong = dataclasses.replace(sweep, rows=rows)
    with pytest.raises(UserError, match=message):
        run(wrong, tmp_path / "out")
    assert not list((tmp_path / "out").rglob("*.safetensors"))


def only_kl(world, **changes):
    return world(**{"controls": False, "seeds": (0, 1, 2), **changes})


def test_teachers_and_labels_of_several_seeds(world, tmp_path):
    spec, rows, _ = run(
        only_kl(world, teacher_seeds=(0, 7), label_seeds=(0, 1, 2)), tmp_path / "out"
    )
    runs = by_place(spec, rows)
    for row in ("ce", "kl"):
        settings = [runs[row, "1x8x2", seed, ""].settings() for seed in (0, 1, 2)]
        assert [each["teacher.seed"] for each in settings] == [0, 7, 0]
        assert [each["data.label_seed"] for each in settings] == [0, 1, 2]
    prints = [runs["kl", "1x8x2", seed, ""].fingerprints for seed in (0, 1, 2)]
    assert len({each["teacher"] for each in prints}) == 3
    assert len({each["data"] for each in prints}) == 3
    assert len({each["tokens"] for each in prints}) == 1  # validation and test stay

    table = table_of(spec, rows)
    (teacher,) = table.teachers
    assert (teacher.row, teacher.group, len(teacher.runs)) == ("teacher", "model", 3)
    scores = [run.metrics["test/accuracy"] for run in teacher.runs.values()]
    assert teacher.entries["test/accuracy"].summary.mean == pytest.approx(np.mean(scores))
    assert f"{100 * np.mean(scores):.1f} ± {100 * np.std(scores, ddof=1):.1f}" in (
        to_markdown(table)
    )
    assert table.spec.protocol[-1] == (
        "Each seed has, in turn, one of 2 teachers (seeds 0, 7) and one of 3 draws of the labels "
        "(seeds 0, 1, 2)."
    )
    write_outputs(table_of(spec, rows), tmp_path / "out")


def test_by_default_one_teacher_and_one_draw_as_ever(world, tmp_path):
    spec, rows, _ = run(only_kl(world), tmp_path / "default")
    same, others, said = run(
        only_kl(world, teacher_seeds=(0,), label_seeds=(0,)), tmp_path / "default"
    )
    assert same == spec and others == rows
    assert "6 of 6 runs are finished already" in said
    assert spec.protocol[-1] == (
        "One teacher (seed 0) and one draw of the labels for all seeds: the intervals do not cover "
        "another teacher or other labels."
    )
    (place,) = spec.teachers
    assert (place.row, place.group, place.seed) == ("teacher", "model", 0)


def test_another_teacher_seed_is_another_teacher_on_the_same_labels(world, tmp_path):
    spec, rows, _ = run(only_kl(world, seeds=(0,), teacher_seeds=(1,)), tmp_path / "out")
    kl = by_place(spec, rows)["kl", "1x8x2", 0, ""]
    assert spec.protocol[-1].startswith("One teacher (seed 1) and one draw of the labels")
    spec, rows, _ = run(only_kl(world, seeds=(0,)), tmp_path / "other")
    twin = by_place(spec, rows)["kl", "1x8x2", 0, ""]
    assert kl.fingerprints["data"] == twin.fingerprints["data"]
    assert kl.fingerprints["teacher"] != twin.fingerprints["teacher"]
    assert kl.fingerprints["pretrained"] != twin.fingerprints["pretrained"]  # a head of its own


def test_teachers_of_groups_and_seeds_are_a_row_a_group(world, tmp_path):
    sweep = sweep_of(only_kl(world, teacher_seeds=(0, 1), seeds=(4, 5)))
    groups = axis("data.label_fraction", {"half": 0.5, "all": 1.0})
    spec, rows, _ = run(dataclasses.replace(sweep, groups=groups_of(sweep, groups)), tmp_path)
    assert [(p.row, p.group, p.seed) for p in spec.teachers] == [
        ("teacher", "half", 4),
        ("teacher", "half", 5),
        ("teacher", "all", 4),
        ("teacher", "all", 5),
    ]
    assert [len(row.runs) for row in table_of(spec, rows).teachers] == [2, 2]


def groups_of(sweep, fractions):
    """The sweep's one student with each of the fractions."""
    (student,) = sweep.groups
    return tuple(
        dataclasses.replace(point, changes=(*student.changes, *point.changes))
        for point in fractions
    )


def test_where_all_labels_are_used_no_draw_can_differ(world, tmp_path):
    with pytest.raises(UserError, match="all labels are used, as they are"):
        run(only_kl(world, label_fraction=1.0, label_seeds=(0, 1)), tmp_path / "out")
    spec, _, _ = run(only_kl(world, label_fraction=1.0), tmp_path / "all")
    assert spec.protocol[-1] == (
        "One teacher (seed 0) for all seeds: the intervals do not cover another teacher."
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"teacher_seeds": (1, 1)}, "teacher seeds repeat"),
        ({"label_seeds": (1, 1)}, "label seeds repeat"),
        ({"teacher_seeds": (-1,)}, "teacher seeds are from 0"),
        ({"label_seeds": (2**32,)}, "label seeds are from 0"),
        ({"teacher_seeds": (1,), "fine_tune": False}, "used as it came has no seed"),
    ],
)
def test_seeds_that_cannot_be(world, changes, message):
    with pytest.raises(UserError, match=message):
        sweep_of(only_kl(world, **changes)).entries()
