"""Random numbers by name: a pure function of whole numbers, for whole arrays at once.

A draw belongs to what it is made for (seed, step, user, place), not to a generator's state, so it
is the same in any batch, on any process and after any interruption.
"""

import numpy as np

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def draw_bits(*names: int | np.ndarray) -> np.ndarray:
    """uint64 of the names' common shape, uniform, each a mix of its names in their order.

    "splitmix64", Steele et al. 2014, "Fast splittable pseudorandom number generators".

    Args:
      names: whole numbers or arrays of them that broadcast; negative ones wrap around.
    """
    bits = np.zeros((), np.uint64)
    with np.errstate(over="ignore"):
        for name in names:
            bits = _mix(bits + _GOLDEN + np.asarray(name).astype(np.int64).astype(np.uint64))
    return bits


def draw_below(count: np.ndarray | int, *names: int | np.ndarray) -> np.ndarray:
    """int64 in ``0..count-1``, uniform up to ``count / 2^32``.

    Args:
      count: at least 1 and below 2^31; broadcasts with the names.
    """
    high = draw_bits(*names) >> np.uint64(32)
    return ((high * np.asarray(count).astype(np.uint64)) >> np.uint64(32)).astype(np.int64)


def draw_unit(*names: int | np.ndarray) -> np.ndarray:
    """float64 in [0, 1)."""
    return (draw_bits(*names) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _mix(bits: np.ndarray) -> np.ndarray:
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))
