"""Every way of running a table is there for every task, and gives one table."""

import dataclasses
import io
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest
from rich.console import Console
from safetensors.numpy import load_file
from scripts import ROOT, SCRIPTS, module_at
from small_tables import FIT, among_walks, pairs, walks, write_pairs

from distill_jax.cli.compare import CompareLosses
from distill_jax.cli.experiment import TableFlags
from distill_jax.cli.pretrain import Pretrain
from distill_jax.core.errors import UserError
from distill_jax.core.mesh import make_mesh
from distill_jax.engine import run as run_module
from distill_jax.engine.engine import Engine
from distill_jax.engine.merge import merge_ledgers
from distill_jax.engine.options import RunOptions
from distill_jax.engine.progress import Reporter
from distill_jax.engine.run import run_table
from distill_jax.engine.sweep import points
from distill_jax.objectives.plugins import load_plugin
from distill_jax.objectives.registry import forget
from distill_jax.tables.ledger import Ledger
from distill_jax.tasks.recommendation.cells import (
    RecModel,
)
from distill_jax.tasks.search.table import Search

WALKS = walks(
    {
        "labels": {},
        "kl": {"objective": "0.5*full_softmax + 0.5*kl(top=5)"},
        "softer": {"objective": "0.5*full_softmax + 0.5*kl(top=5, T=2)"},
    },
    seeds=(0, 1),
    references=("popularity",),
)
PLUGIN = '''
import jax.numpy as jnp
from distill_jax.losses.numeric import constant_pair
from distill_jax.objectives.plugin_api import RankingFeed, register


@register(feed=RankingFeed())
def squared_lists(student, teacher, *, where=None):
    """Mean squared difference of scores."""
    student, teacher, mask = constant_pair(student, teacher, where, inner=0)
    return jnp.sum(jnp.where(mask, (student - teacher) ** 2, 0), axis=-1)
'''


@pytest.fixture(scope="module")
def tables(tmp_path_factory, toy_teacher):
    """Task -> (folder, options, changes) -> (spec, rows, what was said)."""
    folder = write_pairs(tmp_path_factory.mktemp("pairs"))
    rows = {"labels": {}, "kl": {"objective": "ce + kl"}}
    search = pairs(folder, toy_teacher, rows, seeds=(0, 1))
    tasks = {"recommendation": (WALKS, among_walks), "search": (search, Search)}

    def run(task, folder, options=RunOptions(), changes=None, cells=None, **how):  # noqa: B008
        out, (sweep, at_work) = io.StringIO(), tasks[task]
        sweep = dataclasses.replace(sweep, base=sweep.base.but(**cells or {}), **changes or {})
        how = {"strategy": "sequential", **how}
        ran = run_table(
            at_work(sweep), folder, Reporter(Console(file=out, width=300)), options=options, **how
        )
        return *ran, out.getvalue()

    return {task: partial(run, task) for task in tasks}


