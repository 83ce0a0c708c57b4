"""The table of DE-RRD: its weights are the authors', its rows can be computed, it runs in small."""

import gzip

import numpy as np
import pytest
from recsys import small_split
from scripts import ROOT, module_at

from distill_jax.core.errors import UserError
from distill_jax.core.ranking_types import Negatives
from distill_jax.core.types import ModelShape
from distill_jax.objectives.items import negatives_of, resolve_ranking
from distill_jax.tables.evidence import scores_by_example
from distill_jax.tables.outputs import load_results
from distill_jax.tables.published import load_published

SCRIPT = module_at(ROOT / "experiments/derrd_citeulike.py")


def shape(width):
    return ModelShape(1, width, 1, 25181)


def test_rows_and_weights():
    """Sums over a batch of 1,024: 0.01 a squared distance, 0.001 a user, 0.0005 of 20,000 items."""
    sweep = SCRIPT.table(SCRIPT.Derrd(data="files:x"))
    assert [row.label for row in sweep.rows] == ["labels", "DE", "URRD", "IR-RRD"]
    setup, training = sweep.base.setup, sweep.base.training
    assert setup.among == 499 and (training.optimizer.l2, training.patience) == (1e-3, 20)
    wanted = {"labels": 1, "DE": 1, "URRD": 40, "IR-RRD": 40}
    weights = {}
    for entry in sweep.entries():
        fitted = resolve_ranking(entry.cell.objective, shape(20), shape(200), positions=1024)
        assert negatives_of(fitted) == Negatives(wanted[entry.label], "position")
        weights[entry.label] = [term.weight for term in fitted.objective.terms]
        assert (entry.cell.setup.top > 0) == (entry.label != "labels")
    assert weights["DE"] == pytest.approx([1024, 0.01 * 1024 * 200, 0.01 * 1024 * 200])
    assert weights["IR-RRD"] == pytest.approx([1024, 0.001 * 1024, 0.0005 * 20_000])
    assert weights["URRD"] == weights["IR-RRD"][:2] and weights["labels"] == [1024]


def test_published_figures_and_trends_are_for_the_authors_split_alone():
    flags = SCRIPT.Derrd(data="files:x")
    theirs, others = SCRIPT.table(flags), SCRIPT.table(flags, known=False)
    labels = {label for _, label in theirs.published_rows}
    assert labels == set(load_published(theirs.published).rows)
    assert len(theirs.trends) == 4 and any("Departures of DE" in line for line in theirs.protocol)
    assert others.published is None and not others.trends
    assert not any("Departures" in line for line in others.protocol)
    alone = SCRIPT.table(SCRIPT.Derrd(data="files:x", rows=("labels",)))
    assert alone.base.setup.teacher is None and not alone.trends
    assert not any("Departures of DE" in line for line in alone.protocol)
    hashes = {each.entries()[0].cell.but(data_digest="d").hash for each in (theirs, alone)}
    assert len(hashes) == 1  # the same run, with a teacher beside it or not


def test_a_row_is_chosen_by_name():
    with pytest.raises(UserError, match=r"unknown row 'URD'\. Did you mean 'URRD'"):
        SCRIPT.table(SCRIPT.Derrd(data="files:x", rows=("URD",)))
    with pytest.raises(UserError, match="--data is needed"):
        SCRIPT.main(SCRIPT.Derrd())


@pytest.mark.long
def test_it_runs_in_small(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("DISTILL_JAX_HOME", str(tmp_path / "home"))
    split = small_split(num_users=40, num_items=60)
    data, users = split.data, split.data.users_N
    parts = {"train": np.ones(len(data), bool), "valid": np.zeros(len(data), bool)}
    for cases, name in ((split.validation, "valid"), (split.test, "test")):
        parts["train"][cases.ends_E] = False
        parts[name] = np.isin(np.arange(len(data)), cases.ends_E)
    (tmp_path / "data").mkdir()
    for name, where in parts.items():
        lines = [f"{u},{i}" for u, i in zip(users[where], data.items_N[where], strict=True)]
        text = "\n".join(["user,item", *lines]) + "\n"
        ending = ".csv.gz" if name == "train" else ".csv"
        path = tmp_path / "data" / f"{name}{ending}"
        path.write_bytes(gzip.compress(text.encode()) if name == "train" else text.encode())
    flags = SCRIPT.Derrd(
        data=f"files:{tmp_path / 'data'}",
        preset="smoke",
        seeds=(0, 1),
        output_dir=tmp_path / "out",
        strategy="sequential",
    )
    SCRIPT.main(flags)
    assert "sampled figures rank each target among 10" in capsys.readouterr().out.lower()
    _, rows = load_results(tmp_path / "out")
    assert len(rows) == 3 + 4 * 2  # the teacher and two references
    for row in rows:
        for key in ("test/sampled_hr@10", "test/sampled_ndcg@10", "test/ndcg@10"):
            assert scores_by_example(row, key).mean() == pytest.approx(row.metrics[key])
        assert row.metrics["test/sampled_hr@10"] >= row.metrics["test/hr@10"]
    SCRIPT.main(flags)
    assert "8 of 8 runs are finished already" in capsys.readouterr().out
