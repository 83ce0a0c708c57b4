"""A world in small for the benchmarks: a random checkpoint, toy reviews, a table of seconds."""

import shlex
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))
from haste import HASTE as HASTE

FLAGS = shlex.split(
    "--teacher-pooling mean --student-pooling mean --label-fraction 0.5 --students 1x8x2 "
    "--seeds 0 1 --steps 8 --evaluations 2 --batch-size 16 --teacher-batch-size 16 "
    "--teacher-epochs 1 --teacher-patience 0 --teacher-learning-rate 1e-4 --max-shapes 2 "
    "--max-length 16 --no-yardsticks --track none"
)
"""Of ``compare-losses``, beside data and teacher: what the PyTorch script can do too."""


def make_world(folder: Path) -> list[str]:
    """Write reviews and a checkpoint; the flags of ``compare-losses`` for a table of them."""
    from toys import make_reviews, make_teacher

    reviews = make_reviews(folder / "reviews", {"train": 60, "dev": 24, "test": 30})
    teacher = make_teacher(folder / "teacher")
    return flags_for(reviews, teacher)


def flags_for(reviews: Path, teacher: Path) -> list[str]:
    """The flags for a table of such a world."""
    return ["--data", f"files:{reviews}", "--teacher", str(teacher), *FLAGS]
