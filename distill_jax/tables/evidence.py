"""What each test example contributed to a run's scores: kept in its ledger row, packed as text.

Tests over examples (users, queries) need these numbers, see ``significance``.
"""

import base64
import binascii

import numpy as np
from numpy.typing import ArrayLike

from distill_jax.core.errors import UserError
from distill_jax.evaluation.ranking import METRICS
from distill_jax.tables.ledger import LedgerRow

RANK = "rank"
"""The name of the test examples' ranks among ``LedgerRow.test_scores``: from 1, the best."""
SAMPLED_RANK = "sampled_rank"
"""And of their ranks among a few items, behind metrics called ``sampled_hr@10`` and the like."""
CASES = "cases"
"""How many cases stand behind each example's mean, of a slice ``cases/SLICE``; else one each."""

_DTYPES = ("u1", "u2", "u4", "f4")


def pack_correct(correct_N: ArrayLike) -> str:
    """Per-example correctness as short text: the number of examples, a colon, base64 of the bits.

    Args:
      correct_N: [N], booleans (or 0 and 1), in the order of the test split.
    """
    values = np.asarray(correct_N)
    if values.ndim != 1 or not np.isin(values, (0, 1)).all():
        raise ValueError(f"correctness is a vector of booleans, not {values.dtype}{values.shape}")
    bits = np.packbits(values.astype(bool))
    return f"{len(values)}:{base64.b64encode(bits.tobytes()).decode()}"


def unpack_correct(packed: str) -> np.ndarray:
    """[N] booleans, as given to ``pack_correct``.

    Raises:
      UserError: when the text is damaged.
    """
    number, _, encoded = packed.partition(":")
    what = f"damaged per-example correctness {packed[:40]!r}"
    count, data = _decoded(number, encoded, what)
    bits = np.unpackbits(np.frombuffer(data, np.uint8)).astype(bool)
    if count < 0 or len(data) != -(-count // 8) or bits[count:].any():
        raise UserError(f"{what}: {len(data)} bytes for {count} examples")
    return bits[:count]


def pack_numbers(values_N: ArrayLike) -> str:
    """A number an example as text: how many, their type (``u1 u2 u4 f4``), base64 of the bytes.

    Whole numbers from 0 on take as few bytes as the largest needs; others are kept as float32.

    Args:
      values_N: [N], finite, in the order of the test split.
    """
    values = np.asarray(values_N)
    if values.ndim != 1 or values.dtype.kind not in "biuf" or not np.isfinite(values).all():
        raise ValueError(f"expected finite numbers [N], not {values.dtype}{values.shape}")
    if values.dtype.kind == "f":
        kind = "f4"
    elif values.min(initial=0) < 0 or values.max(initial=0) >= 2**32:
        raise ValueError("whole numbers are kept from 0 to 2**32 - 1")
    else:
        sizes = {"u1": 8, "u2": 16, "u4": 32}
        kind = next(k for k, bits in sizes.items() if values.max(initial=0) < 2**bits)
    data = values.astype(f"<{kind}").tobytes()
    return f"{len(values)}:{kind}:{base64.b64encode(data).decode()}"


def unpack_numbers(packed: str) -> np.ndarray:
    """[N], as given to ``pack_numbers``: integers or float32.

    Raises:
      UserError: when the text is damaged.
    """
    number, _, rest = packed.partition(":")
    kind, _, encoded = rest.partition(":")
    what = f"damaged per-example numbers {packed[:40]!r}"
    count, data = _decoded(number, encoded, what)
    if kind not in _DTYPES:
        raise UserError(f"{what}: no such type of numbers: {kind!r}")
    size = np.dtype(kind).itemsize
    if len(data) != count * size:
        raise UserError(f"{what}: {len(data) // size} numbers for {count}")
    return np.frombuffer(data, f"<{kind}")


def _decoded(number: str, encoded: str, what: str) -> tuple[int, bytes]:
    """How many examples, and the bytes; ``what`` is said of what cannot be read."""
    try:
        return int(number), base64.b64decode(encoded, validate=True)
    except (ValueError, binascii.Error) as error:
        raise UserError(f"{what}: {error}") from error


def by_rank(metric: str, ranks_N: ArrayLike) -> np.ndarray | None:
    """Each example's share in ``hr@k``, ``ndcg@k`` or ``mrr@k``, of one relevant item's rank.

    Args:
      metric: e.g. ``ndcg@10``; None comes back for any other.
      ranks_N: [N], from 1; 0 where there is none, which is NaN then.

    Returns:
      float64 [N]: for a rank up to k 1, ``1 / log2(1 + rank)`` or ``1 / rank``; else 0.
    """
    name, _, k = metric.partition("@")
    if name not in METRICS or not k.isdecimal() or k.startswith("0"):
        return None
    return METRICS[name](ranks_N, int(k))


def scores_by_example(row: LedgerRow, key: str) -> np.ndarray | None:
    """The numbers whose mean over test examples is the metric ``key``; None if nobody kept them.

    The mean is weighted with ``weights_by_example``.

    ``test/accuracy`` comes from ``test_correct``, a ranking metric from the ranks, any other from
    the numbers of its own name.

    Raises:
      UserError: when what was kept is damaged.
    """
    split, _, metric = key.partition("/")
    if split != "test":
        return None
    if metric == "accuracy" and row.test_correct is not None:
        return unpack_correct(row.test_correct).astype(np.float64)
    if metric in row.test_scores:
        return unpack_numbers(row.test_scores[metric]).astype(np.float64)
    among = metric.removeprefix("sampled_")
    rank = RANK if among == metric else SAMPLED_RANK
    if rank in row.test_scores:
        return by_rank(among, unpack_numbers(row.test_scores[rank]))
    return None


def weights_by_example(row: LedgerRow, key: str) -> np.ndarray | None:
    """How much each number of ``scores_by_example`` weighs in the metric; None for all alike.

    Where a test example is a user who is asked about several items, the metric is the mean over
    the items: a user weighs as many.

    Raises:
      UserError: when what was kept is damaged.
    """
    metric = key.partition("/")[2]
    slice_ = metric.partition("/")[2]
    cases = f"{CASES}/{slice_}" if slice_ else CASES
    if metric not in row.test_scores or cases not in row.test_scores:
        return None
    return unpack_numbers(row.test_scores[cases]).astype(np.float64)
