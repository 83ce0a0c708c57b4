"""A checkpoint is whole or not there, and what has happened to it since is found."""

import errno
import os
import shutil
import subprocess
import threading

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest

from distill_jax.core.errors import UserError
from distill_jax.training import checkpoint as module
from distill_jax.training.checkpoint import (
    Checkpoints,
    Identity,
    Policy,
    Snapshot,
    damage,
    latest_damage,
    steps_in,
    write_digests,
)
from distill_jax.training.state import init_state

OURS = Identity("aaaa", {"training": {"epochs": 2.0}, "seed": 0})


def state_at(step, size=40):
    params = {"kernel": jnp.full((size, size), float(step)), "bias": jnp.arange(3.0)}
    state = init_state(params, {"projection": jnp.ones((2, 2))}, optax.scale_by_adam())
    return state.replace(step=jnp.int32(step))


def snapshot_at(step):
    state = state_at(step)
    return Snapshot(state, jax.tree.map(np.array, state.params), {"best_step": step})


def write(folder, *steps, policy=None):
    with Checkpoints(folder, OURS, policy) as checkpoints:
        for step in steps:
            checkpoints.save(snapshot_at(step))


def read(folder, policy=None, identity=OURS, said=None):
    say = (lambda line: None) if said is None else said.append
    with Checkpoints(folder, identity, policy, say) as checkpoints:
        return checkpoints.restore(state_at(0))


def largest_file(folder):
    files = [path for path in folder.rglob("*") if path.is_file()]
    return max(files, key=lambda path: path.stat().st_size)


def flip_a_byte(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


HARM = {
    "a flipped byte": lambda folder: flip_a_byte(largest_file(folder)),
    "cut short": lambda folder: os.truncate(largest_file(folder), 20),
    "a missing file": lambda folder: largest_file(folder).unlink(),
    "no digests": lambda folder: (folder / module.DIGESTS).unlink(),
    "digests of another kind": lambda folder: (folder / module.DIGESTS).write_text("[1]"),
    "a file too many": lambda folder: (folder / "state/extra").write_text("?"),
}


def test_it_holds_everything(tmp_path):
    write(tmp_path, 4)
    snapshot = read(tmp_path)
    jax.tree.map(np.testing.assert_array_equal, snapshot.state, state_at(4))
    jax.tree.map(np.testing.assert_array_equal, snapshot.best_params, state_at(4).params)
    assert snapshot.record == {"best_step": 4}
    assert snapshot.step == 4
    assert damage(tmp_path / "4") is None


def test_the_last_ones_are_kept(tmp_path):
    write(tmp_path, 1, 2, 3, 5)
    assert steps_in(tmp_path) == [3, 5]
    write(tmp_path / "more", 1, 2, 3, 5, policy=Policy(keep=3))
    assert steps_in(tmp_path / "more") == [2, 3, 5]


def test_training_goes_on_while_it_is_written(tmp_path, monkeypatch):
    """What is saved is the state at the call: not what steps that donate it make of it."""
    hold, write_digests = threading.Event(), module.write_digests
    monkeypatch.setattr(module, "write_digests", lambda f: (hold.wait(30), write_digests(f)))
    step = jax.jit(lambda s: jax.tree.map(lambda x: x + 1, s), donate_argnums=0)
    state, record = state_at(1), {"history": [1]}
    best = jax.tree.map(np.array, state.params)
    with Checkpoints(tmp_path, OURS) as checkpoints:
        checkpoints.save(Snapshot(state, best, record))
        for _ in range(3):
            state = step(state)
        best["kernel"][:] = -1
        record["history"].append(2)
        assert steps_in(tmp_path) == []  # not committed before the digests are there
        hold.set()
    found = read(tmp_path)
    jax.tree.map(np.testing.assert_array_equal, found.state, state_at(1))
    assert found.best_params["kernel"].max() == 1
    assert found.record == {"history": [1]}


def test_a_failure_in_the_background_surfaces_at_once(tmp_path, monkeypatch):
    def full(folder):
        raise OSError(errno.ENOSPC, "No space left on device")

    with Checkpoints(tmp_path, OURS) as checkpoints:
        checkpoints.save(snapshot_at(1), wait=True)
        monkeypatch.setattr(module, "write_digests", full)
        checkpoints.save(snapshot_at(2))
        checkpoints._finishing.join()
        with pytest.raises(UserError, match=r"cannot write a checkpoint.*No space left"):
            checkpoints.check()
    assert steps_in(tmp_path) == [1]
    assert read(tmp_path).step == 1


def test_a_failure_after_the_last_step_is_told_and_costs_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "write_digests", lambda folder: 1 / 0)
    said = []
    with Checkpoints(tmp_path, OURS, say=said.append) as checkpoints:
        checkpoints.save(snapshot_at(2))
    assert "cannot write a checkpoint" in said[0]


