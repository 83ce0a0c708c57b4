"""Every preset of the recommendation tables can be built, and every objective fitted."""

import importlib.util
import re
import shlex
import sys
from pathlib import Path

import pytest

from distill_jax.cli.run import parse_flags
from distill_jax.core.errors import UserError
from distill_jax.core.types import ModelShape
from distill_jax.data.build_interactions import Preparation
from distill_jax.objectives.items import resolve_ranking
from distill_jax.tasks.recommendation.cells import parse_model

EXPERIMENTS = Path(__file__).resolve().parents[2] / "experiments"
ITEMS = 1682


def script(name):
    spec = importlib.util.spec_from_file_location(f"script_{name}", EXPERIMENTS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def shape(model):
    name = parse_model(model.name)
    return ModelShape(name.layers, name.width, model.heads, ITEMS)


@pytest.mark.parametrize("preset", ["default", "smoke", "cold", "ml-1m"])
def test_every_row_of_a_preset_can_be_computed(preset):
    module = script("recommendation")
    sweep, peers = module.table(module.Recommendation(preset=preset))
    assert sweep.name == ("recommendation" if preset == "default" else f"recommendation-{preset}")
    config = sweep.base.setup.teacher
    cells = [entry.cell.but(data_digest="data") for entry in sweep.entries()]
    assert len(cells) == len(sweep.rows) * len(sweep.groups) * len(sweep.seeds)
    assert len({cell.hash for cell in cells}) == len(cells)
    for cell in cells:
        student, teacher = shape(cell.setup.model), shape(config.model)
        fitted = resolve_ranking(cell.objective, student, teacher, positions=1600)
        listens = fitted.needs_teacher or cell.setup.start != "random"
        assert cell.setup.top == (config.top if listens else 0), cell.objective
        assert fitted.teacher_capture.top <= config.top
    placebo = {cell.objective for cell in cells if cell.setup.placebo}
    assert placebo < {cell.objective for cell in cells if not cell.setup.placebo}
    if preset == "default":
        assert len(sweep.seeds) >= 3 and len(sweep.rows) == 14 and len(peers) == 2


def test_flags_change_a_preset():
    module = script("recommendation")
    sweep, peers = module.table(
        module.Recommendation(teacher="sasrec-2x64", students=("bpr_mf-8",), epochs=3, seeds=(5,))
    )
    assert [peer.name for peer in peers] == ["sasrec-2x64-text", "sasrec-2x64-both"]
    assert sweep.groups[0].label == "bpr_mf-8" and sweep.base.training.epochs == 3
    assert sweep.seeds == (5,)
    graph = module.Recommendation(teacher="lightgcn-2x32", students=("bpr_mf-16",))
    graph_sweep, peers = module.table(graph)
    assert peers == ()  # beside it stands none of its kind
    rates = [
        each.base.setup.teacher.training.optimizer.learning_rate for each in (sweep, graph_sweep)
    ]
    assert rates == [2e-3, 2e-2]


def test_a_table_of_other_data_of_the_items_has_another_name():
    """Else its runs would stand at the places of the preset's own."""
    module = script("recommendation")
    given = (
        {},
        {"item_vectors": "v.npy"},
        {"item_features": "f.csv"},
        {"item_vectors": "v.npy", "item_features": "f.csv"},
    )
    sweeps = [module.table(module.Recommendation(preset="cold", **each))[0] for each in given]
    cold = "recommendation-cold"
    assert [sweep.name.removeprefix(cold) for sweep in sweeps] == [
        "",
        "-vectors",
        "-features",
        "-vectors-features",
    ]


def test_every_command_of_the_page_makes_a_table(monkeypatch):
    """Its flags are read, and every objective can be computed with the teacher they name."""
    module = script("recommendation")
    monkeypatch.setitem(sys.modules, module.__name__, module)  # where flags look for their help
    page = (EXPERIMENTS.parent / "docs" / "recommendation.md").read_text("utf-8")
    shown = re.findall(r"experiments/recommendation\.py((?:\\\n|[^\n`])*)\n", page)
    commands = [shlex.split(each.replace("\\\n", " "), comments=True) for each in shown]
    assert len(commands) >= 6 and sum("lightgcn-3x64" in command for command in commands) == 1
    for command in commands:
        sweep, _ = module.table(parse_flags(module.Recommendation, command, "recommendation"))
        teacher = shape(sweep.base.setup.teacher.model)
        for entry in sweep.entries():
            student = shape(entry.cell.setup.model)
            resolve_ranking(entry.cell.objective, student, teacher, positions=1600)


def test_rows_are_chosen_by_name_in_the_tables_order():
    module = script("recommendation")
    sweep, _ = module.table(module.Recommendation(rows=("shuffled teacher", "labels")))
    assert [row.label for row in sweep.rows] == ["labels", "shuffled teacher"]
    with pytest.raises(UserError, match=r"unknown row 'label'\. Did you mean 'labels'"):
        module.table(module.Recommendation(rows=("label",)))


def test_items_nobody_has_seen_get_a_column_where_there_are_many():
    module = script("recommendation")
    sweep, _ = module.table(module.Recommendation(preset="cold"))
    assert "test/ndcg@10/cold" in [column.key for column in sweep.columns]
    assert "test/ndcg@10/cold" in sweep.tested
    assert sweep.base.setup.data.split.startswith("temporal")
    assert [group.label for group in sweep.groups] == ["sasrec-1x16", "sasrec-1x16-text"]


def test_the_continual_run_can_be_built():
    module = script("recommendation_continual")
    cells = [entry.cell for entry in module.table(module.Continual(), "data").entries()]
    for cell in cells:
        student, teacher = shape(cell.setup.model), shape(cell.setup.teacher.model)
        resolve_ranking(cell.objective, student, teacher, positions=1600)
    updates = [cell.setup.update for cell in cells]
    assert updates.count(None) == 3 and any(update and update.rehearse for update in updates)


def test_references_labels_and_lengths_are_flags():
    module = script("recommendation")
    sweep, peers = module.table(
        module.Recommendation(
            references="popularity,item_knn",
            labels="sampled_softmax(n=8)",
            max_length=20,
            windows=False,
            min_rating=3.5,
            k_core=5,
            repeats="keep",
            item_vectors="vectors.npy",
            asked=50,
            taught=20,
        )
    )
    base, config = sweep.base, sweep.base.setup.teacher
    assert sweep.references == ("popularity", "item_knn")
    assert {config.model.max_length, *(peer.max_length for peer in peers)} == {20}
    assert not base.training.windows and not config.training.windows
    assert base.setup.data.preparation == Preparation("keep", 3.5, 5, 5)
    assert base.setup.data.item_vectors == "vectors.npy"
    assert (base.setup.data.asked, config.users) == (50, 20)
    heard = {entry.label: entry.cell.setup.taught for entry in sweep.entries()}
    assert (heard["labels"], heard["kl"]) == (None, 20)
    assert config.objective == "sampled_softmax(n=8)"
    objectives = {row.label: dict(row.changes)["objective"] for row in sweep.rows}
    assert objectives["labels"] == "sampled_softmax(n=8)"
    assert objectives["kl"] == "0.5*sampled_softmax(n=8) + 0.5*kl(T=2, tail=False)"
    assert "label smoothing" not in objectives  # nothing but a softmax has it
    for entry in sweep.entries():
        assert "full_softmax" not in entry.cell.objective
    assert module.table(module.Recommendation(references=""))[0].references == ()
    cold, _ = module.table(module.Recommendation(preset="cold", labels="bpr(n=2)"))
    assert [row.label for row in cold.rows] == ["labels", "kl", "shuffled teacher"]


@pytest.mark.parametrize(
    ("name", "form"), [("recommendation", "Recommendation"), ("recommendation_anchor", "Anchor")]
)
def test_a_reference_that_is_none_is_told_before_anything_is_read(name, form):
    module = script(name)
    flags = getattr(module, form)(data="files:/nowhere", references="popularity,eas")
    with pytest.raises(UserError, match="unknown reference 'eas'"):
        module.table(flags) if name == "recommendation" else module.table(flags, "x", ())


def test_the_default_tables_learn_from_whole_histories():
    module = script("recommendation")
    sweep, _ = module.table(module.Recommendation())
    assert sweep.base.training.windows and sweep.base.setup.teacher.training.windows
    anchor = script("recommendation_anchor")
    assert not anchor.table(anchor.Anchor(), "data", ()).base.training.windows
