"""What a folder holds of earlier calls: whether they can be gone on from, and what has changed."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from distill_jax.core.digests import canonical_json
from distill_jax.core.errors import UserError
from distill_jax.core.files import write_atomic
from distill_jax.core.settings import Changes, changes, describe, flatten, not_allowed
from distill_jax.tables.ledger import LedgerRow
from distill_jax.tables.outputs import SPEC
from distill_jax.tables.spec import Place, TableSpec, Where
from distill_jax.training.checkpoint import latest_damage, steps_in
from distill_jax.training.ends import read_ends

CELLS = "runs/cells.json"
"""The settings of every run of the folder by hash, also of those that are not finished."""
CHECKPOINTS = ("*/checkpoint", "*/intermediate*-checkpoint", "populations*/*/checkpoint*")
ENDS = ("*/end.safetensors", "*/intermediate*.safetensors", "populations*/*/*.safetensors")
CONSEQUENCES = {"data": ("data_digest", "teacher_digest"), "teacher": ("teacher_digest",)}
"""What changes with a setting, and need not be allowed beside it."""
Known = tuple[Mapping[str, Any], Sequence[str]]
"""Settings of a run before its teacher is there, and which of them are not known yet or do not
count by themselves, as paths."""


def check_resumable(folder: Path, rows: Sequence[LedgerRow]) -> None:
    """Whether there is something whole to go on from, as ``--resume must`` wants it.

    Args:
      folder: of the table.
      rows: of its ledger.

    Raises:
      UserError: when there is nothing, or something is damaged.
    """
    runs = folder / "runs"
    checkpoints = [path for pattern in CHECKPOINTS for path in runs.glob(pattern) if steps_in(path)]
    ends = [path for pattern in ENDS for path in runs.glob(pattern)]
    for path in checkpoints:
        if wrong := latest_damage(path):
            raise UserError(f"{wrong}; --resume must refuses")
    for path in ends:
        read_ends(path)
    if not (rows or checkpoints or ends):
        raise UserError(f"--resume must: {folder} holds no finished run and no checkpoint")


def keep_settings(folder: Path, settings: Mapping[str, Mapping[str, Any]]) -> None:
    """Keep the settings of runs by hash, beside those that are kept already."""
    known = {**_kept_settings(folder), **settings}
    write_atomic(folder / CELLS, f"{canonical_json(known)}\n")


class Before:
    """The table that a folder held before this call.

    Args:
      folder: of the table; may be empty.
      rows: of its ledger.
      allow: settings that may differ (``--allow-change``), or their beginnings (``training``).
    """

    def __init__(self, folder: Path, rows: Sequence[LedgerRow], allow: Iterable[str]) -> None:
        self._allow = tuple(allow)
        self._settings = {**{row.hash: row.config for row in rows}, **_kept_settings(folder)}
        path = folder / SPEC
        places = TableSpec.from_json(path.read_text()).places if path.is_file() else ()
        self._hashes = {place.where: place.hash for place in places}

    def refuse_early(self, entries: Iterable[tuple[Where, Known]]) -> None:
        """Compare all that is known of cells before their teacher is trained.

        Raises:
          UserError: when a setting has changed that may not.
        """
        for where, (new, late) in entries:
            if old := self._settings.get(self._hashes.get(where, "")):
                known = dict(flatten(old))  # a setting that there was not may be as it always was
                found = {key: v for key, v in changes(old, new).items() if key in known}
                names = () if "data_digest" in found else ("data",)
                self._refuse(where, not_allowed(found, (*late, *names)))

    def refuse(self, entries: Iterable[tuple[Place, Mapping[str, Any]]]) -> None:
        """Compare runs by their hashes.

        Args:
          entries: where a run stands, and its settings.

        Raises:
          UserError: when another run stood there, naming what differs.
        """
        for place, new in entries:
            hash_ = self._hashes.get(place.where, place.hash)
            if hash_ == place.hash:
                continue
            old = self._settings.get(hash_)
            found = changes(old, new) if old else {}
            for what in ("data", "teacher"):  # names do not count where the content is the same
                if f"{what}_digest" not in found:
                    found = not_allowed(found, [what])
            self._refuse(place.where, found or {"recipe": ("an earlier one", "this version's")})

    def _refuse(self, where: Where, found: Changes) -> None:
        allowed = [*self._allow]
        for key in self._allow:
            allowed += CONSEQUENCES.get(key.split(".")[0], ())
        if refused := not_allowed(found, allowed):
            row, group, seed, candidate = where
            row = f"{row}: {candidate}" if candidate else row
            raise UserError(
                f"this folder holds another run at {row}, {group}, seed {seed}: "
                f"{describe(refused)}. Choose another folder for the output, or let the new runs "
                f"take their places with --allow-change {' '.join(refused)}"
            )


def _kept_settings(folder: Path) -> dict[str, Any]:
    path = folder / CELLS
    try:
        return json.loads(path.read_text()) if path.is_file() else {}
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is damaged ({error}); delete it") from error
