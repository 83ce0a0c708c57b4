"""Search: a cross-encoder teaches two-tower students (Margin-MSE, KL over lists).

    python experiments/search_relevance.py
    python experiments/search_relevance.py --preset smoke
    python experiments/search_relevance.py --data esci:FOLDER --item-length 48

"Improving Efficient Neural Ranking Models with Cross-Architecture Knowledge Distillation"
(Hofstätter et al. 2020). The data travel in a package: the catalogue of Font Awesome Free, 1,393
icons as text, and the 3,345 search terms that its makers gave them. They are real search terms of
a real catalogue, though no shoppers' queries. Judgements of half of the training terms are used;
the other half is the transfer set, on which only the teacher speaks.

Run time: 18 students in 18 minutes beside other work (8 of CPU); before them the teacher and its
scores, 10 of CPU. KL on the judged queries added .039 nDCG@10 to the labels' .318; with the
transfer set, or with Margin-MSE, no gain was significant. The teacher reorders what MiniLM finds
from .410 to .422.
"""

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from distill_jax.cli.experiment import TableFlags
from distill_jax.cli.run import parse_flags, run

if TYPE_CHECKING:
    from distill_jax.engine.sweep import Sweep
    from distill_jax.tasks.search.cells import SearchSetup


@dataclass(frozen=True)
class SearchRelevance(TableFlags):
    """Compare ways of distilling a cross-encoder into two towers."""

    preset: Literal["default", "smoke"] = "default"
    """default: as committed under experiments/results. smoke: the whole path in a few minutes."""
    data: str = "icon_search"
    """icon_search, esci:FOLDER (Amazon's Shopping Queries) or pairs:FOLDER (your own)."""
    locale: str = "us"
    """Of esci: us, es or jp."""
    teacher: str = "minilm-l6"
    """minilm-l6, a local folder or a hub id of a BERT sentence encoder."""
    students: tuple[str, ...] = ()
    """2x64x2 by default: LAYERSxWIDTHxHEADS, or l2, l3: copied from the encoder's layers."""
    item_length: int = 16
    """Tokens after which a product is cut; the shops' titles want more."""
    learning_rate: float = 2e-3
    """Of the students; copied ones want less (1e-4)."""
    seeds: tuple[int, ...] = ()
    """0 1 2 by default."""
    output_dir: Path | None = None
    """Default: results/search_relevance, with -smoke behind it for that preset."""


ROWS = {
    "labels": {"objective": "ce"},
    "labels + Margin-MSE": {"objective": "ce + 0.1*margin_mse"},
    "labels + KL": {"objective": "ce + kl"},
    "KL": {"objective": "kl"},
    "labels + KL, no transfer set": {"objective": "ce + kl", "transfer": False},
    "labels + KL, shuffled teacher": {"objective": "ce + kl", "hears": "shuffled"},
}


def table(flags: SearchRelevance) -> "Sweep[SearchSetup]":
    """Objectives x students x seeds."""
    from distill_jax.engine.cell import Cell, Train
    from distill_jax.engine.sweep import Sweep, axis, points
    from distill_jax.tasks.search.cells import (
        SearchDataConfig,
        SearchSetup,
        SearchTeacherConfig,
        SearchTraining,
    )
    from distill_jax.tasks.search.columns import COLUMNS, NDCG
    from distill_jax.training.optimizer import OptimizerConfig

    smoke = flags.preset == "smoke"
    training = SearchTraining(
        steps=240,
        evaluations=4,
        batch_size=32,
        list_size=8,
        optimizer=OptimizerConfig(learning_rate=flags.learning_rate),
    )
    teaching = SearchTraining(
        steps=120,
        evaluations=3,
        batch_size=16,
        list_size=6,
        optimizer=OptimizerConfig(learning_rate=1e-4),
    )
    data = SearchDataConfig(flags.data, locale=flags.locale, item_length=flags.item_length)
    teacher = SearchTeacherConfig(flags.teacher, candidates=16, training=teaching)
    base = Cell(SearchSetup(data, teacher), (Train("ce", training),), precision=flags.precision)
    if smoke:
        few = replace(training, steps=20, evaluations=2, list_size=4)
        small = replace(teaching, steps=8, evaluations=1, batch_size=8, list_size=4)
        teacher = replace(teacher, candidates=4, training=small)
        base = base.but(teacher=teacher, training=few)
        training, teaching = few, small
    names = ("labels", "labels + KL") if smoke else tuple(ROWS)
    return Sweep(
        name="search_relevance",
        title=f"{data.name}: a cross-encoder teaches two towers",
        base=base,
        rows=points({name: ROWS[name] for name in names}),
        groups=axis("student", flags.students or (base.setup.student,)),
        seeds=flags.seeds or ((0,) if smoke else (0, 1, 2)),
        columns=COLUMNS,
        tested=(NDCG.key,),
        protocol=(
            "Students: one tower for queries and products. Those of a size (2x64x2: 2 layers, "
            "width 64) have embeddings projected from the encoder's in every row, the rest starts "
            f"at random. {training.steps} steps of {training.batch_size} queries with "
            f"{training.list_size} products each, which go on with the relevant products of the "
            "batch's other queries.",
            f"{100 * data.label_fraction:g}% of the training queries keep their judgements; "
            "the others are the transfer set of the rows that hear a teacher.",
            "The teacher is the encoder as cross-encoder; its output is added to the cosine (times "
            f"{teacher.prior_scale:g}) that the encoder gives as it came. It is trained for "
            f"{teaching.steps} steps of "
            f"{teaching.batch_size} queries on the same judgements. Its row reorders the "
            f"{teacher.candidates} products that the encoder finds as it came, and finds no "
            "others.",
        ),
    )


def main(flags: SearchRelevance) -> None:
    """Run the table, write and print it."""
    from distill_jax.cli.results import open_console
    from distill_jax.tasks.search.table import Search

    console = open_console()
    flags.use_plugin()
    suffix = "" if flags.preset == "default" else f"-{flags.preset}"
    folder = flags.output_dir or Path("results") / f"search_relevance{suffix}"
    flags.run(Search(table(flags)), folder, console)


if __name__ == "__main__":
    run(lambda: main(parse_flags(SearchRelevance, sys.argv[1:], "experiments/search_relevance.py")))
