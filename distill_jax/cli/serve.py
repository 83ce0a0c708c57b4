"""``distill-jax serve``: answer about texts over HTTP."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from distill_jax.cli.run import parse_flags
from distill_jax.core.errors import UserError
from distill_jax.serving.settings import DEFAULTS, Settings


@dataclass(frozen=True)
class Serve:
    """Serve a finished model: POST /predict with {"text": "..."}, a page to try it at /.

    It answers as distill-jax predict does, whatever it was trained for. Everything else is at
    /docs. SIGTERM and Ctrl-C stop it when what it took is answered.
    """

    model: Annotated[Path, tyro.conf.Positional]
    """A folder that distill-jax export wrote, or a run's (results/compare_losses/runs/HASH)."""
    host: str = "127.0.0.1"
    """Address to listen at; 0.0.0.0 for all, which wants --tokens."""
    port: int = 8000
    """Port to listen at; 0 for any that is free, which is then said."""
    tokens: Path | None = None
    """File of the callers' tokens, one a line; callers send Authorization: Bearer TOKEN."""
    hosts: tuple[str, ...] = ()
    """Names that requests may ask for, as a proxy in front passes them on; by default those of the
    loopback where the server listens there alone, else any."""
    threads: int | None = None
    """Of an export; by default what its runtime likes best."""
    settings: Annotated[Settings, tyro.conf.OmitArgPrefixes, tyro.conf.arg(name="limits")] = (
        DEFAULTS
    )


def main(arguments: Sequence[str]) -> None:
    """Open the model, listen, answer until it is told to stop."""
    args = parse_flags(Serve, arguments, "distill-jax serve")
    if not args.model.is_dir():
        raise UserError(
            f"no model at {args.model}: expected a folder that distill-jax export wrote, or a run's"
        )

    from distill_jax.serving.server import serve
    from distill_jax.serving.tokens import read_tokens

    serve(
        args.model,
        args.settings,
        host=args.host,
        port=args.port,
        tokens=None if args.tokens is None else read_tokens(args.tokens),
        hosts=args.hosts,
        threads=args.threads,
        say=lambda line: print(line, file=sys.stderr, flush=True),
    )
