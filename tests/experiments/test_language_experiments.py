"""The experiments of language models, small, the whole way."""

from pathlib import Path

import pytest
from language_tables import on_one_device, write_texts
from scripts import ROOT, module_at

from distill_jax.tables.outputs import load_results


def test_the_chinese_table_is_declared():
    """Every trend names what the table has; the three teachers differ in name, and in the rates."""
    script = module_at(ROOT / "experiments/pretraining_zh.py")
    for preset in ("default", "smoke"):
        flags = script.PretrainingZh(preset=preset)
        sweep = script.table(flags, Path("a"), Path("b"))
        entries = sweep.entries()
        places = {(entry.row, entry.group) for entry in entries}
        picks = [p for t in sweep.trends for c in t.contrasts for p in c.picks]
        named = {place[:2] for pick in picks for place in pick.places}
        assert named <= places and len(places) == 6
        assert len({entry.cell.setup.teacher.name for entry in entries}) == 3
        (mlm,) = script.pretraining(flags).entries()
        assert mlm.cell.setup.data.max_length == entries[0].cell.setup.data.max_length


@pytest.mark.long
def test_the_chinese_table_in_small(toy_teacher, toy_reviews, tmp_path, monkeypatch):
    """On other texts: three teachers, of which two have one tokeniser, and students of each."""
    monkeypatch.setenv("DISTILL_JAX_HOME", str(tmp_path / "home"))
    on_one_device(monkeypatch)
    script = module_at(ROOT / "experiments/pretraining_zh.py")
    flags = script.PretrainingZh(
        preset="smoke",
        data=f"files:{toy_reviews}",
        english=str(toy_teacher),
        seeds=(0,),
        strategy="sequential",
        output_dir=tmp_path,
    )
    script.main(flags)
    spec, rows = load_results(tmp_path / "pretraining_zh-smoke")
    assert [place.group for place in spec.teachers] == [
        script.SCRATCH,
        script.PRETRAINED,
        script.ENGLISH,
    ]
    unknown = {row.group: row.metrics["test/unknown"] for row in rows if row.row == "kl"}
    assert unknown[script.SCRATCH] == unknown[script.PRETRAINED] < unknown[script.ENGLISH]
    fingerprints = {row.group: row.fingerprints for row in rows if row.row == "kl"}
    tokens = {group: each["tokens"] for group, each in fingerprints.items()}
    assert tokens[script.SCRATCH] == tokens[script.PRETRAINED] != tokens[script.ENGLISH]
    pretrained = {group: each["pretrained"] for group, each in fingerprints.items()}
    assert len(set(pretrained.values())) == 3
    assert any("does not know" in line for line in spec.protocol)


@pytest.mark.long
def test_the_decoders_in_small(tmp_path, monkeypatch):
    """In smaller still: ``tests/tasks/language/test_language_table.py``."""
    monkeypatch.setenv("DISTILL_JAX_HOME", str(tmp_path / "home"))
    on_one_device(monkeypatch)
    script = module_at(ROOT / "experiments/causal_lm.py")
    texts = write_texts(tmp_path / "texts", 120)
    script.main(
        script.CausalLM(
            preset="smoke",
            data=f"text:{texts}",
            seeds=(0,),
            strategy="sequential",
            output_dir=tmp_path,
        )
    )
    spec, rows = load_results(tmp_path / "causal_lm-smoke")
    by_row = {row.row: row.metrics for row in rows}
    assert set(by_row) == {"teacher", "ce", "kl"} and len(spec.teachers) == 1
    assert by_row["kl"]["test/kl"] > 0 and by_row["ce"]["test/perplexity"] > 1
