"""Placement: batches are cut, parameters are everywhere."""

import jax
import numpy as np
import pytest

from distill_jax.core.errors import UserError
from distill_jax.core.mesh import (
    check_batch_size,
    make_mesh,
    make_placement,
    replicate,
    shard_batch,
)


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


@pytest.mark.parametrize(("members", "placed"), [(1, 8), (5, 8), (8, 8), (9, 16)])
def test_members_fill_every_device_equally(members, placed):
    placement = make_placement("sharded", make_mesh())
    stack = placement.put_members({"x": np.arange(members)})["x"]
    assert [shard.data.shape for shard in stack.addressable_shards] == [(placed // 8,)] * 8
    assert stack.tolist() == list(range(members)) + [members - 1] * (placed - members)
    again = placement.put_members(stack)
    assert again.tolist() == stack.tolist()


def test_members_on_one_device_are_left_as_they_are():
    placement = make_placement("vmap", make_mesh())
    stack = placement.put_members(np.arange(5))
    assert stack.devices() == {jax.devices()[0]}
    assert stack.tolist() == list(range(5))


def test_stacks_are_filled_along_the_axis_of_the_members():
    placement = make_placement("sharded", make_mesh(jax.devices()[:2]))
    filled = placement.fill(np.asarray([[1, 2, 3], [4, 5, 6]]), axis=1)
    np.testing.assert_array_equal(filled, [[1, 2, 3, 3], [4, 5, 6, 6]])


@pytest.mark.parametrize("strategy", ["vmap", "sharded"])
def test_a_function_of_one_is_mapped_over_members(strategy):
    placement = make_placement(strategy, make_mesh())
    scales_P = np.arange(5, dtype=np.float32)
    x_B = np.arange(3, dtype=np.float32)
    scaled = jax.jit(placement.vmap(lambda scale, x: scale * x, in_axes=(0, None)))
    result_PB = scaled(placement.put_members(scales_P), placement.put_shared(x_B))
    np.testing.assert_array_equal(np.asarray(result_PB)[:5], np.outer(scales_P, x_B))
