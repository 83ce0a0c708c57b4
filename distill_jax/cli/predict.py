"""``distill-jax predict``: ask a trained student (or a teacher) about texts."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from distill_jax.cli.run import parse_flags
from distill_jax.core.errors import UserError


@dataclass(frozen=True)
class Predict:
    """Classify texts with a finished model.

    Each line of the output is the class, its probability, and the text.
    """

    model: Annotated[Path, tyro.conf.Positional]
    """A run's folder (results/compare_losses/runs/HASH) or any folder with a BERT classifier."""
    texts: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """Texts; without any, one text a line is read from standard input."""
    max_length: int = 128
    """Tokens after which a text is cut."""
    batch_size: int = 32


def main(arguments: Sequence[str]) -> None:
    """Load, tokenise, classify, print."""
    args = parse_flags(Predict, arguments, "distill-jax predict")
    folder = args.model / "model" if (args.model / "model").is_dir() else args.model
    if not folder.is_dir():
        raise UserError(f"no model at {args.model}: expected the folder of a finished run")
    texts = args.texts or _lines_of_standard_input()
    if not texts:
        raise UserError("no texts: give some as arguments or on standard input")

    from distill_jax.evaluation.predict import classify_texts

    for text, name, probability in classify_texts(
        folder, texts, max_length=args.max_length, batch_size=args.batch_size
    ):
        print(f"{name}\t{probability:.3f}\t{text}")


def _lines_of_standard_input() -> tuple[str, ...]:
    lines = []
    for number, line in enumerate(sys.stdin.buffer, 1):
        try:
            lines.append(line.decode("utf-8").rstrip("\r\n"))
        except UnicodeDecodeError as error:
            raise UserError(f"standard input, line {number}: expected UTF-8 ({error})") from error
    return tuple(lines)
