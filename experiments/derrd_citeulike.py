"""A published table reproduced: DE-RRD (Kang et al. 2020) on the authors' split of citeULike.

    python experiments/derrd_citeulike.py --data files:FOLDER
    python experiments/derrd_citeulike.py --data files:FOLDER --rows labels --seeds 0
    python experiments/derrd_citeulike.py --data files:FOLDER --preset smoke

FOLDER holds train.csv, valid.csv and test.csv with columns user and item, as the authors divided
them (SeongKu-Kang/DE-RRD_CIKM20, Dataset/citeULike/LOO); any other split of interactions will do.
A student of 20 numbers a user and item learns from labels alone (BPR), or hears a teacher of 200 by
DE, URRD or IR-RRD too. Each target is ranked among 499 items drawn anew for each seed, and among
all items.

Run time: a quarter of an hour of one CPU core for the teacher, and an hour a seed, nearly half of
it for DE.
"""

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from distill_jax.cli.interaction_flags import InteractionFlags
from distill_jax.cli.run import parse_flags, run

if TYPE_CHECKING:
    from distill_jax.engine.sweep import Sweep
    from distill_jax.tables.trends import Trend
    from distill_jax.tasks.recommendation.cells import RecommenderSetup

NAME = "derrd_citeulike"
AUTHORS = (5219, 25181, 115142)
"""Users, items and training interactions of the authors' split."""
BATCH = 1024
"""Interactions of a batch; the authors' losses are sums over it, ours means, hence the weights."""


@dataclass(frozen=True)
class Preset:
    """What the table consists of, where the flags do not say.

    Attributes:
      teacher, student: width of their vectors.
      batch: interactions of a batch.
      experts: see ``expert_hints``.
      places, users: ordered places of a list of items and of a list of users.
      top: of how many the places are drawn.
      among: items that a target is ranked with.
      epochs, patience: at most, and how long is waited for something better.
    """

    teacher: int = 200
    student: int = 20
    batch: int = BATCH
    experts: int = 30
    places: int = 40
    users: int = 20
    top: int = 200
    among: int = 499
    epochs: int = 1000
    patience: int = 20


PRESETS = {
    "default": Preset(),
    "smoke": Preset(8, 4, 64, experts=2, places=4, users=3, top=6, among=10, epochs=2),
}


PUBLISHED = (
    ("labels", "student, labels"),
    *((row, row) for row in ("DE", "URRD", "IR-RRD")),
)
DEPARTURES = {
    "labels": (
        "Departures from the released code: the 499 sampled items of each user are drawn anew, "
        "another set for each seed (theirs are one set, which was not released in full); the "
        "teacher is trained anew, like the students, and its best H@10 is kept (theirs was that of "
        "the last epoch at which H@5, H@10 or H@20 was at its best); the last, short batch of an "
        "epoch weighs as a whole one. Theirs count one user and one item more, which occur nowhere."
    ),
    "DE": (
        "Departures of DE: a step looks at one in 8 of its users and items, which count 8 times "
        "(theirs at all); the temperature falls in each step (theirs after each epoch); experts "
        "start with normal weights of variance 1/n for n inputs and biases of 0 (theirs uniform, "
        "of variance 1/3n, biases too)."
    ),
    "URRD": (
        "Departures of URRD: a step looks at one in 4 of its users, which count 4 times; places "
        "are drawn from the teacher's first 200 (theirs 500, of which those behind the first 200 "
        "are all but never drawn), anew in each step (theirs in each epoch); of the items below, "
        "which may occur twice and of which the first is BPR's of the same row (theirs differ, and "
        "are drawn for themselves), those among the first 200 are left out."
    ),
    "IR-RRD": (
        "Departures of IR-RRD: users are ordered for 512 items a step, drawn at random (theirs: "
        "for all items of the batch's lists, those in the first places always, the others in two "
        "steps of three), whose mean counts as often as theirs has items (17,000 to 23,000, taken "
        "as 20,000); of the users below, who may occur twice, those among the first 200 are left "
        "out, not the few who took the item."
    ),
}
"""What differs from the authors' code, by row, said under the table."""


def trends(student: str) -> "tuple[Trend, ...]":
    """What the authors' figures say, to be borne out by ours."""
    from distill_jax.tables.trends import difference
    from distill_jax.tasks.recommendation.columns import SAMPLED_HR

    claims = {
        "DE is better than labels alone": ("DE", "labels"),
        "URRD is better than labels alone": ("URRD", "labels"),
        "IR-RRD is better than labels alone": ("IR-RRD", "labels"),
        "IR-RRD is better than URRD": ("IR-RRD", "URRD"),
    }
    return tuple(
        difference(said, (better, student), (worse, student), metric=SAMPLED_HR.key)
        for said, (better, worse) in claims.items()
    )


def told(preset: Preset) -> tuple[str, ...]:
    """What the rows are, for people."""
    return (
        f"As in the authors' code: vectors of {preset.student} and {preset.teacher} numbers "
        "without a bias, drawn with a standard deviation of 0.01; Adam at 0.001 with an L2 penalty "
        "of 0.001; one sampled item beside each that was taken; early stopping by H@5, H@10 and "
        "H@20 of the validation item. Weights are theirs, times what makes our means their sums.",
    )


