"""How every command ends: 0, 2 for the user's mistakes, 130 when it was asked to stop."""

import contextlib
import gc
import io
import logging
import os
import re
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Sequence
from typing import TypeVar

import tyro

from distill_jax.core.errors import UserError
from distill_jax.core.memory import keep_freed_memory

Flags = TypeVar("Flags")


def parse_flags(
    flags: type[Flags], arguments: Sequence[str], prog: str, default: Flags | None = None
) -> Flags:
    """Command line flags as a dataclass; ``--help`` prints them and exits.

    Raises:
      UserError: in one line, where the flags are wrong.
    """
    told = io.StringIO()
    try:
        with contextlib.redirect_stderr(told):
            if default is None:
                return tyro.cli(flags, args=list(arguments), prog=prog)
            return tyro.cli(flags, args=list(arguments), prog=prog, default=default)
    except SystemExit as end:
        if not end.code:
            raise
        raise UserError(_in_one_line(told.getvalue(), prog)) from None


def _in_one_line(box: str, prog: str) -> str:
    """What tyro says in a box: a title, and parts with rules between them, the last on help.

    Where the terminal knows ASCII only, the rules are hyphens.
    """
    lines = [line.strip("│ ") for line in box.splitlines() if not re.match(r"\s*[╭╰]", line)]
    parts = re.split(r"\n(?:─+|-{20,})\n", "\n".join(lines))
    said = [re.sub(r"\s+", " ", part).strip(" .") for part in parts if "full helptext" not in part]
    return ". ".join([*filter(None, said), f"All flags: {prog} --help"])


def run(command: Callable[[], object]) -> None:
    """Run a command and leave the process with the exit code it deserves.

    A ``UserError`` is one line on standard error and exit code 2, without a traceback; any
    other exception is a bug of ours and keeps its traceback.
    """
    # Imports and traces are many small objects that stay: looking for garbage among them took a
    # tenth of a short command. Training leaves none behind, however many steps it takes.
    gc.set_threshold(100_000, 50, 100)
    keep_freed_memory()
    warnings.filterwarnings("ignore", module="orbax|etils|tensorflow_datasets")
    for name in ("absl", "distill_jax"):  # libraries' talk; ours is printed by the commands
        logging.getLogger(name).setLevel(logging.ERROR)
    if threading.current_thread() is threading.main_thread():
        # SIGTERM ends like Ctrl-C where nothing else is said of it, rather than without a word.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        command()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("\nstopped at once; what was finished before is kept", file=sys.stderr)
        _leave(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        # Interrupted lives in a room that imports JAX; by its name it costs nothing here.
        if type(error).__name__ != "Interrupted":
            raise
        print(
            "\nstopped as you asked; the state is saved and the same command goes on from here",
            file=sys.stderr,
        )
        _leave(130)


def _leave(code: int) -> None:
    """Exit without waiting for threads that read ahead."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
