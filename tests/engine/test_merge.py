"""Ledgers joined: one row a hash, all or nothing, and never two results for one run in silence."""

import dataclasses
import json
import math
import os
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from samples import sample_run, sample_runs, sample_spec

from distill_jax.core.errors import UserError
from distill_jax.engine.merge import check_merged, difference, merge_ledgers, rows_in
from distill_jax.tables import ledger as ledger_module
from distill_jax.tables.build import table_of
from distill_jax.tables.ledger import Ledger
from distill_jax.tables.outputs import load_results, write_outputs
from distill_jax.tables.spec import TableSpec

RUNS = sample_runs(seeds=3)
METRICS = {"test/accuracy": 0.6, "validation/accuracy": 0.6}


def write(path, rows, spec=None):
    for row in rows:
        Ledger(path).append(row)
    if spec is not None:
        (path.parent / "table.json").write_text(spec.to_json())
    return path


def hashes(folder):
    return [row.hash for row in Ledger(folder / "ledger.jsonl").rows()]


def files_of(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_parts_of_a_table_in_one_folder_become_the_table(tmp_path):
    spec = sample_spec(RUNS, layout="grid")
    whole = write(tmp_path / "whole/ledger.jsonl", RUNS, spec).parent
    shuffled = random.Random(0).sample(RUNS, len(RUNS))
    folder = tmp_path / "parts"
    for number in range(3):
        write(folder / f"ledger-{number + 1}-of-3.jsonl", shuffled[number::3], spec)
    merged = merge_ledgers([folder], folder)
    assert (merged.added, merged.known, merged.notes) == (18, 0, ())
    assert set(hashes(folder)) == {row.hash for row in RUNS}
    paths = write_outputs(table_of(*load_results(whole)), whole)
    assert len(paths) > 5
    for path in write_outputs(table_of(*load_results(folder)), folder):
        assert path.read_bytes() == (whole / path.name).read_bytes(), path.name


def test_ledgers_of_several_machines(tmp_path):
    spec = sample_spec(RUNS)
    one = write(tmp_path / "a/ledger-1-of-2.jsonl", RUNS[:10], spec)
    two = write(tmp_path / "b/ledger-2-of-2.jsonl", RUNS[8:], spec)
    into = tmp_path / "all"
    merged = merge_ledgers([one, two.parent], into)
    assert (merged.added, merged.known) == (18, 2)
    assert hashes(into) == [row.hash for row in RUNS]
    assert TableSpec.from_json((into / "table.json").read_text()) == spec


@given(st.lists(st.integers(0, 7), max_size=12), st.lists(st.integers(0, 7), max_size=12))
def test_merging_again_or_in_the_other_order_changes_nothing(tmp_path_factory, first, second):
    folder = tmp_path_factory.mktemp("merge")
    for name, places in (("a", first), ("b", second)):
        (folder / name).mkdir()
        (folder / name / "ledger.jsonl").touch()
        write(folder / name / "ledger.jsonl", [RUNS[place] for place in places])
    sources = [folder / "a", folder / "b"]
    merge_ledgers(sources, folder / "ab")
    merge_ledgers(sources[::-1], folder / "ba")
    assert set(hashes(folder / "ab")) == set(hashes(folder / "ba"))
    assert set(hashes(folder / "ab")) == {RUNS[place].hash for place in (*first, *second)}
    before = files_of(folder / "ab")
    again = merge_ledgers([*sources, folder / "ab"], folder / "ab")
    assert again.added == 0 and files_of(folder / "ab") == before


def test_rows_that_are_there_stay_and_new_ones_follow(tmp_path):
    own = write(tmp_path / "own/ledger.jsonl", RUNS[3:5])
    before = own.read_bytes()
    write(tmp_path / "other/ledger.jsonl", RUNS[:4])
    merge_ledgers([tmp_path / "other"], own.parent)
    assert own.read_bytes().startswith(before)
    assert [row.hash for row in Ledger(own).history()] == [RUNS[n].hash for n in (3, 4, 0, 1, 2)]


def twin(row, *, finished_at="2026-01-02T03:04:05+00:00", **metrics):
    return dataclasses.replace(row, metrics={**row.metrics, **metrics}, finished_at=finished_at)


def test_times_may_differ_and_the_first_is_kept(tmp_path):
    row = sample_run("kl", "tiny", 0, hash="aa")
    row = twin(row, **{"latency/p50_ms": 1.0, "test/nan": math.nan})
    later = dataclasses.replace(
        twin(row, finished_at="2027-01-01T00:00:00+00:00", **{"latency/p50_ms": 9.0}),
        seconds={"total": 1.0},
        device="gpu",
        examples_per_second=1.0,
    )
    write(tmp_path / "a/ledger.jsonl", [row])
    write(tmp_path / "b/ledger.jsonl", [later])
    merge_ledgers([tmp_path / "a", tmp_path / "b"], tmp_path / "all", prefer="newest")
    (kept,) = Ledger(tmp_path / "all/ledger.jsonl").history()
    assert kept.to_json() == row.to_json()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"metrics": {**METRICS, "test/accuracy": 0.7}}, r"test/accuracy is 0\.6 and 0\.7"),
        ({"metrics": {**METRICS, "test/accuracy": math.nan}}, r"test/accuracy is 0\.6 and nan"),
        ({"metrics": {}}, r"test/accuracy is 0\.6 and missing"),
        ({"metrics": {**METRICS, "test/nll": 1.5}}, "test/nll is missing and 1.5"),
        ({"selected_step": 50}, "selected_step is 75 and 50"),
        ({"test_correct": "1:gA=="}, "test_correct is missing and 1:gA=="),
        ({"history": [{"step": 25, "accuracy": 0.1}]}, "history is "),
    ],
)
def test_two_results_of_one_run_are_refused_and_nothing_is_written(tmp_path, changes, told):
    row = sample_run("kl", "tiny", 0, hash="aa")
    other = dataclasses.replace(row, **changes)
    write(tmp_path / "a/ledger.jsonl", [RUNS[0], row])
    write(tmp_path / "b/ledger.jsonl", [RUNS[1], other])
    for sources, into in ((["a", "b"], "all"), (["b"], "a"), (["a"], "b")):
        before = files_of(tmp_path)
        with pytest.raises(UserError, match=r"run aa \(tiny, kl, seed 0\) came out diff") as error:
            merge_ledgers([tmp_path / source for source in sources], tmp_path / into)
        assert files_of(tmp_path) == before
        assert not (tmp_path / "all").exists()
        assert "\n" not in str(error.value)
        if into == "all":
            assert re.search(told, str(error.value)), error.value


