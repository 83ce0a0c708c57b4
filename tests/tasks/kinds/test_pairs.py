"""Pairs of texts with three classes, as SICK's entailment, and with a number."""

import json

import numpy as np
from kind_tables import run

from distill_jax.cli.main import dispatch
from distill_jax.tables.report_errors import errors

PAIRS = ("--text", "sentence", "--text-b", "second")


def test_three_classes_of_pairs(small, tmp_path, capsys):
    flags = (*PAIRS, "--label", "relation")
    args = small(*flags, objectives=("ce",), class_weights="balanced")
    _, rows, said = run(args, tmp_path / "out")
    assert "classes none, other, same" in said
    folder = tmp_path / "out/runs" / rows[-1].hash
    kept = json.loads((folder / "mistakes.json").read_text())
    assert np.array(kept["confusion"]).shape == (3, 3) and len(kept["classes"]) == 3
    page = "".join(errors(rows[-1], tmp_path / "out"))
    assert "label (down), predicted (across)" in page and "precision %" in page
    capsys.readouterr()
    dispatch(["predict", str(folder), "good film", "--second", "bad film"])
    assert capsys.readouterr().out.split("\t")[0] in ("none", "other", "same")


def test_a_number_of_pairs(small, tmp_path, capsys):
    flags = (*PAIRS, "--task", "number", "--label", "rating")
    _, rows, _ = run(small(*flags, objectives=("mse_regression",), seeds=(0,)), tmp_path / "out")
    folder = tmp_path / "out/runs" / rows[-1].hash
    capsys.readouterr()
    dispatch(["predict", str(folder), "good film", "--second", "bad film"])
    number = float(capsys.readouterr().out.split("\t")[0])
    assert 0 < number < 100  # in the labels' units
