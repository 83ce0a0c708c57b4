"""A shop's interactions of three kinds, for tests: click, click, cart, perhaps buy."""

import numpy as np

from distill_jax.core.files import write_atomic

KINDS = ("buy", "cart", "click")


def with_dwell(rows, seed=1):
    """The same rows with how long each was looked at; of some nobody knows."""
    seconds = np.random.default_rng(seed).integers(1, 900, len(rows))
    told = [str(each) if each % 7 else "" for each in seconds]
    return [(*row, dwell) for row, dwell in zip(rows, told, strict=True)]


def events(num_users=24, num_items=30, rounds=4, seed=0):
    """(user, item, time, kind) rows; who put something into the cart mostly buys it, or another
    item that nothing was known of."""
    rng, rows = np.random.default_rng(seed), []
    for user in range(num_users):
        place, time = int(rng.integers(num_items)), 0
        for _ in range(rounds):
            kinds = ["click", "click", "cart"] + ["buy"] * (rng.random() < 0.7)
            for kind in kinds:
                place = (place + int(kind == "click") * int(rng.integers(1, 3))) % num_items
                known = kind != "buy" or rng.random() < 0.7
                item = place if known else int(rng.integers(num_items))
                rows.append((f"u{user}", f"i{item}", time, kind))
                time += 1
    return rows


def write_shop(folder, rows, header="user_id,product_id,event_time,event_type"):
    """The rows as a folder that ``files:`` takes."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [header, *(",".join(map(str, row)) for row in rows)]
    write_atomic(folder / "interactions.csv", "\n".join(lines) + "\n")
    return f"files:{folder}"
