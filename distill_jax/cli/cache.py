"""``distill-jax cache``: the teacher caches that are kept, and whether they are whole."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from distill_jax.cli.run import parse_flags
from distill_jax.core.errors import UserError, unknown

if TYPE_CHECKING:
    from distill_jax.core.types import Capture
    from distill_jax.teachers.manifest import Manifest

UNCHECKED = 3
"""Exit code of ``verify`` when every digest is right but the teacher could not be asked."""

USAGE = """\
usage: distill-jax cache list
       distill-jax cache verify FOLDER|DIGEST [--sample N] [--seed N]

What teachers said is kept under DISTILL_JAX_HOME/teacher_outputs.

commands:
  list    list the caches: teacher, data, outputs, size, whole or not
  verify  check the digest of every shard, and ask the teacher again about a sample
"""


@dataclass(frozen=True)
class ListCaches:
    """List the teacher caches: digest, teacher, data, outputs, size, whole or not."""


@dataclass(frozen=True)
class Verify:
    """Check the digest of every shard, and ask the teacher again about a random sample.

    Exit code 0: all is well. 2: something is damaged or does not agree. 3: every digest is
    right, but teacher or data could not be found, so nothing was asked.
    """

    cache: Annotated[str, tyro.conf.Positional]
    """A cache's folder, or its digest (or the beginning of it)."""
    sample: int = 64
    """How many examples to ask about; 0 checks digests only."""
    seed: int = 0
    """Decides which examples."""


def main(arguments: Sequence[str]) -> None:
    """Run ``list`` or ``verify``."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE, end="")
        return
    command, *rest = arguments
    if command == "list":
        parse_flags(ListCaches, rest, "distill-jax cache list")
        list_caches()
    elif command == "verify":
        args = parse_flags(Verify, rest, "distill-jax cache verify")
        if args.sample < 0:
            raise UserError(f"--sample must not be negative, not {args.sample}")
        verify(args)
    else:
        raise unknown("command of distill-jax cache", command, ("list", "verify"))


def list_caches() -> None:
    """Print one line a cache; nothing is read but descriptions and the names of shards."""
    from distill_jax.teachers.manifest import read_manifest
    from distill_jax.teachers.shards import find_shards

    folders = cache_folders()
    for folder in folders:
        size = sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
        try:
            manifest = read_manifest(folder)
        except UserError as error:
            print(f"{folder.name}  {size / 1e6:,.1f} MB  cannot be used: {error}")
            continue
        there = len(find_shards(folder, manifest.shards))
        state = "whole" if there == manifest.shards else f"{there} of {manifest.shards} shards"
        print(f"{folder.name}  {size / 1e6:,.1f} MB  {state}  {describe(manifest)}")
    print(f"{len(folders)} teacher caches in {_root()}")


def verify(args: Verify) -> None:
    """Digests first, then the teacher.

    Raises:
      UserError: in one line, for what is damaged or does not agree.
    """
    folder = find_cache(args.cache)

    from distill_jax.teachers.cache import damaged_shards, open_cache
    from distill_jax.teachers.manifest import Damaged, read_index, read_manifest
    from distill_jax.teachers.verify import compare_sample, sample_rows, tolerance

    manifest = read_manifest(folder)
    index = read_index(folder, manifest)
    print(f"{folder}: {describe(manifest)}", flush=True)
    broken, missing = damaged_shards(folder, manifest)
    if broken or missing:
        states = {"damaged": broken, "missing": missing}
        told = [f"{word}: shard {_numbers(which)}" for word, which in states.items() if which]
        raise Damaged(folder, f"of {manifest.shards} shards, {'; '.join(told)}")
    print(f"all {manifest.shards} shards have the digest they were written with", flush=True)
    if not args.sample:
        return

    from distill_jax.tasks.classification.cache_origin import load_origin

    provenance = manifest.provenance
    try:
        teacher, table = load_origin(manifest.origin, provenance, index.ids)
    except UserError as error:
        print(f"digests only, the teacher was not asked: {error}", file=sys.stderr)
        sys.exit(UNCHECKED)
    rows = sample_rows(len(table), args.sample, args.seed)
    cache = open_cache(folder, provenance, table)
    differences = compare_sample(cache, provenance, table, teacher, rows)
    limit = tolerance(provenance)
    wrong = {name: by for name, by in differences.items() if not by <= limit}
    for name, by in differences.items():
        print(f"  {name}: largest difference {by:.1e} of the largest value")
    if wrong:
        name = max(wrong, key=lambda key: wrong[key])
        raise UserError(
            f"the teacher cache {folder} does not say what its teacher says: {name} differs by "
            f"{wrong[name]:.1e} of its largest value, {limit:.0e} is allowed; delete that folder"
        )
    print(f"{len(rows)} of {len(table):,} examples: the teacher says the same (within {limit:.0e})")


def find_cache(name: str) -> Path:
    """The folder of a cache, by path or by digest.

    Raises:
      UserError: when there is none, or the beginning of a digest is that of several.
    """
    if Path(name).is_dir():
        return Path(name)
    found = [folder for folder in cache_folders() if folder.name.startswith(name)]
    if len(found) != 1:
        what = "no teacher cache" if not found else f"{len(found)} teacher caches"
        raise UserError(f"{what} {name!r} in {_root()}; see distill-jax cache list")
    return found[0]


def cache_folders() -> list[Path]:
    """Every folder that claims to be a cache."""
    if not _root().is_dir():
        return []
    return sorted(path for path in _root().iterdir() if path.is_dir() and path.name[0] != ".")


def describe(manifest: "Manifest") -> str:
    """Teacher, data, outputs and size of a cache, for people."""
    origin, made_of = manifest.origin, manifest.provenance
    data = origin.get("data")
    name = data.get("name") if isinstance(data, dict) else None
    return ", ".join(
        [
            f"teacher {origin.get('teacher', '?')} ({made_of.teacher})",
            f"data {name or '?'} ({made_of.data}), {manifest.examples:,} examples",
            f"top {made_of.top_k} logits" if made_of.top_k else "logits",
            *_outputs(made_of.capture, made_of.dtype),
            *([] if made_of.precision == "f32" else [f"computed in {made_of.precision}"]),
        ]
    )


def _outputs(capture: "Capture", dtype: str) -> list[str]:
    kinds = {kind: layers for kind, layers in vars(capture).items() if layers}
    return [f"{kind} {','.join(map(str, layers))} in {dtype}" for kind, layers in kinds.items()]


def _numbers(numbers: Sequence[int]) -> str:
    shown = ", ".join(map(str, numbers[:5]))
    return shown if len(numbers) <= 5 else f"{shown} and {len(numbers) - 5} more"


def _root() -> Path:
    from distill_jax.core.files import home

    return home() / "teacher_outputs"
