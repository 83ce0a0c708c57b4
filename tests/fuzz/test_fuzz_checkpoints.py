"""A damaged checkpoint is found: the state that comes back is one that was saved, to the bit."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from damages import damaged_copy, folder_damage, told
from hypothesis import given, settings
from hypothesis import strategies as st

from distill_jax.training.checkpoint import (
    DIGESTS,
    Checkpoints,
    Identity,
    Policy,
    Snapshot,
    write_digests,
)
from distill_jax.training.state import init_state

OURS = Identity("aaaa", {"training": {"epochs": 2.0}, "seed": 0})


def state_at(step):
    params = {"kernel": jnp.full((3, 2), float(step)), "bias": jnp.arange(3.0)}
    state = init_state(params, {"projection": jnp.ones((2, 2))}, optax.scale_by_adam())
    return state.replace(step=jnp.int32(step))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Two checkpoints of one run, of steps 2 and 4."""
    folder = tmp_path_factory.mktemp("checkpoints") / "whole"
    with Checkpoints(folder, OURS) as checkpoints:
        for step in (2, 4):
            state = state_at(step)
            best = jax.tree.map(np.array, state.params)
            checkpoints.save(Snapshot(state, best, {"best_step": step}))
    return folder


def restore(folder, resume, said):
    with Checkpoints(folder, OURS, Policy(resume=resume), said.append) as checkpoints:
        return checkpoints.restore(state_at(0))


@settings(max_examples=40)
@given(st.data())
def test_folders_of_checkpoints(whole, data):
    changes = data.draw(folder_damage(whole))
    resume = data.draw(st.sampled_from(["auto", "auto", "must"]))
    folder, said = damaged_copy(whole, changes, whole.parent / "damaged"), []
    harmed = {name.partition("/")[0] for name, new in changes.items() if differs(whole, name, new)}
    snapshot, refused = told(lambda: restore(folder, resume, said))
    if snapshot is None:
        assert refused and harmed
        return
    assert snapshot.step == (2 if "4" in harmed else 4)
    assert snapshot.record == {"best_step": snapshot.step}
    jax.tree.map(np.testing.assert_array_equal, snapshot.state, state_at(snapshot.step))
    jax.tree.map(np.testing.assert_array_equal, snapshot.best_params, snapshot.state.params)
    if "4" in harmed:  # never in silence, and not where it must be the latest
        assert resume == "auto" and any("is damaged" in line for line in said)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of Orbax's threads
@settings(max_examples=25)
@given(st.data())
def test_checkpoints_with_the_digests_of_their_damage(whole, data):
    """As another version, or a hostile hand, would leave them: Orbax has to find it."""
    changes = data.draw(folder_damage(whole / "4"))
    folder = damaged_copy(whole, {}, whole.parent / "renamed")
    damaged_copy(whole / "4", changes, folder / "4")
    (folder / "4" / DIGESTS).unlink(missing_ok=True)
    write_digests(folder / "4")
    told(lambda: restore(folder, "auto", []))


def differs(folder, name, new):
    return new != (folder / name).read_bytes()
