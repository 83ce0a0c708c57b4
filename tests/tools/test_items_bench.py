"""The benchmark of catalogues runs in small, and its shop is what it says."""

import json

import numpy as np
import pytest
from benches import bench_module

from distill_jax.data.load_interactions import load_interactions


def test_the_shop_has_all_items_and_a_curve(tmp_path):
    shop = bench_module("catalogue_files")
    users, items = shop.draw(500, 5000, seed=1)
    assert len(users) == len(items) == 5000 and (np.diff(users) >= 0).all()
    counts = np.sort(np.bincount(items, minlength=500))[::-1]
    assert counts.min() >= 1
    assert counts[:50].sum() > 0.4 * 5000  # a tenth of the items
    assert counts[-250:].sum() < 0.15 * 5000  # half of them
    path = shop.write(tmp_path / "shop", 500, 5000, seed=1)
    data = load_interactions(f"files:{path.parent}")
    assert (data.num_items, data.num_users) == (500, users[-1] + 1)
    assert path.read_text().startswith("user,item,time\n")


@pytest.mark.long
def test_it_measures_two_small_catalogues(tmp_path, capsys):
    """Long: five processes, each with its own programs."""
    bench = bench_module("items")
    found = bench.main(bench.Items(tiny=True, steps=10, output_dir=tmp_path))
    assert [each.items for each in found] == list(bench.TINY)
    text = (tmp_path / "items.md").read_text()
    assert text.strip() in capsys.readouterr().out
    told = json.loads((tmp_path / "items.json").read_text())["sizes"]
    assert [each["items"] for each in told] == list(bench.TINY)
    for each in found:
        assert each.peak > 0 and set(each.per) <= {cost.stage for cost in each.costs}


def test_a_table_has_a_line_a_stage():
    bench = bench_module("items")
    costs = [bench.Cost("read", 10, 0.5, 2**21, 0), bench.Cost("step", 10, 9.0, 2**22, 0)]
    found = bench.Measured(10, 100, 5, 6, costs, {"step": 0.25}, 2**30)
    lines = bench.table_of([found, found]).splitlines()
    assert "| read, s | 0.50 | 0.50 |" in lines
    assert "| step, ms each | 250.0 | 250.0 |" in lines
    assert "| step, MiB at most | 4 | 4 |" in lines
    assert lines[-1] == "| the whole process, MiB at most | 1,024 | 1,024 |"
