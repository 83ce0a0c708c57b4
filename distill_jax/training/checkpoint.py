"""Checkpoints with Orbax: the whole state of a run, written beside the training, whole or not.

Orbax copies the state and writes it in the background into a folder of its own. When all is on
disk, the digest of every file is written beside them, and only then the folder gets its name, the
step. So a folder with a step's name is whole as it was written, and what has happened to it since
is found before anything is read. A checkpoint takes about four times the memory of the parameters:
the student's and the losses', Adam's two moments of them, and the best student so far.
"""

import json
import shutil
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
import orbax.checkpoint as ocp

from distill_jax.core.digests import sha256_file
from distill_jax.core.distributed import is_lead, wait_for_all
from distill_jax.core.errors import UserError, first_line
from distill_jax.core.fields import check_fields
from distill_jax.core.settings import changes, describe, not_allowed, plain
from distill_jax.training.state import Params, TrainState

DIGESTS = "digests.json"
UNFINISHED, DAMAGED = "unfinished-", "damaged-"
Resume = Literal["auto", "must", "never"]


@dataclass(frozen=True)
class Snapshot:
    """What a run needs to go on as if it had never stopped.

    Attributes:
      state: the training state, its step included; of a population, stacked over its members.
      best_params: the student's parameters at the best evaluation so far; likewise.
      record: JSON: the history of evaluations, best step and score, seconds spent.
    """

    state: TrainState
    best_params: Params
    record: dict[str, Any]

    @property
    def step(self) -> int:
        """The number of finished steps; all members of a population have taken as many."""
        return int(np.max(self.state.step))


@dataclass(frozen=True)
class Identity:
    """Whose checkpoint it is; written into it, and compared before it is used.

    Attributes:
      hash: of the cell; of a population, of its members.
      config: of the cell, plain JSON; of a population ``{"0": ..., "1": ...}``.
    """

    hash: str = ""
    config: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Policy:
    """What is kept, and what a run may go on from.

    Attributes:
      resume: ``auto``: the latest whole checkpoint, saying so where later ones are damaged;
        ``must``: the latest, which has to be whole; ``never``: none, what is there is deleted.
      keep: the last so many checkpoints stay.
      allow_change: settings in which a checkpoint's run may differ from the one that goes on.
    """

    resume: Resume = "auto"
    keep: int = 2
    allow_change: tuple[str, ...] = ()


def silent(line: str) -> None:
    """Tells nobody."""


