"""A table's folder stands for its best student on validation."""

import pytest
from samples import place, sample_run

from distill_jax.cli.chosen_run import RANKS, chosen_run
from distill_jax.core.errors import UserError
from distill_jax.tables.columns import ACCURACY
from distill_jax.tables.ledger import Ledger
from distill_jax.tables.spec import TableSpec


def a_run(row, score, hash, group="small", *, kept=True, config=None, **metrics):
    scores = {"test/accuracy": 0.9} | ({RANKS: score} if score else {}) | metrics
    return kept, sample_run(row, group, 0, hash=hash, metrics=scores, config=config or {})


@pytest.fixture
def table(tmp_path):
    """(runs that stand in the table, others of the ledger) -> its folder."""

    def made(*runs, before=(), teachers=()):
        ledger = Ledger(tmp_path / "ledger.jsonl")
        for kept, run in (*before, *teachers, *runs):
            ledger.append(run)
            if kept:
                (tmp_path / "runs" / run.hash / "model").mkdir(parents=True)
        spec = TableSpec(
            name="shop",
            title="A shop",
            layout="metrics",
            columns=(ACCURACY,),
            baseline="labels",
            places=tuple(place(run) for _, run in runs),
            teachers=tuple(place(run) for _, run in teachers),
        )
        (tmp_path / "table.json").write_text(spec.to_json())
        return tmp_path

    return made


def test_the_best_on_validation_and_nothing_else(table, capsys):
    """Neither the teacher, nor the placebo, nor what an earlier table left, nor what is gone."""
    folder = table(
        a_run("labels", 0.2, "aaaa"),
        a_run("kl", 0.3, "bbbb", **{"test/ndcg@10": 0.1}),
        a_run("kl", 0.25, "cccc", "other", **{"test/ndcg@10": 0.9}),
        a_run("shuffled teacher", 0.9, "dddd", config={"placebo": True}),
        a_run("KL, shuffled teacher", 0.9, "abcd", config={"hears": "shuffled"}),
        a_run("listmle", 0.8, "eeee", kept=False),
        a_run("mse_logits", float("nan"), "9999"),
        before=[a_run("kl", 0.7, "ffff")],
        teachers=[a_run("teacher", 0.6, "0000"), a_run("ease", None, "1111")],
    )
    assert chosen_run(folder, RANKS) == folder / "runs" / "bbbb"
    told = capsys.readouterr()
    assert told.out == "" and f"{folder / 'runs' / 'bbbb'}: small, kl, seed 0" in told.err
    assert "(validation/ndcg@10 0.3000, best of 3)" in told.err


def test_a_table_without_students_is_told(table):
    folder = table(a_run("labels", 0.2, "aaaa", kept=False), a_run("ease", None, "bbbb"))
    with pytest.raises(UserError, match="no student can be asked"):
        chosen_run(folder, RANKS)
    (folder / "table.json").write_text("{}")
    with pytest.raises(UserError, match="description of a table"):
        chosen_run(folder, RANKS)
    (folder / "table.json").unlink()
    with pytest.raises(UserError, match="not finished: the same command goes on"):
        chosen_run(folder, RANKS)


def test_a_run_is_itself(table, tmp_path, capsys):
    folder = table(a_run("labels", 0.2, "aaaa"))
    for run in (folder / "runs" / "aaaa", folder / "runs" / "aaaa" / "model", tmp_path / "nowhere"):
        assert chosen_run(run, RANKS) == run
    (folder / "model").mkdir()
    assert chosen_run(folder, RANKS) == folder
    assert capsys.readouterr().err == ""
