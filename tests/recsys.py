"""A world of interactions in small, for tests of recommenders."""

import numpy as np

from distill_jax.data.interaction_splits import leave_one_out
from distill_jax.data.interactions import Interactions


def small_split(num_users=13, num_items=17, seed=0, most=12):
    """Users walk the catalogue in steps of one or two: what comes next can be learned."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(2, most + 1, num_users)
    lengths[:3] = 1, 3, most
    rows = [
        (rng.integers(num_items) + np.cumsum(np.append(0, rng.integers(1, 3, n - 1)))) % num_items
        for n in lengths
    ]
    data = Interactions(
        name="walks",
        user_names=tuple(f"user {n}" for n in range(num_users)),
        item_names=tuple(f"item {n}" for n in range(num_items)),
        item_texts=tuple(f"the film {n}" for n in range(num_items)),
        offsets_U1=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        items_N=np.concatenate(rows).astype(np.int32),
    )
    return leave_one_out(data)
