"""A page and its data."""

import json

import pytest

from distill_jax.tables.pages import write_page


def test_both_are_written_under_one_name(tmp_path):
    paths = write_page(tmp_path / "update.md", "# ü\n", {"ü": [1.5, None]})
    assert [path.name for path in paths] == ["update.md", "update.json"]
    assert paths[0].read_text(encoding="utf-8") == "# ü\n"
    assert json.loads(paths[1].read_text(encoding="utf-8")) == {"ü": [1.5, None]}
    assert "ü" in paths[1].read_text(encoding="utf-8")


def test_numbers_have_to_be_finite(tmp_path):
    with pytest.raises(ValueError):
        write_page(tmp_path / "a.md", "", {"x": float("nan")})
