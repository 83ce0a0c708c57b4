"""An export is there whole or not at all, and says of what it was made."""

import signal
import stat
import subprocess
import sys

import pytest
from exports import save_student

from distill_jax.core.errors import UserError
from distill_jax.export.formats import names
from distill_jax.export.manifest import digests_of, read_manifest
from distill_jax.export.opened import open_export
from distill_jax.export.write import formats_asked, places

EXPORT = """
import os, signal, sys
from pathlib import Path
from distill_jax.cli.run import run
from distill_jax.export import write
from distill_jax.export.formats import format_named
from distill_jax.export.own_data import NoData
from distill_jax.export.source import open_source

run_folder, target = Path(sys.argv[1]), Path(sys.argv[2])
source = open_source(run_folder)

def export(name):
    write.export_model(source, format_named(name), target, data=NoData("a toy"), max_drop=1)
"""
FULL = """
import resource
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (3_000, 3_000))
for name in sys.argv[3].split(","):
    try:
        export(name)
    except BaseException as error:
        print(name, type(error).__name__, error, flush=True)
    print(sorted(path.name for path in target.parent.iterdir()), flush=True)
"""
KILLED = """
write.write_golden = lambda *args: os.kill(os.getpid(), signal.SIGKILL)
export("onnx")
"""


def ran(program, *arguments, env):
    return subprocess.run(
        [sys.executable, "-c", EXPORT + program, *map(str, arguments)],
        capture_output=True, text=True, timeout=300, env=env,
    )  # fmt: skip


@pytest.fixture
def no_cache(one_device):
    """Compiled programs that are cut short by the limit must not be shared."""
    return {k: v for k, v in one_device.items() if not k.startswith("JAX_COMPILATION_CACHE")}


def test_a_full_disk_is_one_line_and_leaves_nothing(student_run, tmp_path, no_cache):
    """A limit on the size of files stands for it; both fail in ``write``."""
    folder = tmp_path / "out"
    folder.mkdir()
    done = ran(FULL, student_run, folder / "export", ",".join(names()), env=no_cache)
    lines = done.stdout.splitlines()
    assert len(lines) == 2 * len(names()), done.stderr
    for name, said, left in zip(names(), lines[::2], lines[1::2], strict=True):
        assert said.startswith(f"{name} UserError cannot write {folder}"), said
        assert "File too large" in said and left == "[]"


def test_a_kill_leaves_nothing_that_looks_finished(student_run, write_export, tmp_path, no_cache):
    target = tmp_path / "export"
    assert ran(KILLED, student_run, target, env=no_cache).returncode == -signal.SIGKILL
    assert not target.exists()
    (scratch,) = tmp_path.iterdir()  # hidden, and no export
    assert scratch.name.startswith(".export.") and (scratch / "model.onnx").is_file()
    with pytest.raises(UserError, match="is no export"):
        open_export(scratch)
    write_export(student_run, "onnx", target)
    open_export(target)


def test_a_folder_that_is_taken_is_left_alone(student_run, write_export, tmp_path):
    (tmp_path / "mine").write_text("precious")
    with pytest.raises(UserError, match="exists and is not empty; choose another folder"):
        write_export(student_run, "onnx", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_the_same_run_gives_the_same_files(student_run, write_export, exports, tmp_path):
    """Nothing in them hangs on the hour or on the order of a dictionary."""
    for format in ("onnx", "onnx-int8"):
        write_export(student_run, format, tmp_path / format)
        assert digests_of(tmp_path / format) == digests_of(exports[format])
        assert read_manifest(tmp_path / format) == read_manifest(exports[format])


def test_others_may_read_what_they_may_read(exports):
    for folder in exports.values():
        for path in folder.rglob("*"):
            assert path.is_dir() or stat.S_IMODE(path.stat().st_mode) & 0o044 == 0o044


def test_where_formats_go(tmp_path):
    both = formats_asked("onnx, hf,onnx")
    assert [format.name for format in both] == ["onnx", "hf"]
    run = tmp_path / "run"
    assert places(run, both, None) == [run / "export/onnx", run / "export/hf"]
    assert places(run, both, tmp_path) == [tmp_path / "onnx", tmp_path / "hf"]
    assert places(run, both[:1], tmp_path) == [tmp_path]
    with pytest.raises(UserError, match=r"unknown export format 'onxx' in --format hf,onxx"):
        formats_asked("hf,onxx")
    with pytest.raises(UserError, match="names no format"):
        formats_asked(" ,")


def test_a_model_without_a_ledger_is_exported_too(toy_teacher, write_export, tmp_path):
    run = save_student(tmp_path / "run", toy_teacher, "bert", temperature=2.0)
    manifest = write_export(run / "model", "onnx", tmp_path / "out")
    assert manifest.temperature == 2.0 and "run" not in manifest.source
    assert set(manifest.source) == {"model", "family", "parameters"}