class Checkpoints:
    """The latest snapshots of one run, in a folder of its own; a context that waits at its end.

    Args:
      folder: made where it is missing.
      identity: of the run.
      policy: what is kept and used.
      say: takes a line for people.

    Raises:
      UserError: when the folder cannot be written.
    """

    def __init__(
        self,
        folder: Path,
        identity: Identity | None = None,
        policy: Policy | None = None,
        say: Callable[[str], None] = silent,
    ) -> None:
        self.folder = folder.absolute()
        self._identity, self._policy = identity or Identity(), policy or Policy()
        self._say = say
        self._writer = ocp.AsyncCheckpointer(ocp.CompositeCheckpointHandler())
        self._finishing: threading.Thread | None = None
        self._failure: Exception | None = None
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if is_lead():
                self._clear()
        except OSError as error:
            raise self._cannot_write(error) from error
        wait_for_all(f"checkpoints in {self.folder}")  # are cleared before anybody looks for them

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, KeyboardInterrupt):
            return  # at once
        self._join()
        with suppress(Exception):  # a failure of the last save is told below
            self._writer.close()
        if self._failure is not None and error is None:
            # Training is over and in memory: what it needed a checkpoint for is no longer needed.
            self._say(f"note: {self._cannot_write(self._failure)}")

    def save(self, snapshot: Snapshot, *, wait: bool = False) -> None:
        """Copy a snapshot and write it in the background, after the one before it.

        Args:
          wait: until it is whole on disk.

        Raises:
          UserError: when it, or the one before, cannot be written; older ones stay as they were.
        """
        self._join()
        self.check()
        step = snapshot.step
        if step not in steps_in(self.folder):
            items = ocp.args.Composite(
                state=ocp.args.StandardSave(_fields(snapshot.state)),
                best=ocp.args.StandardSave(snapshot.best_params),
                # Python's JSON, as the record goes on changing while this one is written.
                record=ocp.args.JsonSave(json.loads(json.dumps(snapshot.record))),
                identity=ocp.args.JsonSave(plain(vars(self._identity))),
            )
            try:
                self._writer.save(self.folder / f"{UNFINISHED}{step}", args=items, force=True)
            except Exception as error:  # Orbax and TensorStore raise many kinds
                raise self._cannot_write(error) from error
            self._finishing = threading.Thread(target=self._finish, args=(step,), daemon=True)
            self._finishing.start()
        if wait:
            self._join()
            self.check()

    def check(self) -> None:
        """Ask whether the last save went well; does not wait for one that is not done.

        Raises:
          UserError: when it did not.
        """
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise self._cannot_write(failure) from failure

    def restore(self, like: TrainState) -> Snapshot | None:
        """The latest snapshot, or None when there is none.

        Args:
          like: a state of the same shapes, of arrays where the snapshot's are to be: on devices,
            or numpy's on the host.

        Raises:
          UserError: when there is one that may not be used: nothing starts afresh in silence.
        """
        damaged: dict[int, str] = {}
        for step in reversed(steps_in(self.folder)):
            if wrong := damage(self.folder / str(step)):
                damaged[step] = wrong
                if self._policy.resume == "must":
                    raise UserError(f"{self._is_damaged(damaged)}; --resume must refuses")
                continue
            self._check_identity(step)
            snapshot = self._read(step, like)
            if damaged:
                self._say(f"{self._is_damaged(damaged)}; going on from step {step} instead")
                self._set_aside(damaged)
            return snapshot
        if damaged:
            raise UserError(
                f"{self._is_damaged(damaged)}, and there is no other; --resume never, or deleting "
                "that folder, starts this run afresh"
            )
        return None

    def _finish(self, step: int) -> None:
        """In a thread: wait for Orbax, name the files' digests, give the folder its name."""
        try:
            self._writer.wait_until_finished()
            if is_lead():
                scratch = self.folder / f"{UNFINISHED}{step}"
                write_digests(scratch)
                scratch.rename(self.folder / str(step))
                for old in steps_in(self.folder)[: -self._policy.keep]:
                    shutil.rmtree(self.folder / str(old))
        except Exception as error:
            self._failure = error

    def _join(self) -> None:
        if self._finishing is not None:
            self._finishing.join()
            self._finishing = None

    def _clear(self) -> None:
        """Drop what was never finished, and with ``never`` the finished ones as well."""
        for path in self.folder.glob(f"{UNFINISHED}*"):
            while path.exists():  # threads of a write that failed may still remove files of theirs
                with suppress(FileNotFoundError):
                    shutil.rmtree(path)
        if self._policy.resume == "never" and (steps := steps_in(self.folder)):
            self._say(f"--resume never: the checkpoint of step {steps[-1]} is deleted")
            for step in steps:
                shutil.rmtree(self.folder / str(step))

    def _set_aside(self, steps: Iterable[int]) -> None:
        """Rename damaged ones: these steps are taken again."""
        if is_lead():
            for step in steps:
                aside = self.folder / f"{DAMAGED}{step}"
                shutil.rmtree(aside, ignore_errors=True)
                (self.folder / str(step)).rename(aside)

    def _check_identity(self, step: int) -> None:
        """Raises ``UserError`` where a checkpoint is of a run with other settings."""
        args = ocp.args.Composite(identity=ocp.args.JsonRestore())
        kept = self._restore(step, args)["identity"]
        try:
            theirs = Identity(**kept)
            check_fields(theirs)
        except (TypeError, UserError) as error:
            raise self._cannot_read(step, error) from error
        if theirs.hash == self._identity.hash:
            return
        found = changes(theirs.config, self._identity.config)
        refused = not_allowed(found, self._policy.allow_change)
        if refused or not found:
            what = describe(refused) or f"hash: {theirs.hash} -> {self._identity.hash}"
            keys = " ".join(refused)
            raise UserError(
                f"the checkpoint of step {step} in {self.folder} is of a run with other settings "
                f"({what}); delete that folder to start afresh"
                + (f", or go on from it with --allow-change {keys}" if keys else "")
            )

    def _read(self, step: int, like: TrainState) -> Snapshot:
        def target(x: jax.Array | np.ndarray) -> Any:
            if isinstance(x, np.ndarray):
                return x
            return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding)

        shapes = jax.tree.map(target, like)
        items = ocp.args.Composite(
            state=ocp.args.StandardRestore(_fields(shapes)),
            best=ocp.args.StandardRestore(shapes.params),
            record=ocp.args.JsonRestore(),
        )
        restored = self._restore(step, items)
        state = TrainState(**restored["state"])
        if jax.tree.map(np.shape, state) != jax.tree.map(np.shape, like):
            raise self._cannot_read(step, ValueError("it is of a run of other shapes"))
        return Snapshot(state, restored["best"], restored["record"])

    def _restore(self, step: int, args: ocp.args.Composite) -> Any:
        try:
            return self._writer.restore(self.folder / str(step), args=args)
        except Exception as error:  # Orbax raises many kinds; every one means the same to a user
            raise self._cannot_read(step, error) from error

    def _cannot_read(self, step: int, error: Exception) -> UserError:
        return UserError(
            f"the checkpoint of step {step} in {self.folder} cannot be read "
            f"({_reason(error)}); delete that folder to start this run afresh"
        )

    def _cannot_write(self, error: Exception) -> UserError:
        return UserError(f"cannot write a checkpoint to {self.folder}: {_reason(error)}")

    def _is_damaged(self, damaged: Mapping[int, str]) -> str:
        told = ", ".join(f"step {step} ({wrong})" for step, wrong in damaged.items())
        return f"the checkpoint in {self.folder} is damaged: {told}"


