"""A shop that never was: interactions of any size with a popularity curve and sessions.

Items lie in groups of a hundred, whose popularity falls as 1 / rank, as that of items within a
group does; one interaction in ten is with any item, in turn, so that all occur. A few items have
most interactions and most of them a handful. A user comes in sessions of five items on average,
each in one group: every second item is the one that follows the last, the others are drawn by
popularity. What comes next can be learned, who is popular too.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

GROUP = 100
"""Items of a group."""
LEAST, MEAN = 5, 20
"""Interactions of a user."""
SESSION, FOLLOWS = 5, 0.5
"""Items of a session on average, and the share of those that follow the last."""
ANY = 10
"""One of so many interactions is with any item."""
LINES = 1_000_000
"""Written at a time."""


def draw(items: int, interactions: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Users int32 [N], ascending, and items int32 [N], each user's in order."""
    rng = np.random.default_rng(seed)
    lengths = LEAST + rng.geometric(1 / (MEAN - LEAST), size=-(-interactions // LEAST))
    users = np.repeat(np.arange(len(lengths), dtype=np.int32), lengths)[:interactions]
    starts = rng.random(interactions) < 1 / SESSION
    starts[0] = True
    starts[1:] |= users[1:] != users[:-1]
    session = np.cumsum(starts) - 1
    first = np.flatnonzero(starts)
    groups = by_rank(rng, -(-items // GROUP), len(first))[session]
    place = by_rank(rng, GROUP, interactions)
    step = np.arange(interactions) - first[session]
    follows = (rng.random(interactions) < FOLLOWS) & (step > 0)
    place = np.where(follows, (place[first][session] + step) % GROUP, place)
    spread = rng.permutation(items).astype(np.int32)  # names say nothing of popularity
    taken = spread[(groups * GROUP + place) % items]
    anything = rng.permutation(interactions)[: interactions // ANY]
    taken[anything] = np.resize(spread, len(anything))
    return users, taken


def by_rank(rng: np.random.Generator, count: int, draws: int) -> np.ndarray:
    """Whole numbers below ``count``, the n-th as likely as 1 / (n + 1)."""
    share = np.cumsum(1 / np.arange(1, count + 1))
    return np.searchsorted(share / share[-1], rng.random(draws)).astype(np.int64)


def write(folder: Path, items: int, interactions: int, seed: int = 0) -> Path:
    """``interactions.csv`` in a folder: ``user,item,time``; its path."""
    users, taken = draw(items, interactions, seed)
    rng = np.random.default_rng([seed, 1])
    times = 1_700_000_000 + np.arange(len(users))
    order = rng.permutation(users[-1] + 1)  # users come in any order, as files have them
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "interactions.csv"
    with path.open("w", encoding="utf-8") as file:
        file.write("user,item,time\n")
        for start in range(0, len(users), LINES):
            part = slice(start, start + LINES)
            rows = zip(order[users[part]], taken[part], times[part], strict=True)
            file.write("".join(map("u%d,i%d,%d\n".__mod__, rows)))
    return path
