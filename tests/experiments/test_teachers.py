"""experiments/teachers.py: the whole path in small."""

import numpy as np
import pytest
from scripts import ROOT, module_at

from distill_jax.tables.outputs import load_results

SCRIPT = module_at(ROOT / "experiments/teachers.py")


@pytest.mark.long
def test_the_smoke_preset_runs_and_says_what_held(
    toy_teacher, toy_reviews, tmp_path, monkeypatch, capsys
):
    """Long: eleven rows, each with a teacher of its own kind, which other tests hold alone."""
    monkeypatch.setenv("DISTILL_JAX_HOME", str(tmp_path / "home"))
    flags = SCRIPT.Teachers(
        preset="smoke", data=f"files:{toy_reviews}", teacher=str(toy_teacher), student="1x8x2",
        assistant="2x8x2", max_length=16, steps=4, seeds=(0,), strategy="sequential",
        output_dir=tmp_path,
    )  # fmt: skip
    SCRIPT.main(flags)
    folder = tmp_path / "teachers-smoke"
    spec, rows = load_results(folder)
    by_hash = {row.hash: row for row in rows}
    labels = {place.row for place in spec.places}
    assert len(labels) == 11 and len(spec.places) == 11
    for place in spec.places:
        assert np.isfinite(by_hash[place.hash].metrics["test/accuracy"])
    told = [place.row for place in spec.teachers]
    assert {"teacher: model > 2x8x2", "teacher: none > 1x8x2 > 1x8x2"} <= set(told)
    assert told.count("teacher: tfidf-{seed}.npz") == 1
    assert len({place.hash for place in spec.teachers}) == len(told), "each stands once"
    weighed = [by_hash[place.hash] for place in spec.places if place.row == SCRIPT.WEIGHED]
    assert all("teacher_weights=[" in row.config["objective"] for row in weighed)
    trends = (folder / "trends.md").read_text(encoding="utf-8")
    assert "Mirzadeh et al. 2020" in trends and "Zhang et al. 2018" in trends
    assert capsys.readouterr().out
