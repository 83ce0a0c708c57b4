"""Which files of a user's folder hold which split."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from distill_jax.core.errors import UserError
from distill_jax.data.file_formats import ENDINGS

TRANSFER = "transfer"
STEMS = {
    "train": ("train", "training"),
    "validation": ("dev", "val", "valid", "validation", "eval"),
    "test": ("test", "testing"),
    TRANSFER: ("transfer", "unlabelled", "unlabeled", "unsupervised"),
}
"""What the files of a split are called, whatever the case."""
TEXT = ".txt"
"""A ``transfer`` file may be a text a line."""

_SHARD = re.compile(r"(.+)-(\d{5})-of-(\d{5})(?:-[0-9a-f]+)?")
_MOST_NAMED = 8
_SAVED, _SAVED_SPLIT = "dataset_dict.json", "state.json"
_DESCRIPTIONS = {_SAVED, "dataset_info.json", "dataset_infos.json"}


class SplitFiles(NamedTuple):
    """The files of every split that has some, and the names of those that belong to none."""

    paths: dict[str, tuple[Path, ...]]
    unused: tuple[str, ...]

    @property
    def notes(self) -> tuple[str, ...]:
        """For people."""
        return (f"files not used: {listed(self.unused)}",) if self.unused else ()


def find_split_files(
    folder: Path,
    *,
    what: str = "data files",
    extra: Sequence[str] = (),
    needed: Sequence[str] = ("train",),
) -> SplitFiles:
    """The files of a folder by split.

    ``train.csv`` and the like, whole or in the shards of the Hugging Face hub
    (``train-00000-of-00002.parquet``), in the folder or in its ``data``; or a folder a split, as
    ``save_to_disk`` of ``datasets`` makes them.

    Args:
      what: the kind of data, for errors.
      extra: stems of more files that the caller reads.
      needed: splits of which one at least has to be there.

    Raises:
      UserError: for what is no folder, has no file that is needed, or has two for one split.
    """
    if not folder.is_dir():
        if folder.is_file():
            raise UserError(
                f"{what}: {folder} is a file; give the folder that holds it and the other splits, "
                f"{folder.parent}."
            )
        raise UserError(f"{what}: no folder {folder}.")
    if (folder / _SAVED_SPLIT).is_file():
        raise UserError(
            f"{what}: {folder} is one saved Dataset without splits; save a DatasetDict with train "
            "and test (dataset.train_test_split(0.1).save_to_disk(...))."
        )
    found = _found(folder, what, extra)
    if found.paths.keys().isdisjoint(needed) and (folder / "data").is_dir():
        found = _found(folder / "data", what, extra)
    if found.paths.keys().isdisjoint(needed):
        names = ", ".join(f"{needed[0]}{end}" for end in ENDINGS if not end.endswith(".gz"))
        there = listed(_names_in(folder)) or "nothing"
        raise UserError(
            f"{what}: no {' or '.join(needed)} file in {folder}, which holds {there}; expected one "
            f"of {names}."
        )
    return found


def listed(names: Sequence[str]) -> str:
    """The first few names, and how many more there are."""
    few = [name if len(name) <= 60 else f"{name[:57]}..." for name in names[:_MOST_NAMED]]
    more = len(names) - len(few)
    return ", ".join(few) + (f" and {more:,} more" if more else "")


def _found(folder: Path, what: str, extra: Sequence[str]) -> SplitFiles:
    stems = {stem: split for split, names in STEMS.items() for stem in names}
    candidates: dict[str, list[Path]] = {}
    used = set(_DESCRIPTIONS)
    for path in sorted(folder.iterdir()):
        stem, ending = _name_of(path)
        split = stems.get(stem)
        readable = ending in ENDINGS or (ending == TEXT and split == TRANSFER)
        saved = (path / _SAVED_SPLIT).is_file()
        if split and (saved or (readable and path.is_file())):
            candidates.setdefault(split, []).append(path)
        elif stem in extra and path.is_file():
            used.add(path.name)
    paths = {split: _parts(folder, found, split, what) for split, found in candidates.items()}
    used |= {path.name for found in candidates.values() for path in found}
    unused = tuple(name for name in _names_in(folder) if name.removesuffix("/") not in used)
    return SplitFiles({split: paths[split] for split in STEMS if split in paths}, unused)


def _names_in(folder: Path) -> list[str]:
    """Of what a folder holds, a folder's with ``/``; nothing that is hidden."""
    return [
        f"{path.name}/" if path.is_dir() else path.name
        for path in sorted(folder.iterdir())
        if not path.name.startswith(".")
    ]


def _name_of(path: Path) -> tuple[str, str]:
    """(stem, ending) in lower case, without the number of a shard."""
    name = path.name.lower()
    ending = next((end for end in (*ENDINGS, TEXT) if name.endswith(end)), "")
    stem = name.removesuffix(ending)
    shard = _SHARD.fullmatch(stem)
    return (shard[1] if shard else stem), ending


def _parts(folder: Path, found: list[Path], split: str, what: str) -> tuple[Path, ...]:
    """One file or folder, or all shards of one; several are an error."""
    shards = [_SHARD.fullmatch(path.name.lower().split(".")[0]) for path in found]
    whole = {(shard[1], shard[3]) for shard in shards if shard}
    if len(found) == 1 and not whole:
        return _saved(found[0]) if found[0].is_dir() else (found[0],)
    if None in shards or len(whole) > 1:
        raise UserError(
            f"{what}: both {found[0].name} and {found[1].name} in {folder}; expected one "
            f"{split} file."
        )
    (stem, count) = whole.pop()
    numbers = [int(shard[2]) for shard in shards if shard]
    if numbers != list(range(int(count))):
        raise UserError(f"{what}: of {count} parts of {stem} in {folder} there are {len(found)}.")
    return tuple(found)


def _saved(folder: Path) -> tuple[Path, ...]:
    """The Arrow files of a split that ``datasets`` saved, as its ``state.json`` lists them."""
    try:
        state = json.loads((folder / _SAVED_SPLIT).read_text(encoding="utf-8"))
        files = tuple(folder / Path(each["filename"]).name for each in state["_data_files"])
        indices = isinstance(state, Mapping) and state.get("_indices_files")
    except (OSError, LookupError, RecursionError, TypeError, ValueError) as error:
        raise UserError(
            f"{folder / _SAVED_SPLIT} is no state of a saved Dataset: {error!r}."
        ) from error
    if indices:
        raise UserError(f"{folder}: a saved Dataset with indices; save it after flatten_indices().")
    return files
