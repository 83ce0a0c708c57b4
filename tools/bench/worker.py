"""What the processes that time steps have in common: the sizes, the tokens, how they are asked.

A worker prints the names of what it can do, then answers each line ``NAME STEPS`` with the seconds
of a step. It needs numpy alone, so that neither library waits for the other's imports.
"""

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

VOCABULARY, CLASSES = 30_522, 2
FIRST_WORD = 999
"""Token ids below are special, or stand for nothing."""
ZIPF = 1.25
"""The exponent by which as many different words are drawn as the movie reviews have, 12,900."""


@dataclass(frozen=True)
class Size:
    """A BERT by its sizes."""

    layers: int
    width: int
    heads: int


@dataclass(frozen=True)
class Shapes:
    """What is timed.

    Attributes:
      rows, tokens: of a batch; there is no padding.
      examples: different ones in the table.
      students: name of the task -> size.
      teacher: size.
      gemm: side of the matrices.
    """

    rows: int
    tokens: int
    examples: int
    students: Mapping[str, Size]
    teacher: Size
    gemm: int


FULL = Shapes(
    rows=64,
    tokens=32,
    examples=8512,
    students={"student step, tiny": Size(2, 128, 2), "student step, 3 x 384": Size(3, 384, 12)},
    teacher=Size(6, 384, 12),
    gemm=2048,
)
TINY = Shapes(8, 8, 64, {"student step, tiny": Size(1, 8, 2)}, Size(2, 16, 2), 64)


def draw_tokens(shapes: Shapes) -> np.ndarray:
    """int32 [examples, tokens]: words about as often as in text, by Zipf's law."""
    rng = np.random.default_rng(0)
    ranks = np.arange(1, VOCABULARY - FIRST_WORD + 1)
    weights = ranks**-ZIPF
    size = (shapes.examples, shapes.tokens)
    return (FIRST_WORD + rng.choice(len(ranks), size, p=weights / weights.sum())).astype(np.int32)


def draw_labels(shapes: Shapes) -> np.ndarray:
    """int32 [examples]."""
    return np.random.default_rng(1).integers(0, CLASSES, shapes.examples).astype(np.int32)


def draw_logits(shapes: Shapes) -> np.ndarray:
    """float32 [examples, classes], as a teacher's that was asked before."""
    return np.random.default_rng(2).normal(size=(shapes.examples, CLASSES)).astype(np.float32)


def serve(tasks: Mapping[str, Callable[[int], float]]) -> None:
    """Answer until standard input ends.

    Args:
      tasks: name -> the seconds of a step, over so many steps.
    """
    answers, sys.stdout = sys.stdout, sys.stderr  # what libraries print is no answer
    print(json.dumps(list(tasks)), file=answers, flush=True)
    for line in sys.stdin:
        name, steps = json.loads(line)
        print(json.dumps(tasks[name](steps)), file=answers, flush=True)