def _fields(state: TrainState) -> dict[str, Any]:
    """A state by its fields; without masks and rows where it has none, as before there were any."""
    later = ("masks", "rows")
    return {name: value for name, value in vars(state).items() if name not in later or value}


def steps_in(folder: Path) -> list[int]:
    """The steps of the checkpoints in a folder, in order; damaged ones are among them."""
    if not folder.is_dir():
        return []
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdecimal())


def write_digests(folder: Path) -> None:
    """Write the SHA-256 of every file in a checkpoint beside them."""
    files = {name: sha256_file(folder / name) for name in _files_in(folder)}
    (folder / DIGESTS).write_text(json.dumps(files, indent=1, sort_keys=True))


def damage(folder: Path) -> str | None:
    """What is wrong with a checkpoint on disk; None when every file is as it was written."""
    try:
        digests = json.loads((folder / DIGESTS).read_text())
        for name, sha256 in digests.items():
            if sha256_file(folder / name) != sha256:
                return f"{name} is not as it was written"
        if more := set(_files_in(folder)) - {*digests, DIGESTS}:
            return f"{min(more)} does not belong to it"
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing"
    except (OSError, ValueError, AttributeError) as error:
        return f"its digests cannot be read: {_reason(error)}"
    return None


def latest_damage(folder: Path) -> str | None:
    """What is wrong with the latest checkpoint in a folder, naming it; None when all is well."""
    if not (steps := steps_in(folder)):
        return None
    wrong = damage(folder / str(steps[-1]))
    if wrong and steps[-1] not in steps_in(folder):  # another process has gone on meanwhile
        return latest_damage(folder)
    return f"the checkpoint of step {steps[-1]} in {folder} is damaged: {wrong}" if wrong else None


def _files_in(folder: Path) -> Sequence[str]:
    return [str(path.relative_to(folder)) for path in sorted(folder.rglob("*")) if path.is_file()]


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or first_line(error)[:200]
