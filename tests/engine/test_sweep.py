"""A table as an object, and every table that the experiments declare."""

from pathlib import Path

import pytest
from scripts import SCRIPTS, module_at

from distill_jax.cli.experiment import Flags
from distill_jax.core.errors import UserError
from distill_jax.engine.cell import Cell, Train, changed
from distill_jax.engine.sweep import (
    Override,
    Point,
    Sweep,
    axis,
    points,
    product,
    zipped,
)
from distill_jax.models.bert import BertConfig
from distill_jax.models.build import teacher_family
from distill_jax.models.family import ModelConfig
from distill_jax.objectives.resolve import resolve
from distill_jax.tables.columns import ACCURACY
from distill_jax.tables.published import load_published
from distill_jax.tables.spec import Place, TableSpec
from distill_jax.tasks.classification.cells import (
    ClassifierSetup,
    DataConfig,
    TeacherConfig,
    TrainingConfig,
)
from distill_jax.tasks.classification.models import check_student, load_checkpoint

EXPERIMENTS = Path(__file__).resolve().parents[2] / "experiments"
BASE = Cell(
    ClassifierSetup(data=DataConfig(), teacher=TeacherConfig(), student="tiny"),
    (Train("ce", TrainingConfig()),),
)
MINILM = BertConfig(30522, 384, 6, 12, 1536, pooling="mean")


def small(**changes):
    fields = dict(
        name="small",
        title="t",
        base=BASE,
        rows=axis("objective", ["ce", "kl(T=4)"]),
        groups=axis("student", ["tiny", "l2"]),
        seeds=(0, 1),
        baseline="ce",
        columns=(ACCURACY,),
    )
    return Sweep(**(fields | changes))


def test_rows_by_groups_by_seeds():
    entries = small().entries()
    assert len(entries) == 8
    assert [(e.row, e.group, e.cell.seed) for e in entries[:3]] == [
        ("ce", "tiny", 0),
        ("ce", "tiny", 1),
        ("kl(T=4)", "tiny", 0),
    ]
    assert entries[-1].cell.setup.student == "l2"
    assert entries[-1].cell.objective == "kl(T=4)"


def test_axes_combine():
    fractions = axis("data.label_fraction", {"few": 0.1, "all": 1.0})
    rates = axis("training.optimizer.learning_rate", [1e-3, 2e-3])
    crossed = product(fractions, rates)
    assert [point.label for point in crossed] == [
        "few, 0.001",
        "few, 0.002",
        "all, 0.001",
        "all, 0.002",
    ]
    paired = zipped(fractions, rates)
    assert [point.label for point in paired] == ["few, 0.001", "all, 0.002"]
    cell = changed(BASE, paired[1].changes)
    assert (cell.setup.data.label_fraction, cell.training.optimizer.learning_rate) == (1.0, 2e-3)
    both = points({"x": {"student": "l2", "layers": "first"}})
    assert changed(BASE, both[0].changes).setup.layers == "first"
    with pytest.raises(UserError, match="2, 1 points"):
        zipped(fractions, rates[:1])


def with_candidates(**changes):
    rates = axis("training.optimizer.learning_rate", {"slow": 1e-4, "fast": 1e-2})
    lengths = axis("training.steps", {"short": 5, "long": 50})
    chosen = Point("ce, chosen", (("objective", "ce"),), product(rates, lengths))
    return small(rows=(*axis("objective", ["ce", "kl"]), chosen), **changes)


def test_all_settings_that_are_chosen_from_are_cells_of_their_row():
    entries = [e for e in with_candidates().entries() if e.candidate]
    assert len(entries) == 2 * 4 * 2
    assert {e.row for e in entries} == {"ce, chosen"}
    assert [e.candidate for e in entries[:8:2]] == [
        "slow, short",
        "slow, long",
        "fast, short",
        "fast, long",
    ]
    assert entries[0].label == "ce, chosen: slow, short"
    training = entries[2].cell.training
    assert (training.optimizer.learning_rate, training.steps) == (1e-4, 50)
    fixed = Override((("training.steps", 7),), row="ce, chosen")
    overridden = with_candidates(overrides=(fixed,)).entries()
    assert {e.cell.training.steps for e in overridden if e.candidate} == {7}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (Point("ce", candidates=axis("seed", ["1"])), "one candidate"),
        (Point("ce", candidates=(Point("a"), Point("a"))), "names of their own"),
        (Point("ce", candidates=(Point("a"), Point(""))), "names of their own"),
        (
            Point("ce", candidates=(Point("a", candidates=axis("seed", ["1", "2"])), Point("b"))),
            "candidate cannot have",
        ),
    ],
)
def test_settings_to_choose_from_need_names(row, message):
    with pytest.raises(UserError, match=message):
        small(rows=(row,))
    with pytest.raises(UserError, match="students of a table cannot have candidates"):
        small(groups=(Point("tiny", candidates=(Point("a"), Point("b"))),))