@pytest.fixture(scope="module", autouse=True)
def home(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DISTILL_JAX_HOME", str(tmp_path_factory.mktemp("home")))
        two = make_mesh(jax.devices()[:2])  # compiles faster than for eight
        patch.setattr(run_module, "Engine", partial(Engine, mesh=two))
        yield


@pytest.fixture(scope="module")
def plain(tables, tmp_path_factory):
    """Task -> its table."""
    found = {}
    for task, run in tables.items():
        folder = tmp_path_factory.mktemp(task)
        found[task] = Plain(folder, {row.hash: row for row in run(folder)[1]})
    return found


@dataclasses.dataclass
class Plain:
    """A table as it comes without a flag."""

    folder: Path
    rows: dict


def weights(run):
    """Name -> array, of all that a run's model was saved as."""
    files = sorted((run / "model").rglob("*.safetensors"))
    return {f"{f.name}/{k}": v for f in files for k, v in load_file(f).items()}


TASKS = ("recommendation", "search")
ONE = ("recommendation", pytest.param("search", marks=pytest.mark.long))
"""Both go the same way."""
SHORT = (("recommendation", "vmap, skip"), ("recommendation", "fsdp, parts"))
WAYS = {
    "vmap, skip": {"strategy": "vmap", "options": RunOptions(on_nan="skip")},
    "sharded": {"strategy": "sharded"},
    "fsdp, parts": {"options": RunOptions(fsdp=2, accumulate=2)},
    "pmap": {"options": RunOptions(parallel="pmap")},
}


@pytest.mark.parametrize(
    ("task", "way"),
    [
        pytest.param(task, way, marks=() if (task, way) in SHORT else pytest.mark.long)
        for task in TASKS
        for way in WAYS
    ],
)
def test_every_way_gives_one_table(tables, plain, task, way, tmp_path):
    spec, rows, said = tables[task](tmp_path, **WAYS[way])
    assert {row.hash for row in rows} == plain[task].rows.keys()
    for hash in (place.hash for place in spec.places):
        found, expected = (
            weights(folder / "runs" / hash) for folder in (tmp_path, plain[task].folder)
        )
        assert found.keys() == expected.keys() and len(found) > 5
        for name, values in expected.items():
            np.testing.assert_allclose(found[name], values, rtol=2e-3, atol=2e-4, err_msg=name)
    assert "self-checks" in said and "passed" in said


@pytest.mark.parametrize("task", ONE)
def test_parts_of_a_table_become_the_table(tables, plain, task, tmp_path):
    for number in (1, 2):
        tables[task](tmp_path, RunOptions(part=f"{number}/2"))
    merge_ledgers([tmp_path], tmp_path)
    rows = Ledger(tmp_path / "ledger.jsonl").rows()
    assert {row.hash for row in rows} == plain[task].rows.keys()
    for row in rows:
        assert row.test_scores == plain[task].rows[row.hash].test_scores, row.row
    *_, said = tables[task](tmp_path)
    assert "runs are finished already" in said


@pytest.mark.parametrize("task", ONE)
def test_precision_curves_and_the_table_before_the_runs(tables, plain, task, tmp_path):
    spec, rows, _ = tables[task](tmp_path, cells={"precision": "bf16"}, track="tensorboard")
    students = {place.hash for place in spec.places}
    assert students.isdisjoint(plain[task].rows)
    assert all((tmp_path / "runs" / hash / "events").is_dir() for hash in students)
    assert (tmp_path / "table.json").read_text().strip() == spec.to_json()
    assert np.isfinite([row.metrics["test/ndcg@10"] for row in rows]).all()


@pytest.mark.parametrize("task", ONE)
def test_what_is_there_is_respected(tables, task, tmp_path):
    with pytest.raises(UserError, match="--resume must"):
        tables[task](tmp_path, RunOptions(resume="must"))
    tables[task](tmp_path)
    tables[task](tmp_path, RunOptions(resume="must"))
    if task == "recommendation":
        changed = {"training": dataclasses.replace(FIT, epochs=3)}
        with pytest.raises(UserError, match=r"another run.*training.epochs.*--allow-change"):
            tables[task](tmp_path, cells=changed)
        tables[task](tmp_path, RunOptions(allow_change=("training.epochs",)), cells=changed)


def test_what_cannot_be_is_said_in_one_line(tables, tmp_path):
    for task in TASKS:
        with pytest.raises(UserError, match="--remat is for"):
            tables[task](tmp_path, RunOptions(remat=True))
    gru = {"model": RecModel("gru4rec-1x4", max_length=8), "precision": "bf16"}
    with pytest.raises(UserError, match="float32 alone"):
        tables["recommendation"](tmp_path, cells=gru)


@pytest.mark.parametrize("task", TASKS)
def test_a_users_loss_serves_every_task_that_has_what_it_reads(tables, task, tmp_path):
    (tmp_path / "mine.py").write_text(PLUGIN)
    load_plugin(tmp_path / "mine.py")
    try:
        mine = {
            "recommendation": "full_softmax + 0.01*squared_lists(top=4)",
            "search": "ce + squared_lists",
        }
        rows = points({"labels": {}, "mine": {"objective": mine[task]}})
        spec, found, _ = tables[task](tmp_path / "out", changes={"rows": rows, "seeds": (0,)})
        by_row = {each.row: each for each in found}
        assert by_row["mine"].config["plugin"] and not by_row["labels"].config["plugin"]
        assert {place.row for place in spec.places} == {"labels", "mine"}
    finally:
        forget(["squared_lists"])


def test_every_command_that_trains_a_table_has_the_flags():
    wanted = {field.name for field in dataclasses.fields(TableFlags)}
    own = [
        getattr(module_at(ROOT / f"experiments/{name}.py"), form) for name, form in SCRIPTS.items()
    ]
    for command in (CompareLosses, Pretrain, *own):
        assert wanted <= {field.name for field in dataclasses.fields(command)}, command
    apart = {*SCRIPTS, "compare_losses", "glue_published", "minimal"}
    shared = [p for p in (ROOT / "experiments").glob("*.py") if p.stem not in apart]
    assert shared and all("run_experiment(" in path.read_text() for path in shared)