@pytest.mark.parametrize("own_is_newer", [True, False])
@pytest.mark.parametrize("prefer", ["newest", "first"])
def test_which_of_two_results_is_kept(tmp_path, prefer, own_is_newer):
    old = sample_run("kl", "tiny", 0, 0.5, hash="aa")
    new = sample_run("kl", "tiny", 0, 0.6, hash="aa", finished_at="2026-05-01T00:00:00+00:00")
    own, other = (new, old) if own_is_newer else (old, new)
    write(tmp_path / "own/ledger.jsonl", [own])
    write(tmp_path / "other/ledger.jsonl", [other])
    merge_ledgers([tmp_path / "other"], tmp_path / "own", prefer=prefer)
    kept = Ledger(tmp_path / "own/ledger.jsonl")
    expected = own if prefer == "first" else new
    assert kept.rows() == [expected]
    assert kept.history()[0] == own  # append-only: what was there is there
    before = kept.path.read_bytes()
    merge_ledgers([tmp_path / "other"], tmp_path / "own", prefer=prefer)
    assert kept.path.read_bytes() == before


def test_damage_is_told_with_file_and_line_for_every_ledger(tmp_path):
    one = write(tmp_path / "a/ledger.jsonl", RUNS[:2])
    two = write(tmp_path / "b/ledger.jsonl", RUNS[2:4])
    write(tmp_path / "c/ledger.jsonl", RUNS[4:5])
    one.write_bytes(b"{\n" + one.read_bytes() + b"[]\n")
    lines = two.read_bytes().splitlines(keepends=True)
    two.write_bytes(lines[0] + lines[1].replace(b'"seed": 0', b'"seed": "zero"') + b"x\n")
    with pytest.raises(UserError) as error:
        merge_ledgers([tmp_path / name for name in "abc"], tmp_path / "all")
    for told in (
        "a/ledger.jsonl:1: damaged",
        "Also damaged: line 4.",
        "b/ledger.jsonl:2: damaged ledger row (field seed is not an integer)",
        "Also damaged: line 3.",
    ):
        assert told in str(error.value)
    assert not (tmp_path / "all").exists()


