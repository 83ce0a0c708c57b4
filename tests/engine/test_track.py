"""Learning curves: what is written can be read."""

import struct
import sys
import types

import pytest

from distill_jax.core.errors import UserError
from distill_jax.engine import track
from distill_jax.engine.track import open_tracker


def events_in(path):
    """Every event of a file, in order."""
    from tensorboardX.proto.event_pb2 import Event

    data, position, events = path.read_bytes(), 0, []
    while position < len(data):  # length, its checksum, the event, its checksum
        (length,) = struct.unpack("<Q", data[position : position + 8])
        events.append(Event.FromString(data[position + 12 : position + 12 + length]))
        position += 16 + length
    return events


def curve(folder):
    """Step -> loss, as TensorBoard shows it: a session's start drops what is done again."""
    shown = {}
    for path in sorted(folder.iterdir()):
        for event in events_in(path):
            if event.HasField("session_log"):
                shown = {step: loss for step, loss in shown.items() if step < event.step}
            for value in event.summary.value:
                shown[event.step] = value.simple_value
    return shown


def test_tensorboard_files_hold_the_scalars(tmp_path):
    with open_tracker("tensorboard", tmp_path, "run", {}) as tracker:
        tracker.scalars(3, {"train/loss": 0.5, "validation/accuracy": 0.75})
    (path,) = tmp_path.iterdir()
    found = {
        (value.tag, event.step): value.simple_value
        for event in events_in(path)
        for value in event.summary.value
    }
    assert found == {("train/loss", 3): 0.5, ("validation/accuracy", 3): 0.75}


def test_a_killed_run_that_goes_on_loses_no_step(tmp_path):
    """Steps are on disk when they are logged, files of one second are two, and what a later
    checkpoint did not hold is there once."""
    killed = open_tracker("tensorboard", tmp_path, "run", {})  # never closed
    for step in (20, 40, 60):
        killed.scalars(step, {"train/loss": float(step)})
    with open_tracker("tensorboard", tmp_path, "run", {}) as tracker:
        tracker.resume(40)
        for step in (60, 80):
            tracker.scalars(step, {"train/loss": float(step)})
    assert len(list(tmp_path.iterdir())) == 2
    assert curve(tmp_path) == {20: 20.0, 40: 40.0, 60: 60.0, 80: 80.0}
    starts = [
        e.step for path in tmp_path.iterdir() for e in events_in(path) if e.session_log.status
    ]
    assert starts == [41]


def test_a_disk_that_takes_no_curves_is_said_in_one_line(tmp_path):
    (tmp_path / "events").write_text("a file")
    with pytest.raises(UserError, match="cannot write"):
        open_tracker("tensorboard", tmp_path / "events", "run", {})


def test_wandb_goes_on_in_the_same_run(tmp_path, monkeypatch):
    begun = []

    class Run:
        def log(self, values, step):
            begun.append((step, values))

        def finish(self):
            begun.append("finished")

    fake = types.ModuleType("wandb")
    fake.init = lambda **options: begun.append((options["id"], options["resume"])) or Run()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    with open_tracker("wandb", tmp_path, "hash", {}) as tracker:
        tracker.resume(2)
        tracker.scalars(3, {"loss": 1.0})
    assert begun == [("hash", "allow"), (3, {"loss": 1.0}), "finished"]


def test_none_writes_nothing(tmp_path):
    with open_tracker("none", tmp_path / "events", "run", {}) as tracker:
        tracker.scalars(1, {"loss": 1.0})
    assert list(tmp_path.iterdir()) == []


def test_wandb_is_optional_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "wandb", None)
    with pytest.raises(UserError, match=r"distill_jax\[wandb\]"):
        open_tracker("wandb", tmp_path, "run", {})
    assert track.Tracker().scalars(1, {}) is None
