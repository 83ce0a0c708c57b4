"""Labelled examples dealt to clients who share nothing: parts of one draw, alike or skewed."""

import numpy as np

from distill_jax.core.digests import unit_interval
from distill_jax.core.errors import UserError
from distill_jax.data.subsets import Labelled


def rows_of_client(
    table: Labelled, rows: np.ndarray, client: tuple[int, int], alpha: float, *, seed: int = 0
) -> np.ndarray:
    """The rows of one client; those of all clients are all of ``rows``, each once.

    Of every class the examples are put in the order of a hash of their ids, and cut into a stretch
    a client: of one length each (to an example, in turn), or in shares drawn from a symmetric
    Dirichlet distribution (Hsu et al. 2019, "Measuring the Effects of Non-Identical Data
    Distribution for Federated Visual Classification", section 3), a draw a class.

    Args:
      table: examples with ids and labels.
      rows: int64, those that are dealt, all labelled.
      client: which of how many, from 1.
      alpha: concentration; 0 for parts alike.
      seed: of another draw.

    Returns:
      int64, ascending.

    Raises:
      UserError: where the client would have examples of fewer than two classes.
    """
    number, count = client
    labels_N = table.labels_N
    assert labels_N is not None
    draw = f"{seed}/" if seed else ""
    parts = []
    for label in np.unique(labels_N[rows]):
        own = rows[labels_N[rows] == label]
        key_N = [unit_interval(f"clients/{draw}{table.ids[row]}") for row in own]
        own = own[np.argsort(key_N, kind="stable")]
        if not alpha:
            parts.append(own[(number - 1 - int(label)) % count :: count])
            continue
        shares = np.random.default_rng([seed, int(label)]).dirichlet([alpha] * count)
        ends = np.round(np.cumsum(shares) * len(own)).astype(int)
        starts = np.concatenate([[0], ends[:-1]])
        last = len(own) if number == count else int(ends[number - 1])
        parts.append(own[int(starts[number - 1]) : last])
    if sum(len(part) > 0 for part in parts) < 2:
        raise UserError(
            f"client {number}/{count} has labels of one class at most: more labels, another "
            "draw (--label-seeds), or a larger concentration"
        )
    return np.sort(np.concatenate(parts))
