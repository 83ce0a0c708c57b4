"""A loss of the user's is known by all of the user's code that it may depend on."""

import subprocess
import sys

import pytest

from distill_jax import losses
from distill_jax.core.errors import UserError
from distill_jax.core.sources import NOT_IN_A_FILE
from distill_jax.objectives import plugins, registry
from distill_jax.objectives.feeds import LogitFeed
from distill_jax.objectives.plugins import load_plugin, plugin_digest
from distill_jax.objectives.registry import lookup, register

PLUGIN = """
import jax.numpy as jnp
from distill_jax.objectives.plugin_api import LogitFeed, register
import {helper}


@register(feed=LogitFeed())
def own_gap(student, teacher, *, where=None):
    from {helper}_inner.deep import POWER
    return {helper}.weight() * jnp.mean(jnp.abs(student - teacher) ** POWER, axis=-1)
"""


pytestmark = pytest.mark.usefixtures("own_registry")


@pytest.fixture
def folder(tmp_path, request):
    """A plugin, a helper that it imports, and a package that it imports while it computes."""
    helper = "helper_of_" + "".join(filter(str.isalnum, request.node.name))
    inner = tmp_path / f"{helper}_inner"
    inner.mkdir()
    (tmp_path / "own.py").write_text(PLUGIN.format(helper=helper))
    (tmp_path / f"{helper}.py").write_text("import math\n\n\ndef weight():\n    return 1.0\n")
    (inner / "__init__.py").write_text("")
    (inner / "deep.py").write_text("from .numbers import POWER\n")
    (inner / "numbers.py").write_text("POWER = 2\n")
    (tmp_path / "unrelated.py").write_text("X = 1\n")
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith(helper)]:
        del sys.modules[name]


def digest_in_a_new_process(folder):
    code = (
        "import sys\n"
        "from distill_jax.objectives.plugins import load_plugin, plugin_digest\n"
        "load_plugin(sys.argv[1])\n"
        "print(plugin_digest('0.5*own_gap + ce'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder / "own.py")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def _digest_again(folder):
    """As another process would find it."""
    registry.forget(["own_gap"])
    plugins._LOADED.clear()
    load_plugin(folder / "own.py")
    return plugin_digest("0.5*own_gap + ce")


def test_every_file_behind_a_loss_counts_and_no_other(folder):
    known = [_digest_again(folder)]
    assert _digest_again(folder) == known[0] == digest_in_a_new_process(folder)
    inner = next(path for path in folder.iterdir() if path.is_dir())
    changed = [
        folder / "own.py",
        folder / inner.name.replace("_inner", ".py"),
        inner / "__init__.py",  # run before what stands in it
        inner / "deep.py",
        inner / "numbers.py",  # imported by what is imported, relatively
    ]
    for path in changed:
        path.write_text(path.read_text() + "\nMORE = 1\n")
        known.append(_digest_again(folder))
    assert len(set(known)) == len(known), changed
    (folder / "unrelated.py").write_text("X = 2\n")
    assert _digest_again(folder) == known[-1]


def test_only_objectives_that_name_such_a_loss_are_touched(folder):
    load_plugin(folder / "own.py")
    assert plugin_digest("ce", "0.9*kl + hidden_mse") is None
    assert plugin_digest("ce", "own_gap") == plugin_digest("own_gap + kl") is not None


def test_a_loss_of_a_script_counts_by_the_script_that_registers_it():
    register(losses.kl, feed=LogitFeed(), name="own_kl")
    assert lookup("own_kl").code not in ("", NOT_IN_A_FILE)
    assert lookup("kl").code == ""


def test_a_plugin_that_was_changed_meanwhile_is_not_taken_for_the_one_that_runs(folder):
    load_plugin(folder / "own.py")
    assert load_plugin(folder / "own.py") == ()
    (folder / "own.py").write_text((folder / "own.py").read_text() + "# other\n")
    with pytest.raises(UserError, match="has changed since it was loaded"):
        load_plugin(folder / "own.py")


def test_a_loss_that_no_file_holds_is_refused():
    space = {"register": register, "feed": LogitFeed()}
    exec("def typed(student, teacher, *, where=None): return student[..., 0]", space)
    exec("register(typed, feed=feed)", space)
    with pytest.raises(UserError, match=r"'typed' stands in no file.*--plugin") as told:
        plugin_digest("typed")
    assert "\n" not in str(told.value)
