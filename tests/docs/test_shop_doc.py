"""From a shop's file to lists by the three commands in docs/recommendation.md."""

import csv
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from haste import HASTE
from recsys import save_model
from samples import place, sample_run
from scripts import ROOT, module_at

from distill_jax.cli.main import dispatch
from distill_jax.cli.run import parse_flags
from distill_jax.data.load_interactions import load_ranking_split
from distill_jax.tables.columns import ACCURACY
from distill_jax.tables.ledger import Ledger
from distill_jax.tables.spec import TableSpec

DOC = (ROOT / "docs/recommendation.md").read_text("utf-8")
SECTION = DOC.split("## From a file to lists")[1].split("\n## ")[0]
(BLOCK,) = re.findall(r"```\n(.*?)```", SECTION, re.S)
COMMANDS = [shlex.split(line) for line in BLOCK.replace("\\\n", " ").splitlines()]
SCRIPT = "experiments/recommendation.py"
FILE = "ratings.csv"
USERS, ITEMS = 40, 60


@pytest.fixture
def shop(tmp_path, monkeypatch):
    """An empty folder with a file of 40 customers, whose ids and rows are in no order."""
    rng = np.random.default_rng(0)
    rows = []
    for user in range(USERS):
        count = int(rng.integers(6, 12))
        items = (rng.integers(ITEMS) + np.cumsum(rng.integers(1, 3, count))) % ITEMS
        times = 1_600_000_000 + rng.integers(10**6) + 3600 * np.arange(count)
        ratings = rng.choice([3.5, 4.0, 4.5, 5.0], count)
        rows += [
            (900 - 7 * user, 5000 + i, r, t) for i, r, t in zip(items, ratings, times, strict=True)
        ]
    with (tmp_path / FILE).open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["userId", "movieId", "rating", "timestamp"])
        writer.writerows(rows[row] for row in rng.permutation(len(rows)))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DISTILL_JAX_HOME", str(tmp_path / "home"))
    return tmp_path


def check(lists):
    """Ten items for every user, none of which the user took."""
    with open(FILE) as file:
        taken = {(row["userId"], row["movieId"]) for row in csv.DictReader(file)}
    with open(lists) as file:
        rows = list(csv.DictReader(file))
    users = {user for user, _ in taken}
    assert len(rows) == 10 * USERS and {row["user"] for row in rows} == users
    shown = {(row["user"], row["item"]) for row in rows}
    assert len(shown) == len(rows) and not shown & taken
    assert {item for _, item in shown} <= {item for _, item in taken}
    assert {row["by"] for row in rows} == {"history"}


def test_there_are_three():
    programs = [[Path(word).name for word in command[:2]] for command in COMMANDS]
    assert programs == [
        ["distill-jax", "data"],
        ["python", "recommendation.py"],
        ["distill-jax", "recommend"],
    ]
    assert COMMANDS[1][1] == SCRIPT


def test_each_does_its_part(shop, capsys, monkeypatch):
    """The table is not trained: its student is one that was not."""
    look, train, write = COMMANDS
    dispatch(look[1:])
    assert f"files:{FILE}: {USERS} users, " in capsys.readouterr().out
    script = module_at(ROOT / SCRIPT)
    monkeypatch.setitem(sys.modules, script.__name__, script)  # where flags look for their help
    flags = parse_flags(script.Recommendation, train[2:], SCRIPT)
    sweep, _ = script.table(flags)
    data = sweep.base.setup.data
    split = load_ranking_split(data.name, preparation=data.preparation)
    folder, row = (
        flags.output_dir,
        sample_run("kl", "sasrec-1x16", 0, hash="cafe", metrics={"validation/ndcg@10": 0.1}),
    )
    save_model(folder / "runs" / row.hash, "sasrec-1x16", split=split, max_length=50)
    Ledger(folder / "ledger.jsonl").append(row)
    spec = TableSpec("shop", "A shop", "metrics", (ACCURACY,), "kl", (place(row),))
    (folder / "table.json").write_text(spec.to_json())
    dispatch(write[1:])
    assert "cafe: sasrec-1x16, kl, seed 0" in capsys.readouterr().err
    check(write[-1])


@pytest.mark.long
def test_they_run_as_they_stand(shop):
    """From a folder in which there is nothing but the file and what is installed."""
    programs = shop / ".venv" / "bin"
    programs.mkdir(parents=True)
    entry = f"{sys.executable} -c 'from distill_jax.cli import main; main()'"
    for name, program in (("python", sys.executable), ("distill-jax", entry)):
        (programs / name).write_text(f'#!/bin/sh\nexec {program} "$@"\n')
        (programs / name).chmod(0o755)
    (shop / "experiments").symlink_to(ROOT / "experiments")
    env = {**os.environ, "PYTHONPATH": str(ROOT), "XLA_FLAGS": HASTE}
    done = subprocess.run(
        ["bash", "-e", "-c", BLOCK], env=env, capture_output=True, text=True, timeout=1200
    )
    assert done.returncode == 0, done.stderr
    assert "best of 2" in done.stderr
    check("lists.csv")
