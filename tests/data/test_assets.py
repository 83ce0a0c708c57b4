import hashlib
import json
import subprocess
import sys
import zipfile

import pytest

from distill_jax.core.digests import sha256_file
from distill_jax.core.errors import UserError
from distill_jax.data import assets
from distill_jax.data.assets import ASSETS, Asset, Member

CONTENT = {"toy_data/one.txt": b"first\n", "toy_data/two.txt": b"second\n"}


def wheel(folder, content):
    """A wheel that pip accepts, written by hand."""
    folder.mkdir(exist_ok=True)
    path = folder / "toy_data-1.0-py3-none-any.whl"
    info = "toy_data-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as bundle:
        for name, data in content.items():
            bundle.writestr(name, data)
        bundle.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: toy-data\nVersion: 1.0\n")
        bundle.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        bundle.writestr(f"{info}/RECORD", "")
    return path


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A folder that pip takes for its only index."""
    folder = tmp_path / "index"
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.delenv("PIP_EXTRA_INDEX_URL", raising=False)
    return folder


@pytest.fixture
def toy(index, monkeypatch):
    """The asset ``toy``, and its wheel in the index."""
    path = wheel(index, CONTENT)
    asset = Asset(
        package="toy-data",
        version="1.0",
        sha256=sha256_file(path),
        sdist=False,
        members=tuple(
            Member(name, len(data), hashlib.sha256(data).hexdigest())
            for name, data in CONTENT.items()
        ),
        about="a toy",
        terms="TERMS OF USE",
    )
    monkeypatch.setitem(ASSETS, "toy", asset)
    return asset


def leftovers(home):
    return [p.name for p in (home / "assets").iterdir()] if (home / "assets").exists() else []


def test_fetch_takes_the_members_and_says_what_they_are(toy, tmp_path):
    home = tmp_path / "home"
    assert not assets.installed("toy", home)
    folder = assets.fetch("toy", home)
    assert assets.installed("toy", home)
    assert {p.name for p in folder.iterdir()} == {"one.txt", "two.txt", "manifest.json"}
    assert (folder / "two.txt").read_bytes() == b"second\n"
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["artefact_sha256"] == toy.sha256
    assert manifest["members"]["one.txt"] == {"size": 6, "sha256": sha256_file(folder / "one.txt")}
    assert leftovers(home) == [folder.name]


def test_fetch_happens_once_and_terms_are_shown_once(toy, index, tmp_path, capfd):
    first = assets.fetch("toy", tmp_path / "home")
    said = capfd.readouterr().err
    assert said.count("TERMS OF USE") == 1 and "fetching toy" in said
    (index / "toy_data-1.0-py3-none-any.whl").unlink()
    assert assets.fetch("toy", tmp_path / "home") == first
    assert capfd.readouterr() == ("", "")


def test_another_artefact_under_the_same_name_is_refused(toy, index, tmp_path):
    wheel(index, {**CONTENT, "toy_data/three.txt": b"smuggled"})
    with pytest.raises(UserError, match="another SHA-256 than the pinned one"):
        assets.fetch("toy", tmp_path / "home")
    assert leftovers(tmp_path / "home") == []


def test_an_index_without_the_package(toy, index, tmp_path):
    (index / "toy_data-1.0-py3-none-any.whl").unlink()
    with pytest.raises(UserError, match="pip says: No matching distribution found") as caught:
        assets.fetch("toy", tmp_path / "home")
    assert "\n" not in str(caught.value)
    assert leftovers(tmp_path / "home") == []


@pytest.mark.parametrize(
    ("last", "told"),
    [
        ("OSError: [Errno 28] No space left on device", "no space left on device.*TMPDIR"),
        (
            "PermissionError: [Errno 13] Permission denied: '/x'",
            "pip says: PermissionError: .Errno",
        ),
    ],
)
def test_what_pip_did_not_expect_is_said(toy, tmp_path, monkeypatch, last, told):
    """Its own words for it are "ERROR: Exception:" and a traceback."""
    stderr = f"ERROR: Exception:\nTraceback (most recent call last):\n  File x, line 1\n{last}\n"

    def pip(command, **options):
        return subprocess.CompletedProcess(command, 2, "", stderr)

    monkeypatch.setattr(assets.subprocess, "run", pip)
    with pytest.raises(UserError, match=f"cannot be fetched: {told}") as caught:
        assets.fetch("toy", tmp_path / "home")
    assert "\n" not in str(caught.value)
    assert leftovers(tmp_path / "home") == []


def test_an_index_that_cannot_be_reached(toy, tmp_path, monkeypatch):
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "1")
    monkeypatch.setenv("PIP_TIMEOUT", "1")
    with pytest.raises(UserError, match=r"cannot be fetched: .*is the package index") as caught:
        assets.fetch("toy", tmp_path / "home")
    assert "\n" not in str(caught.value)


def test_a_python_without_pip(toy, tmp_path, monkeypatch):
    fake = tmp_path / "python"
    fake.write_text('#!/bin/sh\necho "python: No module named pip" >&2\nexit 1\n')
    fake.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(fake))
    with pytest.raises(UserError, match=r"this Python has no pip; run .*ensurepip"):
        assets.fetch("toy", tmp_path / "home")


@pytest.mark.parametrize(
    ("damage", "fault"),
    [
        (lambda file: file.unlink(), "is missing"),
        (lambda file: file.write_bytes(b"first"), "has 5 bytes instead of 6"),
        (lambda file: file.write_bytes(b"First\n"), "has changed"),
    ],
)
def test_a_damaged_member_is_named(toy, tmp_path, damage, fault):
    folder = assets.fetch("toy", tmp_path / "home")
    damage(folder / "one.txt")
    with pytest.raises(UserError, match=rf"one\.txt {fault}.*[Dd]elete the folder {folder}"):
        assets.fetch("toy", tmp_path / "home")


def test_a_member_that_differs_from_its_pin_is_not_kept(toy, tmp_path, monkeypatch):
    wrong = Member("toy_data/one.txt", 6, "0" * 64)
    monkeypatch.setitem(ASSETS, "toy", Asset(**{**vars(toy), "members": (wrong,)}))
    with pytest.raises(UserError, match=r"one\.txt has changed"):
        assets.fetch("toy", tmp_path / "home")
    assert leftovers(tmp_path / "home") == []


def test_an_unknown_asset():
    with pytest.raises(UserError, match=r"unknown asset 'minilm'\. Did you mean 'minilm-l6'"):
        assets.fetch("minilm")


def test_members_have_names_of_their_own():
    for name, asset in ASSETS.items():
        names = [member.name for member in asset.members]
        assert len(set(names)) == len(names), name
        assert not any({"/", "!"} & set(name) or name.startswith(".") for name in names)


@pytest.mark.parametrize("name", list(ASSETS))
def test_the_real_assets(name, fetch_asset):
    folder = fetch_asset(name)
    assert {p.name for p in folder.iterdir()} == {
        "manifest.json",
        *(member.name for member in ASSETS[name].members),
    }


def test_importing_assets_brings_no_jax_and_no_tfds():
    code = (
        "import sys, distill_jax.data.assets, distill_jax.data.load;"
        "sys.exit(bool({'jax', 'tensorflow', 'tensorflow_datasets'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
