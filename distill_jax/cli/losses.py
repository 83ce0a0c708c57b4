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

    from distill_jax.objectives.plugins import load_plugin
    from distill_jax.objectives.registry import describe, lookup, names

    if args.plugin is not None:
        load_plugin(args.plugin)
    if args.name is not None:
        print(describe(args.name))
        return
    width = max(map(len, names()))
    for name in names():
        print(f"  {name:<{width}}  {lookup(name).doc.strip().splitlines()[0]}")
    print("\ndistill-jax losses NAME shows formula, source, an example and arguments.")