def test_a_line_cut_by_a_crash_is_left_out_and_told(tmp_path):
    path = write(tmp_path / "a/ledger.jsonl", RUNS[:2])
    path.write_bytes(path.read_bytes()[:-40])
    merged = merge_ledgers([path], tmp_path / "all")
    assert hashes(tmp_path / "all") == [RUNS[0].hash]
    (note,) = merged.notes
    assert "a/ledger.jsonl:2: the last line is cut short" in note
    own = write(tmp_path / "own/ledger.jsonl", RUNS[2:4])
    own.write_bytes(own.read_bytes()[:-40])  # so is the one that is merged into
    with pytest.warns(UserWarning, match="cut short"):
        merge_ledgers([tmp_path / "all"], tmp_path / "own")
    assert hashes(tmp_path / "own") == [RUNS[2].hash, RUNS[0].hash]


def test_a_description_is_kept_where_all_agree(tmp_path):
    spec, other = sample_spec(RUNS[:6]), sample_spec(RUNS[6:12])
    one = write(tmp_path / "a/ledger.jsonl", RUNS[:6], spec)
    two = write(tmp_path / "b/ledger.jsonl", RUNS[6:12], other)
    bare = write(tmp_path / "c/ledger.jsonl", RUNS[12:])
    merged = merge_ledgers([one, two, bare], tmp_path / "all")
    assert not (tmp_path / "all/table.json").exists()
    (note,) = merged.notes
    assert "differ" in note and "a/table.json" in note and "b/table.json" in note
    merged = merge_ledgers([two, bare], one.parent)
    (note,) = merged.notes
    assert "a/table.json stays" in note and "b/table.json" in note
    assert TableSpec.from_json((one.parent / "table.json").read_text()) == spec
    assert merge_ledgers([one, bare], tmp_path / "most").notes == ()
    assert TableSpec.from_json((tmp_path / "most/table.json").read_text()) == spec


def test_one_place_of_a_table_that_is_two_runs_is_refused(tmp_path):
    """Parts whose teachers are not one: their tables would be mixed."""
    spec = sample_spec(RUNS)
    strange = dataclasses.replace(
        spec, places=(*spec.places[:-1], dataclasses.replace(spec.places[-1], hash="another"))
    )
    one = write(tmp_path / "a/ledger.jsonl", RUNS[:6], spec)
    two = write(tmp_path / "b/ledger.jsonl", RUNS[6:], strange)
    with pytest.raises(UserError, match=r"seed 2\) is run .* in .*a/table.json and run another in"):
        merge_ledgers([one, two], tmp_path / "all")
    assert not (tmp_path / "all").exists()
    two.with_name("table.json").write_text("{")
    with pytest.raises(UserError, match=r"b/table.json: this is not the description of a table"):
        merge_ledgers([one, two], tmp_path / "all")


def test_mistakes(tmp_path):
    ledger = write(tmp_path / "a/ledger.jsonl", RUNS[:1])
    (tmp_path / "empty").mkdir()
    for wrong in (tmp_path / "empty", tmp_path / "nowhere", tmp_path / "nowhere.jsonl"):
        with pytest.raises(UserError, match=f"no ledger at {wrong}"):
            merge_ledgers([ledger, wrong], tmp_path / "all")
    with pytest.raises(UserError, match="is a file; a folder is wanted"):
        merge_ledgers([ledger], ledger)


def test_a_merge_that_cannot_be_written_changes_nothing(tmp_path, monkeypatch):
    own = write(tmp_path / "own/ledger.jsonl", RUNS[:2])
    other = write(tmp_path / "other/ledger.jsonl", RUNS[2:])
    before = own.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(UserError, match=r"cannot write .*No space left"):
            merge_ledgers([other], own.parent)
    assert own.read_bytes() == before
    assert sorted(path.name for path in own.parent.iterdir()) == ["ledger.jsonl"]


