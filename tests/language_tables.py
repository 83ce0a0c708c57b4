"""Tables of language models that take seconds."""

from functools import partial
from pathlib import Path

import jax

from distill_jax.core.mesh import make_mesh
from distill_jax.engine import run as run_module
from distill_jax.engine.cell import Cell, Train
from distill_jax.engine.engine import Engine
from distill_jax.engine.sweep import Sweep, axis, points
from distill_jax.tasks.language.cells import (
    LanguageDataConfig,
    LanguageSetup,
    LanguageTraining,
)
from distill_jax.tasks.language.columns import COLUMNS, NLL
from distill_jax.training.optimizer import OptimizerConfig

NOUNS = ("film", "plot", "cast", "music", "story", "ending")
TRAINING = LanguageTraining(
    steps=4,
    evaluations=2,
    batch_size=8,
    max_shapes=1,
    optimizer=OptimizerConfig(learning_rate=3e-3),
)


def write_texts(folder: Path, count: int = 60) -> Path:
    """A file of texts that repeat themselves, so that words can be guessed."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [
        f"the {NOUNS[n % 6]} of film number {n} was very {'good' if n % 3 else 'disappointing'}"
        for n in range(count)
    ]
    (folder / "texts.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder / "texts.txt"


def language(file, rows, *, seeds=(0,), training=TRAINING, sizes=("1x8x2",), **setup):
    """A sweep over objectives.

    Args:
      rows: label -> what it changes, or objectives.
      setup: further fields of ``LanguageSetup``.
    """
    data = LanguageDataConfig(f"text:{file}", vocab_size=80, max_length=16)
    start = LanguageSetup(data, student=sizes[0], **setup)
    return Sweep(
        name="toy_language",
        title="A toy",
        base=Cell(start, (Train("ce", training),)),
        rows=points(rows) if isinstance(rows, dict) else axis("objective", rows),
        groups=axis("student", sizes),
        seeds=seeds,
        columns=COLUMNS,
        tested=(NLL.key,),
    )


def on_one_device(patch):
    """Tables are run on one device, which compiles faster than for eight."""
    patch.setattr(run_module, "Engine", partial(Engine, mesh=make_mesh(jax.devices()[:1])))
