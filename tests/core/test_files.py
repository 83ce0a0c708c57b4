"""Files and folders are whole or not there."""

import os
from pathlib import Path

import numpy as np
import pytest

from distill_jax.core import files
from distill_jax.core.errors import UserError
from distill_jax.core.files import atomic_folder, home, read_arrays, write_atomic


def test_home_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("DISTILL_JAX_HOME", str(tmp_path / "named"))
    assert home() == tmp_path / "named"
    monkeypatch.delenv("DISTILL_JAX_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert home() == tmp_path / "cache/distill_jax"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    assert home() == tmp_path / ".cache/distill_jax"


def test_a_folder_appears_whole(tmp_path):
    target = tmp_path / "a/b"
    with atomic_folder(target) as scratch:
        (scratch / "file").write_text("x")
        assert not target.exists()
    assert (target / "file").read_text() == "x"
    assert os.listdir(target.parent) == ["b"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_folder_that_failed_leaves_nothing(tmp_path, error):
    with pytest.raises(error), atomic_folder(tmp_path / "target") as scratch:
        (scratch / "file").write_text("x")
        raise error
    assert list(tmp_path.iterdir()) == []


def test_of_two_makers_the_first_wins(tmp_path):
    target = tmp_path / "target"
    with atomic_folder(target) as slow:
        with atomic_folder(target) as quick:
            (quick / "file").write_text("quick")
        (slow / "file").write_text("slow")
    assert (target / "file").read_text() == "quick"
    assert os.listdir(tmp_path) == ["target"]


def test_a_file_in_the_way_is_told(tmp_path):
    (tmp_path / "target").write_text("")
    with pytest.raises(UserError, match="cannot write"), atomic_folder(tmp_path / "target"):
        pass


def test_writing_replaces_and_keeps_permissions_of_new_files(tmp_path):
    path = tmp_path / "folder/file"
    write_atomic(path, "one")
    write_atomic(path, b"two")
    assert path.read_bytes() == b"two"
    plain = tmp_path / "plain"
    plain.write_text("")
    assert path.stat().st_mode == plain.stat().st_mode
    assert os.listdir(path.parent) == ["file"]


def test_a_full_disk_is_one_line_and_the_old_file_stays(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_atomic(path, "old")

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(UserError, match="No space left on device") as told:
        write_atomic(path, "new")
    assert "\n" not in str(told.value)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]


def test_arrays_by_name_and_what_is_none(tmp_path):
    np.savez(tmp_path / "two.npz", a=np.arange(3), b=np.ones(1))
    found = read_arrays(tmp_path / "two.npz")
    assert found["a"].tolist() == [0, 1, 2] and set(found) == {"a", "b"}
    np.save(tmp_path / "one.npy", np.arange(3))
    with pytest.raises(ValueError, match="one array without a name"):
        read_arrays(tmp_path / "one.npy")
    (tmp_path / "cut.npz").write_bytes((tmp_path / "two.npz").read_bytes()[:-40])
    with pytest.raises(ValueError, match=r"."):
        read_arrays(tmp_path / "cut.npz")
    with pytest.raises(FileNotFoundError):
        read_arrays(tmp_path / "none.npz")
