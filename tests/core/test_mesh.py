"""Placement: batches are cut, parameters are everywhere."""

import jax
import numpy as np
import pytest

from distill_jax.core.errors import UserError
from distill_jax.core.mesh import check_batch_size, make_mesh, replicate, shard_batch


def test_a_batch_is_cut_along_its_first_axis():
    mesh = make_mesh()
    placed = shard_batch({"x": np.arange(16).reshape(16, 1)}, mesh)["x"]
    assert [shard.data.shape for shard in placed.addressable_shards] == [(2, 1)] * 8
    whole = replicate(np.arange(3), mesh)
    assert [shard.data.shape for shard in whole.addressable_shards] == [(3,)] * 8


def test_no_teacher_is_placed_as_no_teacher():
    assert shard_batch((np.zeros(8), None), make_mesh())[1] is None


def test_uneven_batches_are_refused():
    check_batch_size(24, make_mesh())
    check_batch_size(7, make_mesh(jax.devices()[:1]))
    with pytest.raises(UserError, match="20 examples cannot be shared equally by 8 devices"):
        check_batch_size(20, make_mesh())
