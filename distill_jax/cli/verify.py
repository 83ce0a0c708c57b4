"""``distill-jax verify``: whether an export is whole, and answers as what it was made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from distill_jax.cli.run import parse_flags
from distill_jax.core.errors import UserError


@dataclass(frozen=True)
class Verify:
    """Check an exported folder.

    Every file is compared with its digest; the answers that were kept in the folder are computed
    again; where the run it was made of is at hand, the two are compared, on your texts if you give
    some. Exit code 2, and one line that says why, where something is not as it was.
    """

    export: Annotated[Path, tyro.conf.Positional]
    """A folder that distill-jax export wrote."""
    run: Path | None = None
    """What it was made of; by default the run in whose folder it lies."""
    input: Path | None = None
    """A file of texts on which export and run are compared: as of distill-jax predict."""
    text: str | None = None
    """Column of the text in --input."""
    text_b: str | None = None
    """Column of the second text in --input."""


def main(arguments: Sequence[str]) -> None:
    """Open, ask, compare, say what was found."""
    args = parse_flags(Verify, arguments, "distill-jax verify")

    from distill_jax.export.manifest import read_manifest

    if read_manifest(args.export).format == "vectors":
        _verify_vectors(args)
    else:
        _verify_classifier(args)
    print(f"{args.export} is what it was made to be")


def _verify_vectors(args: Verify) -> None:
    from distill_jax.export.vectors import verified

    if args.input is not None:
        raise UserError("--input is for classifiers; vectors are compared on askers of their own")
    for line in verified(args.export, args.run):
        print(line)


def _verify_classifier(args: Verify) -> None:
    from distill_jax.cli.predict import rows_of_file
    from distill_jax.export.opened import open_export
    from distill_jax.export.runtime import as_classifier
    from distill_jax.export.verify import find_source, verified

    given = None if args.input is None else rows_of_file(args.input, args.text, args.text_b)
    export = open_export(args.export)
    rows = None
    if given is not None:
        form = as_classifier(export).answering
        rows = ([form.text_of(row, name) for name in given.names] for row in given.rows())
    for line in verified(export, find_source(export, args.run), rows):
        print(line)
