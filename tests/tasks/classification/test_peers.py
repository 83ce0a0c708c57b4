"""Students who teach each other."""

import dataclasses
import io
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from distill_jax import losses
from distill_jax.cli.compare import sweep_of
from distill_jax.core.errors import UserError
from distill_jax.core.mesh import make_mesh
from distill_jax.core.types import ModelOutput, ModelShape
from distill_jax.engine import run as run_module
from distill_jax.engine.engine import Engine
from distill_jax.engine.progress import Reporter
from distill_jax.engine.run import run_table
from distill_jax.objectives.resolve import ResolvedObjective, resolve
from distill_jax.tables.build import table_of
from distill_jax.tables.ledger import Ledger
from distill_jax.tables.outputs import write_outputs
from distill_jax.tasks.classification.peers import PeersObjective, PeersOutput
from distill_jax.tasks.classification.table import Classification
from distill_jax.training.interrupt import Interrupted

SHAPE = ModelShape(1, 8, 2, 3)


def among(text, count):
    fitted = resolve(text, SHAPE, SHAPE)
    fields = {f.name: getattr(fitted, f.name) for f in dataclasses.fields(ResolvedObjective)}
    return PeersObjective(**fields, count=count)


@pytest.mark.parametrize("count", [2, 3])
def test_each_learns_from_what_the_others_say_and_none_is_changed_by_being_heard(count, toy_table):
    batch = toy_table.batch(np.arange(8), int(toy_table.lengths_N.max()), 10)
    rng = np.random.default_rng(0)
    logits = [jnp.asarray(rng.normal(size=(10, 3)), jnp.float32) for _ in range(count)]
    objective = among("ce + 0.5*kl(T=2)", count)
    numbers = objective.numbers(0, 1)

    def total(logits):
        said = PeersOutput(tuple(ModelOutput(logits_BC=each) for each in logits))
        return objective({}, numbers, said, None, batch)[0]

    def alone(own, others):
        word = others[0] if len(others) == 1 else losses.mean_probabilities(jnp.stack(others))
        where, known = batch.where_B, batch.where_B & batch.label_where_B
        kl = losses.kl(own, word, where=where, T=np.float32(2)).sum() / np.float32(where.sum())
        ce = losses.ce(own, batch.labels_B, where=known).sum() / np.float32(known.sum())
        return ce + np.float32(0.5) * kl

    value, slopes = jax.value_and_grad(total)(logits)
    pairs = [(own, [o for o in logits if o is not own]) for own in logits]
    np.testing.assert_allclose(value, sum(alone(*pair) for pair in pairs), rtol=1e-5)
    for slope, pair in zip(slopes, pairs, strict=True):
        np.testing.assert_allclose(slope, jax.grad(alone)(*pair), rtol=1e-4, atol=1e-6)
    assert not objective.needs_teacher and objective != among("ce + 0.5*kl(T=2)", count + 1)


def run(args, folder, strategy="sequential"):
    out = io.StringIO()
    reporter = Reporter(Console(file=out, width=400))
    spec, rows = run_table(
        Classification(sweep_of(args)), folder, reporter, strategy=strategy, options=args.options
    )
    return spec, rows, out.getvalue()


def timeless(folder):
    return {
        row.hash: {k: v for k, v in row.metrics.items() if not k.startswith("latency/")}
        for row in Ledger(folder / "ledger.jsonl").rows()
    }


@pytest.fixture
def table(small_table, toy_teacher):
    given = {"teacher": ("none",), "tokenizer": str(toy_teacher), "peers": 2}
    return partial(small_table, objectives=("ce", "kl + ce"), **given)


def test_the_first_is_kept_and_rows_that_hear_nobody_are_as_ever(table, tmp_path):
    spec, rows, _ = run(table(), tmp_path / "peers")
    write_outputs(table_of(spec, rows), tmp_path / "peers")
    assert "2 students at a time teach each other" in " ".join(spec.protocol)
    by_row = {(row.row, row.seed): row for row in rows}
    assert by_row["kl + ce", 0].metrics["parameters"] == by_row["ce", 0].metrics["parameters"]
    assert (tmp_path / "peers/runs" / by_row["kl + ce", 0].hash / "model/config.json").is_file()
    _, alone, _ = run(table(peers=0, objectives=("ce",)), tmp_path / "alone")
    plain = {row.hash for (name, _), row in by_row.items() if name == "ce"}
    assert {row.hash for row in alone} == plain
    assert by_row["kl + ce", 0].config["peers"] == 2 and by_row["ce", 0].config["peers"] == 0


@pytest.mark.long
def test_a_population_of_pairs_is_the_pairs(table, tmp_path):
    seeds = {"seeds": (0, 1, 2), "objectives": ("kl + ce", "0.5*kl(T=3) + ce")}
    tables = [run(table(**seeds), tmp_path / way, way)[1] for way in ("sequential", "vmap")]
    by_hash = [{row.hash: row.metrics["test/nll"] for row in rows} for rows in tables]
    assert by_hash[0] == pytest.approx(by_hash[1], rel=1e-3)
    assert len(set(by_hash[0].values())) == 6


def test_pairs_that_were_stopped_go_on_and_come_out_the_same(table, tmp_path, monkeypatch):
    args = table(objectives=("kl + ce",))
    run(args, tmp_path / "undisturbed")

    class Impatient(Engine):
        runs = 0

        def train(self, *arguments, **given):
            Impatient.runs += 1
            if Impatient.runs == 2:
                self.stop.requested = True
            return super().train(*arguments, **given)

    with monkeypatch.context() as patched:
        mesh = make_mesh(jax.devices()[:1])
        patched.setattr(run_module, "Engine", partial(Impatient, mesh=mesh))
        with pytest.raises(Interrupted):
            run(args, tmp_path / "disturbed")
    _, _, said = run(args, tmp_path / "disturbed")
    assert "1 of 2 runs are finished already" in said
    assert timeless(tmp_path / "disturbed") == timeless(tmp_path / "undisturbed")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"objectives": ("hidden_mse + kl",)}, "reads more than logits"),
        ({"peers": 1}, "by 2 to 8, not 1"),
        ({"teacher": ("a", "b"), "tokenizer": ""}, "hear nobody else"),
    ],
)
def test_peers_that_cannot_be(table, tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        run(table(**changes), tmp_path / "out")