def test_overrides_come_last():
    override = Override((("student", "l3"),), row="ce")
    students = {
        (e.row, e.group): e.cell.setup.student for e in small(overrides=(override,)).entries()
    }
    assert students["ce", "tiny"] == students["ce", "l2"] == "l3"
    assert students["kl(T=4)", "l2"] == "l2"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rows": axis("objectiv", ["ce"])}, "Did you mean 'objective'"),
        ({"rows": axis("data.label_fractoin", {"ce": 0.1})}, "Did you mean 'label_fraction'"),
        ({"baseline": "kl"}, "baseline"),
        ({"seeds": ()}, "no seeds"),
        ({"seeds": (1, 1)}, "seeds repeat"),
        ({"seeds": (-1,)}, "from 0 to"),
        ({"rows": axis("objective", ["ce", "ce"])}, "repeat"),
        ({"overrides": (Override((), row="kl"),)}, "row in an override"),
    ],
)
def test_mistakes_in_a_declaration(changes, message):
    with pytest.raises(UserError, match=message):
        small(**changes).entries()


def declared(path):
    """A script's sweeps as a function of its flags, and the form of those."""
    module = module_at(path)
    form = getattr(module, SCRIPTS[path.stem]) if path.stem in SCRIPTS else Flags
    return getattr(module, "declare", None), form


def check_declared(cell):
    """Its student suits its teacher, its objectives suit both."""
    teacher: ModelConfig = MINILM
    if teacher_family(cell.setup.teacher.name).reads == "images":
        teacher = load_checkpoint(cell.setup.teacher.name, num_labels=10, fresh=True).config
    student, kind = check_student(cell, teacher), cell.setup.kind
    labels = kind.outputs if cell.setup.data.task != "intent_slots" else None
    if labels is None:  # its outputs are known when its labels are
        return
    teachers = [teacher.shape] * len(cell.setup.teachers)
    for objective in cell.objectives:
        assert resolve(objective, student.shape, teachers, labels).terms


@pytest.mark.parametrize("preset", ["default", "smoke"])
@pytest.mark.parametrize("path", sorted(EXPERIMENTS.glob("*.py")), ids=lambda path: path.stem)
def test_every_declared_cell_can_be_built(path, preset):
    """Objectives fit their models, students their teachers, trends their table."""
    declare, form = declared(path)
    if declare is None:
        pytest.skip("declares no sweep of its own")
    made = declare(form(preset=preset))
    for sweep in [made] if isinstance(made, Sweep) else made:
        entries = sweep.entries()
        if sweep.group_title == "student":
            students = {(entry.group, entry.cell.setup.student) for entry in entries}
            assert len(students) == len(sweep.groups) == len({each for _, each in students})
        cells = {entry.cell for entry in entries if entry.cell.seed == entries[0].cell.seed}
        for cell in [cell for cell in cells if isinstance(cell.setup, ClassifierSetup)]:
            check_declared(cell)
        places = [Place(*e.where[:3], repr(e.cell), e.candidate) for e in entries]
        spec = sweep.spec(places)
        assert TableSpec.from_json(spec.to_json()) == spec
        known = {(place.row, place.group) for place in places}
        if sweep.published:
            theirs = load_published(sweep.published).rows
            assert {there for _, there in sweep.published_rows} <= set(theirs)
            assert {here for here, _ in sweep.published_rows} <= {row for row, _ in known}
        for trend in sweep.trends:
            for contrast in trend.contrasts:
                assert {where for pick in contrast.picks for where in pick.places} <= known
