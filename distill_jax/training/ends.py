"""How stages of training ended, kept until the run stands in the ledger.

What comes after training (the test split, latencies, the next stage) may be stopped or killed as
well; then nothing is trained again.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy
from flax.traverse_util import flatten_dict, unflatten_dict

from distill_jax.core.digests import digest_arrays, digest_strings
from distill_jax.core.distributed import is_lead
from distill_jax.core.errors import UserError
from distill_jax.core.files import write_atomic
from distill_jax.training.checkpoint import Resume
from distill_jax.training.loop import Progress, TrainResult

Ended = TrainResult | UserError
"""A result, or what went wrong."""


def kept_or(
    path: Path,
    train: Callable[[], Sequence[Ended]],
    *,
    resume: Resume = "auto",
    say: Callable[[str], None],
) -> list[Ended]:
    """The end of a stage: read where it was reached before, else trained now and kept.

    Args:
      train: gives a result for each student of the stage.
      resume: what is done about what was kept, as of checkpoints.
      say: takes a line for people.

    Raises:
      UserError: with ``must`` when what was kept is damaged.
    """
    if path.is_file() and resume == "never":
        say(f"--resume never: {path} is deleted, its stage is trained again")
        path.unlink()
    if path.is_file():
        try:
            return read_ends(path)
        except UserError as error:
            if resume == "must":
                raise UserError(f"{error}; --resume must refuses") from error
            say(f"{error}; going on from the last checkpoint")
    ends = list(train())
    if is_lead():
        write_ends(path, ends)
    return ends


def write_ends(path: Path, ends: Sequence[Ended]) -> None:
    """Write parameters and progress, whole or not at all.

    Raises:
      UserError: when it cannot be written.
    """
    tensors: dict[str, np.ndarray] = {}
    facts = []
    for place, end in enumerate(ends):
        if isinstance(end, UserError):
            facts.append({"failure": str(end)})
            continue
        facts.append(vars(end.progress))
        for name, leaf in flatten_dict(end.params, sep="/").items():
            tensors[f"{place}/{name}"] = np.ascontiguousarray(leaf)
    text = json.dumps(facts)
    named = {"ends": text, "digest": _digest(tensors, text)}
    write_atomic(path, safetensors.numpy.save(tensors, metadata=named))


def read_ends(path: Path) -> list[Ended]:
    """What ``write_ends`` wrote.

    Raises:
      UserError: when it is not as it was written.
    """
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            named = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if named.get("digest") != _digest(tensors, named.get("ends", "")):
            raise ValueError("not as it was written")
        facts = json.loads(named["ends"])
        trees = unflatten_dict(tensors, sep="/")
        return [
            UserError(own["failure"])
            if "failure" in own
            else TrainResult(trees[str(place)], Progress(**own))
            for place, own in enumerate(facts)
        ]
    except (OSError, ValueError, KeyError, TypeError, safetensors.SafetensorError) as error:
        raise UserError(f"the end of a stage in {path} is damaged: {error}") from error


def _digest(tensors: dict[str, np.ndarray], text: str) -> str:
    return digest_strings([digest_arrays(tensors), text])
