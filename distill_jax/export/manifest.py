"""``export.json``: what an exported folder is, of what it was made, and what its files must be."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distill_jax.core.digests import digest, sha256_file
from distill_jax.core.errors import UserError
from distill_jax.core.fields import check_fields

MANIFEST = "export.json"
TOKENIZER = "tokenizer.json"
CLASSIFICATION = "classification"
RANKING = ("recommendation", "search")
"""Tasks whose outputs have no names."""
MOST_BYTES = 1 << 20
"""Of an ``export.json`` that is read: a larger one is none of ours."""
_MOST_FILES = 64
_FILE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}(/[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}){0,2}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What ``export.json`` says.

    Attributes:
      format: one of ``formats.names()``.
      task: what it does; ``classification``, ``recommendation``, ``search``, or another kind of
        task of texts, which the file ``TASK`` beside it says more of.
      label_names: the classes, or what else the outputs are, in the order of the logits; none where
        items are ranked.
      max_length: tokens after which texts are cut, special tokens included; of a recommender the
        items of a history that are looked at.
      pairs: whether it reads pairs of texts.
      temperature: by which logits are divided before the softmax, fitted on validation; 1 where
        none was.
      source: what it was made of: ``run``, ``model`` and other digests, and the ledger's scores.
      files: name -> SHA-256 of every file but ``export.json``.
      versions: of what wrote it.
      parity: what was checked when it was written: ``compared_with``, ``sentences``,
        ``worst_difference`` of a logit, ``tolerance``, for quantised ones the scores.
      retrieval: of vectors, how many and what their programs read, see ``vectors``.
      per_token: whether logits are of every token, [B, T, C].
    """

    format: str
    task: str
    label_names: tuple[str, ...]
    max_length: int
    pairs: bool
    temperature: float
    source: Mapping[str, Any]
    files: Mapping[str, str]
    versions: Mapping[str, str]
    parity: Mapping[str, Any]
    retrieval: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    per_token: bool = False

    def __post_init__(self) -> None:
        check_fields(self)
        if not 1 <= self.max_length <= 2**31 - 1:
            raise UserError(f"max_length must be from 1 on, not {self.max_length}")
        if not 0 < self.temperature < float("inf"):
            raise UserError(f"temperature must be a positive number, not {self.temperature}")
        named = bool(self.label_names) or self.task in RANKING
        if len(set(self.label_names)) != len(self.label_names) or not named:
            raise UserError("label_names must be different names, one at least")
        tolerance = self.parity.get("tolerance")
        if tolerance is not None and not (type(tolerance) is float and 0 < tolerance < 1):
            raise UserError(
                f"the tolerance must be a number between 0 and 1, not {tolerance!r:.80}"
            )
        if len(self.files) > _MOST_FILES:
            raise UserError(f"it lists {len(self.files)} files, more than {_MOST_FILES}")
        for name, sha256 in self.files.items():
            if not _FILE.fullmatch(name) or ".." in name or name == MANIFEST:
                raise UserError(f"{name!r:.80} is no name of a file in the folder")
            if not _SHA256.fullmatch(sha256):
                raise UserError(f"the SHA-256 of {name} is none")


def is_export(folder: Path) -> bool:
    """Whether a folder says that it is one."""
    return (folder / MANIFEST).is_file()


def tolerance_of(manifest: Manifest) -> float | None:
    """By which a logit may differ from the source's; None where the export rounds."""
    return manifest.parity.get("tolerance")


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write ``export.json``, in an ``atomic_folder``: the last file of an export."""
    content = dataclasses.asdict(manifest)
    text = json.dumps({**content, "digest": _digest(content)}, indent=1, ensure_ascii=False)
    (folder / MANIFEST).write_text(text + "\n", encoding="utf-8")


def read_manifest(folder: Path) -> Manifest:
    """Read and check ``export.json``; the files it lists are checked by ``check_files``.

    Raises:
      UserError: there is none, or it is damaged or was changed.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise UserError(
            f"{folder} is no export, it has no {MANIFEST}; distill-jax export makes one of a run"
        )
    try:
        if path.stat().st_size > MOST_BYTES:
            raise ValueError(f"it is larger than {MOST_BYTES} bytes")
        raw = json.loads(path.read_text(encoding="utf-8"))
        expected = raw.pop("digest")
        if _digest(raw) != expected:
            raise ValueError("its content has changed since it was written")
        if type(names := raw["label_names"]) is not list:
            raise ValueError("label_names must be a list")
        return Manifest(**{**raw, "label_names": tuple(names)})
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{path} is damaged: {error}") from error
    except UserError as error:
        raise UserError(f"{path} is damaged: {error}") from None


def digests_of(folder: Path) -> dict[str, str]:
    """Name -> SHA-256 of every file in a folder and below, but ``export.json``."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    found = {path.relative_to(folder).as_posix(): path for path in files}
    return {name: sha256_file(path) for name, path in found.items() if name != MANIFEST}


def check_files(folder: Path, manifest: Manifest) -> None:
    """Every file that the manifest lists is there, and is what it was.

    Raises:
      UserError: naming the file that is missing or changed.
    """
    for name, sha256 in manifest.files.items():
        path = folder / name
        if not path.is_file() or not path.resolve().is_relative_to(folder.resolve()):
            raise UserError(f"{folder} is incomplete: {name} is missing")
        try:
            found = sha256_file(path)
        except OSError as error:
            raise UserError(f"cannot read {path}: {error.strerror}") from error
        if found != sha256:
            raise UserError(
                f"{path} has changed since it was exported; export the run again, or fetch the "
                "folder anew"
            )


def _digest(content: Mapping[str, Any]) -> str:
    return digest({key: value for key, value in content.items() if key != "digest"})
