"""Buckets of distances are those of MPNet's published code."""

import math

import numpy as np
import pytest

from distill_jax.models.relative_positions import bucket_of


def published(distance, buckets=32, most=128):
    """``relative_position_bucket`` of one distance, by hand."""
    half = buckets // 2
    exact = half // 2
    bucket = half if distance > 0 else 0
    far = abs(distance)
    if far < exact:
        return bucket + far
    grown = exact + int(math.log(far / exact) / math.log(most / exact) * (half - exact) + 1e-9)
    return bucket + min(grown, half - 1)


@pytest.mark.parametrize("length", [1, 7, 300])
def test_every_distance_has_its_bucket(length):
    found = np.asarray(bucket_of(length, 32))
    ahead = np.arange(length)[None] - np.arange(length)[:, None]
    np.testing.assert_array_equal(found, np.vectorize(published)(ahead))
    assert found.dtype == np.int32 and found.min() >= 0 and found.max() < 32
