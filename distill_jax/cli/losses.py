"""``distill-jax losses``: the losses that an objective may name."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from distill_jax.cli.run import parse_flags


@dataclass(frozen=True)
class Losses:
    """List all losses, or show formula, source, example and arguments of one."""

    name: Annotated[str | None, tyro.conf.Positional] = None
    """A loss, e.g. kl."""
    plugin: Path | None = None
    """A Python file of yours that registers more losses."""


def main(arguments: Sequence[str]) -> None:
    """List or describe."""
    args = parse_flags(Losses, arguments, "distill-jax losses")

    from distill_jax.objectives.catalogue import describe, listing
    from distill_jax.objectives.plugins import load_plugin

    if args.plugin is not None:
        load_plugin(args.plugin)
    if args.name is not None:
        print(describe(args.name))
        return
    print(listing())
    print(
        "\nEach with what it can be read off: classes, the items of a catalogue (recommendation), "
        "lists\nof products (search), heads of several labels."
    )
    print("distill-jax losses NAME shows formula, source, an example and arguments.")