def objectives(preset: Preset) -> dict[str, str]:
    """Rows by name. Weights are the authors', times what makes our means their sums."""
    labels = f"{preset.batch}*bpr(n=1)"
    hints = f"experts={preset.experts}, T=geometric(1, 1e-10), once=True, rows=8"
    # Theirs: 0.01 a squared distance of an entity, summed over the width; ours is a mean over it.
    weight = round(0.01 * preset.batch * preset.teacher)
    # Theirs: 0.001 a user of the batch.
    lists = (
        f"{0.001 * preset.batch:g}*relaxed_ranking(k={preset.places}, top={preset.top}, "
        f"drawn={preset.places}, sampled={preset.places}, stride=1, rows=4)"
    )
    # Theirs: 0.0005 an item of all lists of the batch, which are about 20,000 different ones.
    items = (
        f"10*relaxed_ranking(k={preset.users}, top={preset.top}, drawn={preset.users}, "
        f"sampled={preset.users}, stride=1, by='items', of=2, rows=4)"
    )
    return {
        "labels": labels,
        "DE": (
            f"{labels} + {weight}*expert_hints(on='queries', {hints}) + "
            f"{weight}*expert_hints(on='items', negatives=True, {hints})"
        ),
        "URRD": f"{labels} + {lists}",
        "IR-RRD": f"{labels} + {lists} + {items}",
    }


@dataclass(frozen=True)
class Derrd(InteractionFlags):
    """Reproduce the table of DE-RRD on citeULike."""

    data: str = ""
    """files:FOLDER with the authors' split."""
    preset: Literal["default", "smoke"] = "default"
    rows: tuple[str, ...] = ()
    """Some of labels, DE, URRD, IR-RRD; all of them by default."""
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    epochs: int | None = None
    """At most; 1000 by default, of which some 200 to 400 are needed."""
    output_dir: Path = Path("results") / NAME


def main(flags: Derrd) -> None:
    """Run the table, write and print it."""
    from distill_jax.cli.results import open_console
    from distill_jax.core.errors import UserError
    from distill_jax.tasks.recommendation.table import Recommendation

    console = open_console()
    flags.use_plugin()
    if not flags.data:
        raise UserError("--data is needed: files:FOLDER with train.csv, valid.csv and test.csv")
    split = flags.ranking_split()
    counts = (split.data.num_users, split.data.num_items, int(split.train_counts_I.sum()))
    sweep = table(flags, split.data.name, known=counts == AUTHORS)
    flags.run(Recommendation(sweep, split), flags.output_dir, console)


def table(flags: Derrd, data: str = "", known: bool = True) -> "Sweep[RecommenderSetup]":
    """The rows under their teacher; labels alone need none.

    Args:
      data: what the data are called.
      known: whether the data are the authors', to whom the published numbers belong.
    """
    from distill_jax.core.errors import unknown
    from distill_jax.engine.cell import Cell, Train
    from distill_jax.engine.sweep import Sweep, axis, points
    from distill_jax.tasks.recommendation.cells import RecModel, RecommenderSetup, RecTeacher
    from distill_jax.tasks.recommendation.columns import SAMPLED_COLUMNS, SAMPLED_HR, SAMPLED_NDCG
    from distill_jax.training.recommender import ADAM, FitConfig

    preset, texts = PRESETS[flags.preset], objectives(PRESETS[flags.preset])
    for row in flags.rows:
        if row not in texts:
            raise unknown("row", row, texts)
    student = RecModel(f"bpr_mf-{preset.student}", 1, 0.0, item_bias=False, initial=0.01)
    training = FitConfig(
        epochs=flags.epochs or preset.epochs,
        batch_size=preset.batch,
        optimizer=replace(ADAM, l2=1e-3, clip_norm=1e9),
        select="sampled_hr@10",
        windows=True,
        patience=preset.patience,
        watched=("sampled_hr@5", "sampled_hr@20"),
    )
    wide = replace(student, name=f"bpr_mf-{preset.teacher}")
    teacher = RecTeacher(wide, texts["labels"], training)
    chosen = [row for row in texts if not flags.rows or row in flags.rows]
    return Sweep(
        name=NAME,
        title=f"DE-RRD reproduced: students of a matrix factorisation, {data}",
        base=Cell(
            RecommenderSetup(
                flags.rec_data(),
                student,
                None if chosen == ["labels"] else teacher,
                among=preset.among,
            ),
            (Train(texts["labels"], training),),
            precision=flags.precision,
        ),
        rows=points({row: {"objective": texts[row]} for row in chosen}),
        groups=axis("model", {student.name: student}),
        seeds=flags.seeds,
        references=("popularity", "item_knn"),
        columns=SAMPLED_COLUMNS,
        tested=(SAMPLED_HR.key, SAMPLED_NDCG.key),
        row_title="training",
        published=NAME if known else None,
        published_rows=PUBLISHED if known else (),
        trends=trends(student.name) if known and chosen == list(texts) else (),
        protocol=(*told(preset), *(DEPARTURES[row] for row in chosen if known)),
    )


if __name__ == "__main__":
    run(lambda: main(parse_flags(Derrd, sys.argv[1:], "experiments/derrd_citeulike.py")))
