"""Learning curves: what is written can be read."""

import struct

import pytest

from distill_jax.core.errors import UserError
from distill_jax.sweeps import track
from distill_jax.sweeps.track import open_tracker


def test_tensorboard_files_hold_the_scalars(tmp_path):
    from tensorboardX.proto.event_pb2 import Event

    with open_tracker("tensorboard", tmp_path, "run", {}) as tracker:
        tracker.scalars(3, {"train/loss": 0.5, "validation/accuracy": 0.75})
    (path,) = tmp_path.iterdir()
    data, position, found = path.read_bytes(), 0, {}
    while position < len(data):  # length, its checksum, the event, its checksum
        (length,) = struct.unpack("<Q", data[position : position + 8])
        event = Event.FromString(data[position + 12 : position + 12 + length])
        found |= {(value.tag, event.step): value.simple_value for value in event.summary.value}
        position += 16 + length
    assert found == {("train/loss", 3): 0.5, ("validation/accuracy", 3): 0.75}


def test_none_writes_nothing(tmp_path):
    with open_tracker("none", tmp_path / "events", "run", {}) as tracker:
        tracker.scalars(1, {"loss": 1.0})
    assert list(tmp_path.iterdir()) == []


def test_wandb_is_optional_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "wandb", None)
    with pytest.raises(UserError, match=r"distill_jax\[wandb\]"):
        open_tracker("wandb", tmp_path, "run", {})
    assert track.Tracker().scalars(1, {}) is None
