"""README.md says what is so."""

import dataclasses
import itertools
import re
import shlex
from pathlib import Path

import pytest
from benches import bench_module
from scripts import SCRIPTS, module_at

from distill_jax.cli.bench import Bench
from distill_jax.cli.compare import CompareLosses, parse_arguments
from distill_jax.cli.compress import Compress
from distill_jax.cli.data import Data
from distill_jax.cli.experiment import Flags
from distill_jax.cli.export import Export
from distill_jax.cli.ledger import ListLedger, MergeLedgers
from distill_jax.cli.main import COMMANDS
from distill_jax.cli.predict import Predict
from distill_jax.cli.pretrain import Pretrain
from distill_jax.cli.ray import RunOnRay
from distill_jax.cli.recommend import Recommend
from distill_jax.cli.serve import Serve
from distill_jax.cli.table import RebuildTable
from distill_jax.cli.update import UpdateRun
from distill_jax.cli.verify import Verify
from distill_jax.engine.options import RunOptions
from distill_jax.objectives.grammar import parse
from distill_jax.objectives.registry import names
from distill_jax.serving.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
RUNNING = (ROOT / "docs/running.md").read_text(encoding="utf-8")
PAGES = README + "".join(
    path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs").glob("*.md"))
)


def test_the_generated_parts_are_fresh():
    """Mend with ``python tools/refresh_readme.py``."""
    refresh = module_at(ROOT / "tools/refresh_readme.py")
    assert {"compare_losses", "compare_losses-full"} <= set(refresh.parts())
    assert refresh.refreshed() == {page: page.read_text("utf-8") for page in refresh.PAGES}


def test_a_newcomer_reads_it_in_five_minutes():
    assert len(README.encode()) <= 12 * 1024


def test_it_counts_the_losses():
    assert f"{len(names())} losses are at hand" in README


@pytest.mark.parametrize("page", ["README.md", "docs/results.md"])
def test_links_to_files_lead_somewhere(page):
    path = ROOT / page
    links = re.findall(r"\]\(([^)#]+?)\)", path.read_text(encoding="utf-8"))
    assert len(links) > 5
    assert [link for link in links if not (path.parent / link).exists()] == []


@pytest.mark.parametrize("flags", re.findall(r'ARGS="([^"]*)"', README))
def test_the_flags_it_shows_are_flags(flags):
    if "--help" in flags:
        return
    args = parse_arguments(shlex.split(flags), "README")
    assert all(parse(objective) for objective in args.objectives)


def test_the_commands_it_shows_are_commands():
    shown = set(re.findall(r"distill-jax ([a-z][a-z-]*)", README + RUNNING))
    assert len(shown) >= 4
    assert shown <= set(COMMANDS)


def test_the_make_targets_it_shows_are_targets():
    targets = set(re.findall(r"^([a-z ]+):", (ROOT / "Makefile").read_text(), flags=re.M))
    known = {name for target in targets for name in target.split()}
    assert set(re.findall(r"make ([a-z]+)", README)) - {"a"} <= known


def test_every_flag_that_the_pages_name_exists():
    tool = module_at(ROOT / "tools/kill_test.py").Arguments
    bench = [bench_module(name).Arguments for name in ("race", "steps")]
    own = [getattr(module_at(ROOT / f"experiments/{name}.py"), SCRIPTS[name]) for name in SCRIPTS]
    forms = (
        Bench,
        CompareLosses,
        Compress,
        Data,
        Export,
        Flags,
        ListLedger,
        MergeLedgers,
        Predict,
        Pretrain,
        RebuildTable,
        Recommend,
        RunOnRay,
        RunOptions,
        Serve,
        Settings,
        UpdateRun,
        Verify,
        tool,
        *bench,
        *own,
    )
    fields = {f.name.replace("_", "-") for form in forms for f in dataclasses.fields(form)}
    scripts = "".join(path.read_text() for path in (ROOT / "tools/launch").glob("*.sh"))
    known = fields | {
        "no-fine-tune",
        "no-lowercase",
        "from",
        "no-windows",
        "no-yardsticks",
        "help",
        "plugin",
        "json",  # of curl
        *re.findall(r"--([a-z][a-z-]+)", scripts),
    }

    assert set(re.findall(r"(?<![\w-])--(?!xla_)([a-z][a-z-]+)", PAGES)) <= known


def test_the_way_from_script_to_loss_is_the_one_that_it_names():
    """Each file of the way imports the next."""
    way = README.partition("from script to loss:")[2].partition("Every task")[0]
    named = re.findall(r"`([\w/]+\.py)`", way)
    files = [name if name.startswith("experiments") else f"distill_jax/{name}" for name in named]
    assert files[0] == "experiments/compare_losses.py" and len(files) == 9
    for one, following in itertools.pairwise(files):
        module = following.removesuffix(".py").replace("/", ".")
        assert f"from {module} import" in (ROOT / one).read_text(encoding="utf-8"), (one, following)
    assert "spec.function" in (ROOT / files[-1]).read_text(encoding="utf-8")  # the loss itself
