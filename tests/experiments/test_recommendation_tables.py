"""Every preset of the recommendation tables can be built, and every objective fitted."""

import importlib.util
from pathlib import Path

import pytest

from distill_jax.core.errors import UserError
from distill_jax.core.types import ModelShape
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
    sweep = module.table(module.Recommendation(preset=preset))
    assert sweep.name == ("recommendation" if preset == "default" else f"recommendation-{preset}")
    teacher = shape(sweep.teacher.model)
    cells = list(sweep.cells("data", "teacher"))
    assert len(cells) == len(sweep.rows) * len(sweep.students) * len(sweep.seeds)
    assert len({cell.hash for _, cell in cells}) == len(cells)
    for row, cell in cells:
        fitted = resolve_ranking(cell.objective, shape(cell.model), teacher, positions=1600)
        listens = fitted.needs_teacher or row.start != "random"
        assert bool(cell.teacher_digest) == listens, row
        assert fitted.teacher_capture.top <= sweep.teacher.top
    placebo = [cell for _, cell in cells if cell.placebo]
    assert {cell.objective for cell in placebo} < {c.objective for _, c in cells if not c.placebo}
    if preset == "default":
        assert len(sweep.seeds) >= 3 and len(sweep.rows) == 14 and len(sweep.peers) == 2


def test_flags_change_a_preset():
    module = script("recommendation")
    sweep = module.table(
        module.Recommendation(teacher="sasrec-2x64", students=("bpr_mf-8",), epochs=3, seeds=(5,))
    )
    assert [peer.name for peer in sweep.peers] == ["sasrec-2x64-text", "sasrec-2x64-both"]
    assert sweep.students[0].name == "bpr_mf-8" and sweep.training.epochs == 3
    assert sweep.seeds == (5,)


def test_rows_are_chosen_by_name_in_the_tables_order():
    module = script("recommendation")
    sweep = module.table(module.Recommendation(rows=("shuffled teacher", "labels")))
    assert [row.label for row in sweep.rows] == ["labels", "shuffled teacher"]
    with pytest.raises(UserError, match=r"unknown row 'label'\. Did you mean 'labels'"):
        module.table(module.Recommendation(rows=("label",)))


def test_items_nobody_has_seen_get_a_column_where_there_are_many():
    module = script("recommendation")
    sweep = module.table(module.Recommendation(preset="cold"))
    assert "test/ndcg@10/cold" in [column.key for column in sweep.columns]
    assert "test/ndcg@10/cold" in sweep.tested
    assert sweep.data.split.startswith("temporal")
    assert [student.name for student in sweep.students] == ["sasrec-1x16", "sasrec-1x16-text"]


def test_the_continual_run_can_be_built():
    module = script("recommendation_continual")
    sweep = module.table(module.Continual())
    for text in (sweep.first, *(update.objective for update in sweep.updates)):
        resolve_ranking(text, shape(sweep.student), shape(sweep.teacher), positions=1600)
    assert any(update.rehearse for update in sweep.updates)
