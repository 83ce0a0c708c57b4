"""Asks the teacher again about some examples and compares with what its cache says."""

from collections.abc import Callable

import numpy as np
from scipy.special import logsumexp

from distill_jax.core.types import Batch, ModelOutput
from distill_jax.data.plan import ExampleTable, choose_lengths, make_batch, plan_in_order
from distill_jax.teachers.cached import TeacherCache
from distill_jax.teachers.manifest import Provenance
from distill_jax.teachers.records import SQUARE, batch_arrays

_TOLERANCE = {"float32": 2e-3, "float16": 4e-3, "bfloat16": 1e-2}
_BF16_TOLERANCE = 5e-2


def tolerance(provenance: Provenance) -> float:
    """The largest difference, as a share of an output's largest value, that rounding, another
    padding or another kind of device explains."""
    kept = _TOLERANCE[provenance.dtype]
    return kept if provenance.precision == "f32" else max(kept, _BF16_TOLERANCE)


def sample_rows(count: int, sample: int, seed: int) -> np.ndarray:
    """``sample`` of ``count`` rows, drawn without replacement; all where there are no more."""
    return np.sort(np.random.default_rng(seed).permutation(count)[:sample])


def compare_sample(
    cache: TeacherCache,
    provenance: Provenance,
    table: ExampleTable,
    teacher: Callable[[Batch], ModelOutput],
    rows: np.ndarray,
    *,
    batch_size: int = 32,
) -> dict[str, float]:
    """Output -> largest difference between cache and teacher, over the teacher's largest value.

    Padding is left out. Where only the largest logits were kept, those are compared, and the
    log-sum-exp of all.

    Args:
      cache: opened for ``table``.
      rows: rows of ``table`` to ask about.
    """
    lengths = table.lengths_N[rows]
    worst: dict[str, float] = {}
    for planned in plan_in_order(lengths, choose_lengths(lengths), batch_size=batch_size):
        planned = type(planned)(rows[planned.rows].astype(np.int32), planned.length)
        batch = make_batch(table, planned, batch_size=batch_size)
        cached, live = cache(batch), teacher(batch)
        ours = batch_arrays(cached, provenance.capture)
        theirs = batch_arrays(live, provenance.capture)
        real_B, real_BT = np.asarray(batch.where_B), np.asarray(batch.where_BT)
        for name in ours:
            if name == "logits":
                real = real_B if ours[name].ndim == 2 else real_BT  # an answer a token
                found, expected = _comparable(ours[name][real], theirs[name][real], provenance)
            elif name.startswith(SQUARE):
                real = np.broadcast_to(
                    (real_BT[:, :, None] & real_BT[:, None, :])[:, None], ours[name].shape
                )
                found, expected = ours[name][real], theirs[name][real]
            else:
                found, expected = ours[name][real_BT], theirs[name][real_BT]
            scale = max(float(np.abs(expected).max()), 1e-6)
            difference = float(np.abs(found - expected).max()) / scale
            worst[name] = max(worst.get(name, 0.0), difference, key=lambda x: (np.isnan(x), x))
    return worst


def _comparable(
    cached_BC: np.ndarray, live_BC: np.ndarray, provenance: Provenance
) -> tuple[np.ndarray, np.ndarray]:
    """What both sides know of the logits."""
    k = provenance.top_k
    if k is None or k >= cached_BC.shape[1]:
        return cached_BC, live_BC
    top_BK = np.argsort(-cached_BC, axis=1, kind="stable")[:, :k]

    def known(logits_BC: np.ndarray) -> np.ndarray:
        mass_B1 = logsumexp(logits_BC, axis=1, keepdims=True)
        return np.concatenate([np.take_along_axis(logits_BC, top_BK, axis=1), mass_B1], axis=1)

    return known(cached_BC), known(live_BC)
