"""A shop in files, a small table of students on its interactions, and the next month."""

import csv
import dataclasses
from pathlib import Path

import numpy as np
from recsys import small_split
from rich.console import Console
from small_tables import FIT, walks

from distill_jax.cli.main import dispatch
from distill_jax.engine.progress import Reporter
from distill_jax.engine.run import run_table
from distill_jax.tasks.recommendation.cells import RecData, RecModel
from distill_jax.tasks.recommendation.table import Recommendation

KL = "0.5*full_softmax + 0.5*kl(top=5)"
USERS, ITEMS = 40, 25


def write_shop(folder: Path, rows, texts=()) -> Path:
    """``interactions.csv`` of (user, item, time), and ``items.csv`` where there are texts."""
    folder.mkdir(parents=True)
    for name, head, lines in (
        ("interactions.csv", ("user", "item", "time"), rows),
        ("items.csv", ("item", "title"), texts),
    ):
        if lines:
            with open(folder / name, "w", newline="", encoding="utf-8") as file:
                csv.writer(file).writerows([head, *lines])
    return folder


def first_month():
    """(user, item, time) of users who walk the catalogue, a step a day."""
    data = small_split(num_users=USERS, num_items=ITEMS).data
    starts = data.offsets_U1[:-1]
    return [
        (f"u{user}", f"i{item:02}", 86_400 * (number - starts[user] + 1))
        for number, (user, item) in enumerate(zip(data.users_N, data.items_N, strict=True))
    ]


def next_month(*, users=range(30), new_users=6, new_items=3, steps=4, before=None):
    """Those users walk on, new ones begin, and all come by new items.

    Args:
      before: what they did, as of ``first_month``, if that was not all.
    """
    rng = np.random.default_rng(5)
    before = before or first_month()
    last = {user: item for user, item, _ in before}
    today = max(time for *_, time in before) // 86_400 // 50 * 50 + 50
    rows = []
    for user in (*(f"u{n}" for n in users), *(f"new{n}" for n in range(new_users))):
        place = int(last.get(user, "i00")[1:])
        for day in range(steps):
            place += int(rng.integers(1, 3))
            rows.append((user, f"i{place % (ITEMS + new_items):02}", 86_400 * (today + day)))
    return rows


def third_month():
    """Some of either month walk on, others begin."""
    before = [*first_month(), *next_month()]
    return next_month(users=range(15, 35), new_users=9, new_items=5, before=before)


def finished_shop(
    folder: Path,
    *,
    student="sasrec-1x4",
    objective=KL,
    teacher=True,
    texts=(),
    data=None,
    training=FIT,
    among=0,
):
    """The folder of a student's run on ``data``, else on ``folder/shop``.

    Args:
      teacher: its name where it is another than usual; False for none.
      training, among: of teacher and student.
    """
    data = data or RecData(f"files:{write_shop(folder / 'shop', first_month(), texts)}")
    sweep = walks({"student": {"objective": objective}}, training=training)
    setup = dataclasses.replace(
        sweep.base.setup,
        data=data,
        model=RecModel(student, max_length=8, dropout=0.0),
        teacher=sweep.base.setup.teacher if teacher else None,
        among=among,
    )
    if teacher and teacher is not True:
        named = dataclasses.replace(setup.teacher, model=RecModel(teacher, max_length=8))
        setup = dataclasses.replace(setup, teacher=named)
    sweep = dataclasses.replace(sweep, base=dataclasses.replace(sweep.base, setup=setup))
    _, rows = run_table(
        Recommendation(sweep),
        folder / "table",
        Reporter(Console(quiet=True)),
        strategy="sequential",
    )
    (row,) = (each for each in rows if each.row == "student")
    return folder / "table/runs" / row.hash


def update(*arguments) -> None:
    """``distill-jax update``, in this process."""
    dispatch(["update", *map(str, arguments)])
