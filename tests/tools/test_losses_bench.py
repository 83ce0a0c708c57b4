"""What losses cost: the script runs, compares within rounds and keeps what it measured."""

import importlib.util
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("losses_bench", ROOT / "tools/bench/losses.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_small_run_prints_both_tables_and_keeps_the_seconds(tool, tmp_path, capsys):
    objectives = ("kl", "kl + mse_logits")
    tool.main(
        tool.Arguments(
            losses=("kl",),
            classes=300,
            rows=4,
            tokens=3,
            objectives=objectives,
            layers=1,
            width=8,
            vocabulary=30,
            rounds=2,
            output=tmp_path / "bench",
        )
    )
    printed = capsys.readouterr().out
    assert "| `plain KL` |" in printed and "| `kl + mse_logits` |" in printed
    kept = json.loads((tmp_path / "bench/losses.json").read_text())
    assert list(kept["losses"]) == [tool.PLAIN, "kl"] and list(kept["steps"]) == list(objectives)
    assert all(len(own) == 2 for part in ("losses", "steps") for own in kept[part].values())


def test_ratios_are_those_within_a_round(tool):
    """A round in which everything takes ten times as long changes none of them."""
    seconds = {"one": [1.0, 10.0, 1.0], "more": [1.1, 11.0, 1.1]}
    assert tool.lines(seconds, "a step")[-1] == "| `more` | 1100.00 | 1100.00 | 1.100 |"
