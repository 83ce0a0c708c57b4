"""``distill-jax assets``: what travels in packages, and fetching it before it is needed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import tyro

from distill_jax.cli.run import parse_flags


@dataclass(frozen=True)
class Assets:
    """List the assets that come as packages, or fetch some of them."""

    fetch: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME")] = ()
    """Assets to fetch now; nothing is fetched twice. 'all' for all of them."""


def main(arguments: Sequence[str]) -> None:
    """List, or fetch and print the folders."""
    args = parse_flags(Assets, arguments, "distill-jax assets")

    from distill_jax.core.files import home
    from distill_jax.data.assets import ASSETS, fetch, installed

    for name in ASSETS if "all" in args.fetch else args.fetch:
        print(f"{name}: {fetch(name)}")
    if args.fetch:
        return
    print(f"in {home()} (DISTILL_JAX_HOME changes it):")
    width = max(map(len, ASSETS))
    for name, asset in ASSETS.items():
        state = "here" if installed(name) else "not fetched"
        print(f"  {name:<{width}}  {state:<12} {asset.package} {asset.version}")
