"""``distill-jax pretrain``: a language model and its tokeniser, from texts without labels."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from distill_jax.cli.experiment import TableFlags
from distill_jax.cli.run import parse_flags
from distill_jax.core.errors import UserError
from distill_jax.engine.options import TrackTo

if TYPE_CHECKING:
    from distill_jax.engine.sweep import Sweep

RUN = "pretraining.json"
"""In the folder that is written: which run its model is, and how it scored."""


@dataclass(frozen=True, kw_only=True)
class Pretrain(TableFlags):
    """Train a tokeniser on your own texts, then a BERT that says which of their words were hidden.

    Labels are not read. The folder that comes out is a teacher for compare-losses (--teacher
    FOLDER) and a BertForMaskedLM for transformers; what is held out of the texts says how good it
    is. After Ctrl-C the same command goes on. With --teacher the model is distilled from another,
    token by token.
    """

    output: Path
    """A new folder for the model and its tokeniser."""
    data: str = "review_snippets/movie"
    """files:FOLDER (no labels needed), text:FILE (.txt with a text a line, or rows), tfds:NAME,
    review_snippets/{movie,product,news,tweet} or shopping_reviews_zh."""
    text: str = "sentence"
    """Column of the text (files:, text: and tfds: only)."""
    vocab_size: int = 8000
    """Tokens of the tokeniser, at most. Not with --from or --teacher: their tokeniser is kept."""
    lowercase: bool = True
    """Letters lose case and accents."""
    words: Literal["pieces", "spaces"] = "pieces"
    """What is hidden as a whole. pieces: the tokens of a word, of Chinese each character. spaces:
    what stands between spaces, in texts that were cut into words before."""
    mask_share: float = 0.15
    """Share of a text's tokens that the model is asked for."""
    max_length: int = 128
    """Tokens after which a text is cut; with --causal, after which it is read on in a further
    window."""
    size: str = "4x256"
    """LAYERSxWIDTH (heads of 64), LAYERSxWIDTHxHEADS, or tiny."""
    start: Annotated[str, tyro.conf.arg(name="from")] = ""
    """Go on from a checkpoint: a folder of this command, or any BERT's (a folder, a hub id)."""
    causal: bool = False
    """A decoder that says the next token, instead of a BERT that says hidden ones."""
    teacher: str = ""
    """Distil this model: a folder of this command, or (of hidden words) any BERT's with such a
    head."""
    objective: str = ""
    """Default: ce, with --teacher kl + ce."""
    epochs: float = 3.0
    """Passes over the training texts."""
    steps: int = 0
    """Optimiser steps; 0 leaves it to --epochs."""
    batch_size: int = 64
    learning_rate: float = 5e-4
    evaluations: int = 4
    """How often the held-out validation texts are looked at."""
    seed: int = 0
    track: TrackTo = "tensorboard"
    """Where learning curves go."""
    output_dir: Path | None = None
    """Of ledger and checkpoints; default: results/pretrain-OUTPUT."""


_UNREAD = {
    "--from": ("size", "vocab_size", "lowercase"),
    "--teacher": ("vocab_size", "lowercase"),
    "--causal": ("words", "mask_share"),
}
"""A flag -> those that mean nothing beside it: model and tokeniser are there, no word is hidden."""


def sweep_of(args: Pretrain) -> "Sweep[Any]":
    """The table of one cell that the arguments declare.

    Raises:
      UserError: for a flag that nothing would read.
    """
    _check_read(args)
    from distill_jax.engine.cell import Cell, Train
    from distill_jax.engine.sweep import Sweep, axis
    from distill_jax.tasks.language.cells import (
        LanguageDataConfig,
        LanguageSetup,
        LanguageTraining,
    )
    from distill_jax.tasks.language.columns import COLUMNS, NLL
    from distill_jax.training.optimizer import OptimizerConfig

    objective = args.objective or ("kl + ce" if args.teacher else "ce")
    data = LanguageDataConfig(
        args.data,
        args.text,
        args.max_length,
        args.vocab_size,
        args.lowercase,
        args.words,
        args.mask_share,
    )
    training = LanguageTraining(
        epochs=args.epochs,
        steps=args.steps,
        evaluations=args.evaluations,
        batch_size=args.batch_size,
        optimizer=OptimizerConfig(learning_rate=args.learning_rate),
    )
    setup = LanguageSetup(
        data,
        "next" if args.causal else "masked",
        args.size,
        start=args.start,
        teacher=args.teacher,
    )
    what = "the next token" if args.causal else "hidden words"
    return Sweep(
        name="pretrain",
        title=f"{args.data}: {what}",
        base=Cell(setup, (Train(objective, training),), precision=args.precision),
        rows=axis("objective", (objective,)),
        groups=axis("student", (f"from {args.start}" if args.start else args.size,)),
        seeds=(args.seed,),
        columns=COLUMNS,
        tested=(NLL.key,),
        group_title="model",
    )


def main(arguments: Sequence[str]) -> None:
    """Train, write the folder, say what can be done with it."""
    args = parse_flags(Pretrain, arguments, "distill-jax pretrain")
    _check_output(args.output)
    args.use_plugin()

    from distill_jax.cli.results import open_console
    from distill_jax.core.distributed import is_lead
    from distill_jax.tasks.language.table import Language

    folder = args.output_dir or Path("results") / f"pretrain-{args.output.name}"
    spec, rows = args.run(Language(sweep_of(args)), folder, open_console())
    if is_lead() and args.options.share.whole:
        [row] = [row for row in rows if row.hash == spec.places[0].hash]
        keep(folder / "runs" / row.hash / "model", args.output, row.hash, row.metrics)
        print(args.output)


def _check_read(args: Pretrain) -> None:
    usual = {each.name: each.default for each in fields(Pretrain)}
    given = {"--from": args.start, "--teacher": args.teacher, "--causal": args.causal}
    for flag, unread in _UNREAD.items():
        for name in unread if given[flag] else ():
            if getattr(args, name) != usual[name]:
                raise UserError(f"--{name.replace('_', '-')} has no meaning with {flag}")


def _check_output(output: Path) -> None:
    """Raises ``UserError`` for a folder that holds something else."""
    if output.exists() and not output.is_dir():
        raise UserError(f"--output {output} is a file")
    if output.is_dir() and any(output.iterdir()) and not (output / RUN).is_file():
        raise UserError(f"--output {output} is not empty; choose another folder")


def keep(model: Path, output: Path, run: str, metrics: Any) -> None:
    """Copy a run's model, whole or not at all; nothing is done where it is there already.

    Raises:
      UserError: where the model of another run is there.
    """
    from distill_jax.core.files import atomic_folder

    if (output / RUN).is_file():
        try:
            there = json.loads((output / RUN).read_text())["run"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{output / RUN} is damaged ({error}); delete {output}") from error
        if there != run:
            raise UserError(
                f"--output {output} holds the model of another run, {there}; this one, {run}, "
                f"is in {model}: choose another --output, and it is copied there"
            )
        return
    if output.is_dir():
        output.rmdir()  # empty, as was checked
    with atomic_folder(output) as scratch:
        shutil.copytree(model, scratch, dirs_exist_ok=True)
        scores = {name: value for name, value in metrics.items() if name.startswith("test/")}
        (scratch / RUN).write_text(json.dumps({"run": run, **scores}, indent=1) + "\n")
