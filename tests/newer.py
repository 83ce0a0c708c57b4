"""New reviews for the toy student: other words decide, and some are unknown."""

import csv
import random
from functools import partial
from pathlib import Path

import jax
from rich.console import Console

from distill_jax.compression import pipeline
from distill_jax.compression.updating import update_run
from distill_jax.core.mesh import make_mesh
from distill_jax.engine.engine import Engine
from distill_jax.engine.options import RunOptions
from distill_jax.engine.progress import Reporter

FILLERS = ("the", "film", "is", "was", "plot", "superb", "awful", "very")


def make_newer(
    folder: Path,
    sizes: dict[str, int],
    *,
    labels: bool = True,
    verdicts: tuple[str, str] = ("music", "cast"),
    seed: int = 1,
) -> str:
    """``files:FOLDER`` of texts in which ``music`` is positive and ``cast`` negative.

    Args:
      verdicts: other words for these.
      seed: another makes other texts; what a teacher said of the same ones is in its cache.
    """
    folder.mkdir(parents=True)
    rng = random.Random(seed)
    for split, size in sizes.items():
        with open(folder / f"{split}.csv", "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["sentence", "label"] if labels else ["sentence"])
            for number in range(size):
                words = rng.choices(FILLERS, k=9)
                verdict = verdicts[number % 2]
                words.insert(rng.randrange(9), verdict)
                text = " ".join([*words, f"n{split}{number}"])
                writer.writerow([text, ("pos", "neg")[number % 2]] if labels else [text])
    return f"files:{folder}"


def brought_up(run: Path, data: str, output: Path, *, said=None, options=None, **settings):
    """An update in few steps; ``said`` takes what is told."""
    settings = {"objective": "ce", "steps": 30, "rate": 0.02, "rehearse": 0.5, **settings}
    return update_run(
        run,
        {"data": data, **settings},
        output,
        Reporter(Console(file=said, width=300) if said else Console(quiet=True)),
        columns={},
        options=RunOptions(**(options or {})),
    )


def on_one_device(patch) -> None:
    """Pipelines on one device, as a patch for pytest's."""
    engine = partial(Engine, mesh=make_mesh(jax.devices()[:1]))
    patch.setattr(pipeline, "Engine", engine)
