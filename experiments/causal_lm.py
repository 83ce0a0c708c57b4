"""A small decoder distilled token by token from a larger one: the losses serve generation.

    python experiments/causal_lm.py
    python experiments/causal_lm.py --preset smoke

The texts are the movie review snippets, cut into a vocabulary of their own. The teacher, a decoder
of 4 layers, learns to say the next token. Students of 2 layers learn from the texts alone, from
what the teacher says of every token (KL, forward and reverse, or both with the texts), all for the
same steps. Perplexity is on held-out texts; the KL a token says how far a student is from its
teacher there.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from distill_jax.cli.experiment import TableFlags
from distill_jax.cli.run import parse_flags, run
from distill_jax.engine.options import Precision

if TYPE_CHECKING:
    from distill_jax.engine.sweep import Sweep

NAME = "causal_lm"
ROWS = ("ce", "kl", "0.5*kl + 0.5*ce", "reverse_kl", "hidden_mse + kl")


@dataclass(frozen=True)
class CausalLM(TableFlags):
    """Ways of distilling a decoder, on review texts."""

    preset: Literal["default", "smoke"] = "default"
    """default: as committed under experiments/results. smoke: the whole path in a minute."""
    data: str = "review_snippets/movie"
    """Another data set: files:FOLDER, text:FILE, tfds:NAME ..."""
    text: str = "sentence"
    """Column of the text (files:, text: and tfds: only)."""
    seeds: tuple[int, ...] = ()
    """0 1 2 by default."""
    precision: Precision = "bf16"
    """bf16: students and teacher compute in bfloat16. bf16-params: students' parameters are
    bfloat16 too. f32: in float32."""
    output_dir: Path = Path("results")
    """Everything goes to folders under this one: causal_lm, and causal_lm-teacher; with -smoke
    behind them for that preset."""

    @property
    def small(self) -> bool:
        return self.preset == "smoke"

    def folder(self, what: str = "") -> Path:
        """Of results."""
        return self.output_dir / f"{NAME}{what}{'-smoke' if self.small else ''}"


def declare(flags: CausalLM, teacher: Path | None = None) -> "Sweep[Any]":
    """The teacher; or, once it is there, its students: objectives x seeds."""
    from distill_jax.engine.cell import Cell, Train
    from distill_jax.engine.sweep import Sweep, axis
    from distill_jax.tasks.language.cells import (
        LanguageDataConfig,
        LanguageSetup,
        LanguageTraining,
    )
    from distill_jax.tasks.language.columns import COLUMNS, NLL
    from distill_jax.training.optimizer import OptimizerConfig

    data = LanguageDataConfig(
        flags.data, flags.text, max_length=48, vocab_size=200 if flags.small else 4000
    )
    training = LanguageTraining(
        epochs=4.0 if teacher else 8.0,
        steps=4 if flags.small else 0,
        evaluations=2 if flags.small else 8,
        batch_size=32,
        max_shapes=1 if flags.small else 4,
        optimizer=OptimizerConfig(learning_rate=1e-3),
    )
    sizes = ("1x16x2", "1x8x2") if flags.small else ("4x192", "2x96x2")
    size = sizes[1] if teacher else sizes[0]
    setup = LanguageSetup(data, "next", size, teacher=str(teacher or ""))
    many = ROWS[:2] if flags.small else ROWS
    return Sweep(
        name=NAME if teacher else f"{NAME}-teacher",
        title=f"{flags.data}: the next token",
        base=Cell(setup, (Train("ce", training),), precision=flags.precision),
        rows=axis("objective", many if teacher else ("ce",)),
        groups=axis("student", (size,)),
        seeds=(flags.seeds or ((0, 1) if flags.small else (0, 1, 2))) if teacher else (0,),
        columns=COLUMNS,
        tested=(NLL.key,),
        protocol=(
            f"Students ({size}) start at random and take {training.epochs:g} passes over the "
            "training texts, the teacher 8. The step is chosen by the loss on validation.",
        )
        if teacher
        else (),
    )


def main(flags: CausalLM) -> None:
    """Train the teacher, then run the table of its students."""
    from distill_jax.cli.results import open_console
    from distill_jax.tasks.language.table import Language

    console = open_console()
    flags.use_plugin()
    folder = flags.folder("-teacher")
    spec, _ = flags.run(Language(declare(flags)), folder, console)
    teacher = folder / "runs" / spec.places[0].hash / "model"
    flags.run(Language(declare(flags, teacher)), flags.folder(), console)


if __name__ == "__main__":
    run(lambda: main(parse_flags(CausalLM, sys.argv[1:], "experiments/causal_lm.py")))
