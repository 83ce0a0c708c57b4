"""How every command ends: 0, 2 for the user's mistakes, 130 when it was asked to stop."""

import logging
import os
import sys
import warnings
from collections.abc import Callable

from distill_jax.core.errors import UserError


def run(command: Callable[[], object]) -> None:
    """Run a command and leave the process with the exit code it deserves.

    A ``UserError`` is one line on standard error and exit code 2, without a traceback; any
    other exception is a bug of ours and keeps its traceback.
    """
    warnings.filterwarnings("ignore", module="orbax|etils|tensorflow_datasets")
    for name in ("absl", "distill_jax"):  # libraries' talk; ours is printed by the commands
        logging.getLogger(name).setLevel(logging.ERROR)
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