@pytest.fixture
def tiny_disk(tmp_path):
    """A disk of 400 kB, where mounting is allowed."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(mount, capture_output=True).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("mounting is not allowed here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk(tiny_disk):
    write(tiny_disk / "run", 1)
    noise = np.random.default_rng(0).random((300, 300), np.float32)  # does not compress
    large = Snapshot(state_at(2).replace(params={"kernel": noise}), {"kernel": noise}, {})
    with (
        pytest.raises(UserError, match="cannot write a checkpoint"),
        Checkpoints(tiny_disk / "run", OURS) as checkpoints,
    ):
        checkpoints.save(large, wait=True)
    assert read(tiny_disk / "run").step == 1


def test_what_vanishes_while_it_is_cleared(tmp_path, monkeypatch):
    write(tmp_path, 1)
    left = tmp_path / f"{module.UNFINISHED}2"
    left.mkdir()
    (left / "array").touch()
    remove, calls = shutil.rmtree, []

    def beside_another(path, *args, **kwargs):
        calls.append(path)
        if len(calls) == 1:
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", "lock")
        remove(path, *args, **kwargs)

    monkeypatch.setattr(shutil, "rmtree", beside_another)
    assert read(tmp_path).step == 1
    assert calls == [left, left] and not left.exists()


def test_a_read_only_folder(tmp_path, monkeypatch):
    """As root, permissions stop nobody: the calls are made to fail as they would."""

    def refuse(*args, **kwargs):
        raise OSError(errno.EROFS, "Read-only file system")

    with monkeypatch.context() as patch:
        patch.setattr(module.Path, "mkdir", refuse)
        with pytest.raises(UserError, match=r"cannot write a checkpoint.*Read-only"):
            Checkpoints(tmp_path / "run")
    with Checkpoints(tmp_path / "run", OURS) as checkpoints:
        checkpoints.save(snapshot_at(1), wait=True)
        monkeypatch.setattr(module.Path, "rename", refuse)
        with pytest.raises(UserError, match=r"cannot write a checkpoint.*Read-only"):
            checkpoints.save(snapshot_at(2), wait=True)


@pytest.mark.parametrize("harm", HARM.values(), ids=HARM.keys())
def test_damage_is_found_and_the_one_before_used_only_after_saying_so(tmp_path, harm):
    write(tmp_path, 1, 2)
    harm(tmp_path / "2")
    assert latest_damage(tmp_path)
    with pytest.raises(UserError, match=r"damaged: step 2 .*--resume must refuses"):
        read(tmp_path, Policy(resume="must"))
    said = []
    assert read(tmp_path, said=said).step == 1
    assert "damaged: step 2" in said[0] and "going on from step 1 instead" in said[0]
    write(tmp_path, 2)  # the step is taken again
    assert read(tmp_path).step == 2


@pytest.mark.parametrize("harm", HARM.values(), ids=HARM.keys())
def test_nothing_starts_afresh_where_all_are_damaged(tmp_path, harm):
    write(tmp_path, 2)
    harm(tmp_path / "2")
    with pytest.raises(UserError, match=r"damaged: step 2.*there is no other.*--resume never"):
        read(tmp_path)


def test_what_was_never_finished_is_no_checkpoint(tmp_path):
    write(tmp_path, 1)
    (tmp_path / "2.orbax-checkpoint-tmp-1").mkdir()
    (tmp_path / "unfinished-2").mkdir()
    assert steps_in(tmp_path) == [1]
    assert read(tmp_path, Policy(resume="must")).step == 1
    assert not (tmp_path / "unfinished-2").exists()


def test_never_deletes_and_says_so(tmp_path):
    write(tmp_path, 3)
    said = []
    assert read(tmp_path, Policy(resume="never"), said=said) is None
    assert "the checkpoint of step 3 is deleted" in said[0]
    assert steps_in(tmp_path) == []


def test_a_checkpoint_of_other_settings_is_refused_with_their_difference(tmp_path):
    write(tmp_path, 3)
    other = Identity("bbbb", {"training": {"epochs": 5.0}, "seed": 0})
    with pytest.raises(UserError, match=r"training.epochs: 2.0 -> 5.0.*--allow-change training.ep"):
        read(tmp_path, identity=other)
    assert read(tmp_path, Policy(allow_change=("training.epochs",)), other).step == 3
    assert read(tmp_path, Policy(allow_change=("training",)), other).step == 3
    with pytest.raises(UserError, match=r"hash: aaaa -> bbbb"):
        read(tmp_path, identity=Identity("bbbb", OURS.config))


def test_other_shapes_are_refused(tmp_path):
    write(tmp_path, 3)
    with (
        Checkpoints(tmp_path, OURS) as checkpoints,
        pytest.raises(UserError, match="cannot be read"),
    ):
        checkpoints.restore(state_at(0, size=7))


@pytest.mark.parametrize("theirs", ['{"owner": "aaaa"}', '{"hash": 3, "config": {}}', "[]"])
def test_an_identity_of_another_version(tmp_path, theirs):
    write(tmp_path, 4)
    (tmp_path / "4/identity/metadata").write_text(theirs)
    (tmp_path / "4" / module.DIGESTS).unlink()
    write_digests(tmp_path / "4")
    with pytest.raises(UserError, match=r"step 4 .* cannot be read"):
        read(tmp_path)


def test_masks_are_kept_and_checkpoints_from_before_there_were_any_are_read(tmp_path):
    masks = {"left": {"kernel": jnp.zeros((40, 40), bool)}, "over": jnp.int32(7)}
    pruned = state_at(3).replace(masks=masks)
    best = jax.tree.map(np.array, pruned.params)
    with Checkpoints(tmp_path / "pruned", OURS) as checkpoints:
        checkpoints.save(Snapshot(pruned, best, {}), wait=True)
        found = checkpoints.restore(state_at(0).replace(masks=jax.tree.map(jnp.ones_like, masks)))
    jax.tree.map(np.testing.assert_array_equal, found.state.masks, masks)

    write(tmp_path / "plain", 5)  # as it was when a state had four fields
    kept = {
        name: value for name, value in vars(state_at(0)).items() if name not in ("masks", "rows")
    }
    items = ocp.args.Composite(state=ocp.args.StandardRestore(kept))
    reader = ocp.Checkpointer(ocp.CompositeCheckpointHandler())
    assert int(reader.restore(tmp_path / "plain/5", args=items)["state"]["step"]) == 5
    reader.close()
    assert read(tmp_path / "plain").state.masks == {}
