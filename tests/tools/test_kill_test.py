"""The tool that kills: a few trials of it, and whether it would see a difference."""

import importlib.util
import shutil
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[2] / "tools/kill_test.py"


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("kill_test_tool", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize(
    ("tables", "trials"),
    [
        (("classification",), 3),
        (("classification", "recommendation", "search"), 7),
    ],
)
def test_signals_make_no_difference(tool, tmp_path, tables, trials):
    """Slow: twice as many processes as signals, one of which each ends."""
    report = tmp_path / "report.md"
    args = tool.Arguments(
        trials=trials, seed=3, tables=tables, report=report, strategies=("sequential",)
    )
    assert tool.main(args) == 0
    text = report.read_text()
    assert f"{trials} signals over {len(tables)} sweep" in text and "**no difference**" in text
    for phase in tool.PHASES:
        assert f"| {phase} |" in text
    for table in args.tables:
        assert f"| {table} | sequential |" in text


@pytest.fixture
def folders(tmp_path):
    """Two outputs that are the same."""
    one = tmp_path / "one"
    (one / "runs/abc/model").mkdir(parents=True)
    for name in (*tool_files(), "runs/abc/model/model.safetensors", "runs/abc/test_logits.npz"):
        (one / name).write_bytes(b"as it was")
    (one / "ledger.jsonl").write_text("")
    shutil.copytree(one, tmp_path / "other")
    return one, tmp_path / "other"


def tool_files():
    return ("table.json", "table.md", "table.csv", "table.tex", "figure.png")


def test_equal_folders_do_not_differ(tool, folders):
    assert tool.compare(*folders) == []


@pytest.mark.parametrize(
    "name", ["table.md", "runs/abc/model/model.safetensors", "runs/abc/test_logits.npz"]
)
def test_a_byte_is_a_difference(tool, folders, name):
    (folders[1] / name).write_bytes(b"as it is")
    assert tool.compare(*folders) == [f"{name} differs"]
    (folders[1] / name).unlink()
    assert tool.compare(*folders) == [f"{name} is missing"]


def test_what_is_left_over_is_a_difference(tool, folders):
    left = folders[1] / "runs/abc/checkpoint/3"
    left.mkdir(parents=True)
    (left / "digests.json").write_text("{}")
    assert tool.compare(*folders) == ["runs/abc/checkpoint/3/digests.json is left over"]


def test_an_end_without_a_word_is_wrong(tool):
    class Ended:
        said = "Traceback"

        def __init__(self, code):
            self.code = code

    assert not tool.ends_wrongly(Ended(0), "SIGTERM")
    assert not tool.ends_wrongly(Ended(-9), "SIGKILL")
    assert tool.ends_wrongly(Ended(-15), "SIGTERM")
    assert tool.ends_wrongly(Ended(130), "SIGTERM")
    assert tool.ends_wrongly(Ended(1), "SIGKILL")
