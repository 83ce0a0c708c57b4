"""Tables of recommenders and of search students that take seconds, for tests and the kill tool."""

import itertools
from pathlib import Path

from recsys import small_split

from distill_jax.engine.cell import Cell, Train
from distill_jax.engine.sweep import Point, Sweep, points
from distill_jax.tasks.recommendation.cells import (
    RecData,
    RecModel,
    RecommenderSetup,
    RecTeacher,
)
from distill_jax.tasks.recommendation.columns import COLUMNS as RECOMMENDATION
from distill_jax.tasks.recommendation.table import Recommendation
from distill_jax.tasks.search.cells import (
    SearchDataConfig,
    SearchSetup,
    SearchTeacherConfig,
    SearchTraining,
)
from distill_jax.tasks.search.columns import COLUMNS as SEARCH
from distill_jax.training.recommender import FitConfig

FIT = FitConfig(epochs=2, eval_every=1, batch_size=16)
LISTS = SearchTraining(steps=3, evaluations=1, batch_size=16, list_size=3)
TIMES = ("latency/", "seconds/")
WORDS = ("film", "good", "bad", "plot", "cast", "music")


def timeless(columns):
    """Those that are the same whenever a table is made."""
    return tuple(column for column in columns if not column.key.startswith(TIMES))


def walks(rows, *, training=FIT, dropout=0.0, seeds=(0,), references=(), tested=()):
    """Users who walk a catalogue in small steps.

    Args:
      rows: label -> what it changes.
    """
    setup = RecommenderSetup(
        RecData("walks"),
        RecModel("sasrec-1x4", max_length=8, dropout=dropout),
        RecTeacher(RecModel("sasrec-1x8", max_length=8), training=training, top=8),
    )
    return Sweep(
        name="walks",
        title="Walks",
        base=Cell(setup, (Train("full_softmax", training),)),
        rows=points(rows),
        groups=(Point("sasrec-1x4"),),
        seeds=seeds,
        references=references,
        columns=timeless(RECOMMENDATION),
        tested=tested,
    )


def among_walks(sweep):
    """The table at work on its data."""
    return Recommendation(sweep, small_split(num_users=40, num_items=25))


def write_pairs(folder: Path) -> Path:
    """Queries of two words, and products that say the same, as ``pairs:FOLDER`` reads them."""
    folder.mkdir(parents=True, exist_ok=True)
    pairs = list(itertools.permutations(WORDS, 2))
    for split, own in (("train", pairs[:14]), ("dev", pairs[14:20]), ("test", pairs[20:])):
        lines = [f"{a} {b},the {a} and {b},1\n{a} {b},the {a},0.5\n" for a, b in own]
        (folder / f"{split}.csv").write_text("query,product,gain\n" + "".join(lines))
    return folder


def pairs(folder, teacher, rows, *, training=LISTS, seeds=(0,), tested=()):
    """Search in the products of ``write_pairs``.

    Args:
      teacher: folder of a checkpoint.
      rows: label -> what it changes.
    """
    setup = SearchSetup(
        SearchDataConfig(f"pairs:{folder}", label_fraction=0.5),
        SearchTeacherConfig(str(teacher), candidates=5, training=training),
        student="1x8x2",
    )
    return Sweep(
        name="toy_search",
        title="A toy",
        base=Cell(setup, (Train("ce", training),)),
        rows=points(rows),
        groups=(Point("1x8x2"),),
        seeds=seeds,
        columns=timeless(SEARCH),
        tested=tested,
    )
