"""Students of every kind of task made smaller: each hop has the kind's own score, and opens."""

import numpy as np
import pytest
from compressed import one_device
from kind_tables import made_smaller, run

from distill_jax.tables.ledger import Ledger
from distill_jax.tasks.kinds.kinds import kind_named

FLAGS = {
    "number": ("--label", "rating"),
    "labels": ("--label", "moods", "--label-separator", "|"),
}
OWN = {"number": "mse_regression", "labels": "bce", "intent_slots": "kl(head='slots')"}
KINDS = ("number", "labels", "tags", "intent_slots", "spans")
ALL = (
    "vocabulary -> prune(0.5) -> drop(ffn=0.5, layers=1) -> distil(steps=2, objective={!r}) -> int8"
)


@pytest.fixture
def student_of(small, toy_tags, toy_intents, toy_questions, tmp_path, monkeypatch):
    """(kind) -> the folder of a student of two layers that heard a teacher for a few steps."""
    one_device(monkeypatch)
    folders = {"tags": toy_tags, "intent_slots": toy_intents, "spans": toy_questions}

    def made(task):
        changes = {"students": ("2x8x2",), "objectives": (OWN.get(task, "kl"),), "steps": 3}
        if task in folders:
            changes |= {"data": f"files:{folders[task]}", "label_fraction": 1.0}
            changes["max_length"] = 28 if task == "spans" else 16
        run(small("--task", task, *FLAGS.get(task, ()), **changes), tmp_path / "out")
        return tmp_path / "out/runs" / Ledger(tmp_path / "out/ledger.jsonl").rows()[-1].hash

    return made


@pytest.mark.long
@pytest.mark.parametrize("task", KINDS)
def test_every_hop_has_the_score_of_its_kind(task, student_of, tmp_path):
    """In short in ``test_token_kinds``."""
    folder, kind, steps = student_of(task), kind_named(task), ALL.format(OWN.get(task, "kl"))
    made_smaller(folder, kind, steps, tmp_path / "small")


def test_agreement_is_of_whole_answers():
    """Of numbers it is nearness; labels are compared at each model's own threshold."""
    number = kind_named("number").form({"mean": 0.0, "deviation": 5.0}, ("n",), None)
    said = np.float32([[0.0], [1.0]])
    assert number.same(said, said + np.float32([[0.05], [0.2]]), None).tolist() == [True, False]
    labels = kind_named("labels").form({"threshold": 0.5}, ("a", "b"), None)
    ours, theirs = np.float32([[1, -1], [1, 1]]), np.float32([[2, -3], [1, -1]])
    assert labels.same(ours, theirs, None).tolist() == [True, False]
