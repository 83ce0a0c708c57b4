"""``distill-jax``: one command line. Nothing heavy is imported before a command is chosen."""

import sys
from collections.abc import Callable, Sequence

import distill_jax
from distill_jax.cli.run import run
from distill_jax.core.errors import unknown


def _compare(arguments: Sequence[str]) -> None:
    from distill_jax.cli.compare import main

    main(arguments)


COMMANDS: dict[str, tuple[str, Callable[[Sequence[str]], None]]] = {
    "compare-losses": ("train students with several objectives and compare them", _compare),
}


def main() -> None:
    """Entry point of ``distill-jax``."""
    run(lambda: dispatch(sys.argv[1:]))


def dispatch(arguments: Sequence[str]) -> None:
    """Run the subcommand that the arguments name."""
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(usage())
        return
    if arguments[0] in ("-V", "--version"):
        print(f"distill-jax {distill_jax.__version__}")
        return
    if arguments[0] not in COMMANDS:
        raise unknown("command", arguments[0], COMMANDS)
    COMMANDS[arguments[0]][1](arguments[1:])


def usage() -> str:
    """What ``distill-jax --help`` prints."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {says}" for name, (says, _) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: distill-jax COMMAND [--help] [options]",
            "",
            "Distil a BERT-style teacher into a small student, and compare the ways of doing it.",
            "",
            "commands:",
            *lines,
        ]
    )
