"""A cell's hash is its identity."""

import dataclasses
from pathlib import Path

import pytest

from distill_jax.cli.compare import CompareLosses, sweep_of
from distill_jax.core.digests import canonical_json
from distill_jax.core.errors import UserError
from distill_jax.engine.cell import Cell, Train
from distill_jax.tables.ledger import Ledger
from distill_jax.tasks.classification.cells import (
    ClassifierSetup,
    DataConfig,
    TeacherConfig,
    TrainingConfig,
)
from distill_jax.training.optimizer import OptimizerConfig

RESULTS = Path(__file__).resolve().parents[3] / "experiments/results"
CELL = Cell(
    ClassifierSetup(data=DataConfig(), teacher=TeacherConfig(), student="tiny"),
    (Train("kl", TrainingConfig()),),
    data_digest="d",
    teacher_digest="t",
)


@pytest.mark.parametrize(
    "change",
    [
        {"data_digest": "other"},
        {"student": "l2"},
        {"objective": "ce"},
        {"teacher_digest": "other"},
        {"layers": "first"},
        {"intermediate": Train("hidden_mse", TrainingConfig())},
        {"training": TrainingConfig(epochs=3)},
        {"training": TrainingConfig(optimizer=OptimizerConfig(learning_rate=5e-4))},
        {"seed": 1},
        {"teacher_dtype": "float16"},
        {"plugin": "p"},
        {"placebo": True},
        {"pooling": "pooler"},
    ],
)
def test_everything_that_counts_changes_the_hash(change):
    assert CELL.but(**change).hash != CELL.hash


def test_what_data_and_teacher_are_called_does_not_count():
    assert CELL.but(data=DataConfig(name="files:copy")).hash == CELL.hash
    assert CELL.but(teacher=TeacherConfig("copy")).hash == CELL.hash


def test_what_came_later_leaves_finished_cells_their_hashes():
    """Of a cell of a table that was made before, as its ledger has it."""
    rows = Ledger(RESULTS / "compare_losses-controls/ledger.jsonl").rows()
    row = next(row for row in rows if row.row == "kl")
    config = {key: value for key, value in row.config.items() if key != "model"}
    training = dict(config.pop("training"))
    training["optimizer"] = OptimizerConfig(**training["optimizer"])
    del config["teacher"], config["data"]
    names = {"data": DataConfig(label_seed=4), "teacher": TeacherConfig(seed=5)}
    cell = CELL.but(**config, **names, training=TrainingConfig(**training))
    assert cell.hash == row.hash


def test_no_identity_before_the_contents_are_known():
    with pytest.raises(ValueError, match="its teacher is known"):
        _ = CELL.but(teacher_digest="").hash


def test_steps_by_hand():
    assert TrainingConfig(epochs=2, batch_size=64).total_steps(8497) == 266
    assert TrainingConfig(epochs=0.001, batch_size=64).total_steps(10) == 1
    assert TrainingConfig(steps=7).total_steps(10**6) == 7
    few = TrainingConfig(epochs=3, batch_size=32, min_steps=300)
    assert (few.total_steps(550), few.total_steps(3200), few.total_steps(3232)) == (300, 300, 303)
    assert dataclasses.replace(few, steps=7).total_steps(550) == 7


def test_a_cache_keeps_at_least_one_logit():
    with pytest.raises(UserError, match="cache_top_k must be at least 1"):
        TeacherConfig(cache_top_k=0)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: DataConfig(label_fraction=1.1),
        lambda: DataConfig(max_length=2),
        lambda: DataConfig(label_noise=1.0),
        lambda: DataConfig(transfer="all"),
        lambda: TrainingConfig(epochs=0),
        lambda: TrainingConfig(batch_size=0),
        lambda: TrainingConfig(max_shapes=0),
    ],
)
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(UserError):
        wrong()


def test_how_steps_are_chosen_counts_only_away_from_what_it_always_was():
    plain = CELL.but(training=TrainingConfig())
    for change in ({"select": "macro_f1"}, {"select": "loss"}, {"ties": "loss"}):
        assert CELL.but(training=TrainingConfig(**change)).hash != plain.hash
    assert '"select"' not in canonical_json(plain) and '"ties"' not in canonical_json(plain)


def test_ties_go_to_the_lower_loss_on_data_of_the_users_own_alone():
    def chosen(**flags):
        base = sweep_of(CompareLosses(**flags)).base
        assert base.setup.teacher.training.select == base.training.select
        assert base.setup.teacher.training.ties == base.training.ties
        return base.training.select, base.training.ties

    assert chosen() == ("accuracy", "earliest")
    assert chosen(data="files:here") == ("accuracy", "loss")
    assert chosen(data="files:here", select="macro_f1") == ("macro_f1", "loss")
    assert chosen(select="loss") == ("loss", "earliest")


def test_with_all_labels_nobody_speaks_of_a_rest():
    sweep = sweep_of(CompareLosses(data="files:here"))
    assert sweep.title == "files:here, all labels"
    assert "rest" not in " ".join(sweep.protocol) and "transfer" not in " ".join(sweep.protocol)
    assert "the rest of the training" in " ".join(sweep_of(CompareLosses()).protocol)