APPENDER = """
import dataclasses, json, sys
from distill_jax.tables.ledger import Ledger, LedgerRow
row = LedgerRow.from_dict(json.loads(sys.stdin.readline()))
for index in range(int(sys.argv[3])):
    Ledger(sys.argv[1]).append(dataclasses.replace(row, hash=f"{sys.argv[2]}-{index}"))
"""


def test_processes_append_while_a_merge_replaces_the_file(tmp_path):
    """A writer that waited for the lock of a file must not write into it once it is replaced."""
    own = write(tmp_path / "own/ledger.jsonl", RUNS[:1])
    writers = []
    for name in ("a", "b"):
        command = [sys.executable, "-c", APPENDER, str(own), name, "60"]
        writers.append(subprocess.Popen(command, stdin=subprocess.PIPE))
        writers[-1].stdin.write(RUNS[0].to_json().encode() + b"\n")
        writers[-1].stdin.close()
    merges = 0
    while any(process.poll() is None for process in writers):
        row = dataclasses.replace(RUNS[0], hash=f"m-{merges}")
        source = write(tmp_path / f"source-{merges}/ledger.jsonl", [row])
        merge_ledgers([source], own.parent)
        merges += 1
    assert [process.returncode for process in writers] == [0, 0] and merges > 10
    expected = {f"{name}-{n}" for name in ("a", "b") for n in range(60)}
    expected |= {f"m-{n}" for n in range(merges)} | {RUNS[0].hash}
    found = [row.hash for row in Ledger(own).history()]
    assert len(found) == len(expected) and set(found) == expected


def test_an_append_follows_a_ledger_that_was_replaced(tmp_path, monkeypatch):
    """The race of the test above, forced: the file is replaced between open and lock."""
    own = write(tmp_path / "ledger.jsonl", RUNS[:1])
    lock, replaced = ledger_module.fcntl.flock, []

    def slow(handle, kind):
        if not replaced:
            replaced.append(True)
            data = own.read_bytes() + RUNS[1].to_json().encode() + b"\n"
            own.with_name("new").write_bytes(data)
            os.replace(own.with_name("new"), own)
        lock(handle, kind)

    monkeypatch.setattr(ledger_module.fcntl, "flock", slow)
    Ledger(own).append(RUNS[2])
    assert [row.hash for row in Ledger(own).rows()] == [row.hash for row in RUNS[:3]]


def test_unmerged_parts_are_told(tmp_path):
    write(tmp_path / "ledger-1-of-2.jsonl", RUNS[:3])
    write(tmp_path / "ledger-2-of-2.jsonl", RUNS[3:5])
    assert rows_in(tmp_path).keys() == {row.hash for row in RUNS[:5]}
    with pytest.raises(UserError, match=r"5 finished runs are in ledgers of parts.*ledger merge"):
        check_merged(tmp_path)
    merge_ledgers([tmp_path], tmp_path)
    check_merged(tmp_path)
    check_merged(tmp_path / "nowhere")


def test_differences_between_results():
    assert (
        difference({"a": math.nan, "b": [{"c": math.nan}]}, {"a": math.nan, "b": [{"c": math.nan}]})
        is None
    )
    assert difference({"a": 1.0}, {"a": 1}) is None
    assert difference({"a": 1.0}, {"a": 1.0, "b": 2}) == "b is missing and 2"
    assert len(difference({"a": [1] * 999}, {"a": []})) < 100


def test_merging_needs_no_jax():
    code = "import sys, distill_jax.engine.merge; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_the_committed_ledgers_merge(tmp_path):
    """As a person would. Some runs stand in two tables, trained in populations of two sizes."""
    results = Path(__file__).resolve().parents[2] / "experiments/results"
    folders = sorted(path.parent for path in results.glob("*/ledger.jsonl"))
    merged = merge_ledgers(folders, tmp_path, prefer="first")
    rows = Ledger(tmp_path / "ledger.jsonl").rows()
    assert merged.added == len(rows) == len({row.hash for row in rows}) > 100
    assert json.loads(rows[0].to_json())["hash"] == rows[0].hash
