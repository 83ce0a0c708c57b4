"""Provenance: the commit, whether code differs from it, packages, device, time."""

import datetime
import platform
import subprocess

import jax
import pytest

import distill_jax
from distill_jax.tables import provenance


def git(root, *arguments):
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    subprocess.run(["git", "-C", str(root), *identity, *arguments], check=True, capture_output=True)


@pytest.fixture
def checkout(tmp_path):
    (tmp_path / "distill_jax").mkdir()
    (tmp_path / "experiments" / "results").mkdir(parents=True)
    (tmp_path / "distill_jax" / "a.py").write_text("1\n")
    (tmp_path / "experiments" / "results" / "ledger.jsonl").write_text("{}\n")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "x")
    return tmp_path


def test_a_checkout_has_a_commit_and_is_dirty_only_when_code_differs(checkout):
    clean = provenance.describe_code(checkout)
    head = subprocess.check_output(["git", "-C", str(checkout), "rev-parse", "HEAD"], text=True)
    assert clean == {"version": distill_jax.__version__, "commit": head.strip(), "dirty": False}
    (checkout / "experiments" / "results" / "ledger.jsonl").write_text("{}\n{}\n")
    assert provenance.describe_code(checkout) == clean
    (checkout / "distill_jax" / "a.py").write_text("2\n")
    assert provenance.describe_code(checkout) == {**clean, "dirty": True}


def test_an_uncommitted_file_is_code_that_differs(checkout):
    (checkout / "distill_jax" / "new.py").write_text("2\n")
    assert provenance.describe_code(checkout)["dirty"]


def test_outside_a_checkout_there_is_only_the_version(tmp_path, checkout, monkeypatch):
    only = {"version": distill_jax.__version__}
    # Installed somewhere below another project's checkout: that commit is not ours.
    assert provenance.describe_code(checkout / "distill_jax") == only
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    assert provenance.describe_code(checkout) == only


def test_fields_of_a_row():
    fields = provenance.provenance()
    assert set(fields) == {"code", "packages", "device", "finished_at"}
    assert fields["packages"]["jax"] == jax.__version__
    assert fields["packages"]["python"] == platform.python_version()
    assert fields["packages"]["distill_jax"] == distill_jax.__version__
    assert fields["device"].startswith("cpu: ") and "8 JAX devices" in fields["device"]
    finished = datetime.datetime.fromisoformat(fields["finished_at"])
    assert finished.utcoffset() == datetime.timedelta(0)
