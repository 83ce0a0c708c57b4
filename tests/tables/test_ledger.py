"""The ledger: what is written comes back, whatever happens in between."""

import dataclasses
import fcntl
import json
import math
import os
import subprocess
import sys
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill_jax.core.errors import UserError
from distill_jax.tables import ledger as ledger_module
from distill_jax.tables.evidence import pack_correct, unpack_correct
from distill_jax.tables.ledger import SCHEMA, Ledger, LedgerRow

pytestmark = pytest.mark.filterwarnings("error")


def make_row(hash="aa", **changes):
    fields = {
        "hash": hash,
        "experiment": "compare",
        "row": "kl(T=4)",
        "group": "tiny",
        "seed": 1,
        "config": {"labels": None, "names": ["差评", "好评"]},
        "metrics": {"test/accuracy": 0.735, "parameters": 4_386_178},
        "selected_step": 300,
        "fingerprints": {"teacher": "0123"},
        "code": {"version": "0.1.0", "commit": "abc", "dirty": False},
        "packages": {"jax": "0.10.2"},
        "device": "cpu: 2 cores",
        "seconds": {"train": 12.5},
        "examples_per_second": 1000.0,
        "finished_at": "2026-01-02T03:04:05+00:00",
    }
    return LedgerRow(**{**fields, **changes})


def line_with(**changes):
    """A row's line with fields replaced or added, whether they fit the schema or not."""
    return json.dumps({**json.loads(make_row().to_json()), **changes}).encode()


WRITER = """
import dataclasses, json, sys
from distill_jax.tables.ledger import Ledger, LedgerRow

path, name, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
row = LedgerRow.from_dict(json.loads(sys.stdin.readline()))
for index in range(count):
    Ledger(path).append(dataclasses.replace(row, hash=f"{name}-{index}"))
"""


def start_writer(path, name, count):
    """Another process that appends ``count`` rows of several kilobytes without a pause."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), name, str(count)], stdin=subprocess.PIPE
    )
    process.stdin.write(make_row(config={"pad": "x" * 5000}).to_json().encode() + b"\n")
    process.stdin.close()
    return process


@pytest.fixture
def ledger(tmp_path):
    return Ledger(tmp_path / "deep" / "ledger.jsonl")


def test_rows_come_back_as_written(ledger):
    assert ledger.rows() == [] and ledger.finished_hashes() == set()
    first, second = make_row("aa"), make_row("bb", seed=2, selected_step=None)
    ledger.append(first)
    ledger.append(dataclasses.asdict(second))
    assert ledger.rows() == [first, second]
    assert ledger.finished_hashes() == {"aa", "bb"}
    assert "好评" in ledger.path.read_text(encoding="utf-8")


@given(
    st.dictionaries(st.text(max_size=5), st.floats() | st.integers(-9, 9), max_size=4),
    st.dictionaries(st.text(), st.none() | st.booleans() | st.text() | st.integers(), max_size=4),
)
def test_every_number_and_text_survives_one_line_of_json(metrics, config):
    row = make_row(metrics=metrics, config=config, seconds={"train": math.nan})
    line = row.to_json()
    assert "\n" not in line and "NaN" not in line and "Infinity" not in line
    back = LedgerRow.from_dict(json.loads(line))
    assert repr(sorted(back.metrics.items())) == repr(sorted(metrics.items()))
    assert back.config == config
    assert math.isnan(back.seconds["train"])


def test_nan_is_null_in_numbers_and_null_stays_null_in_the_config(ledger):
    ledger.append(make_row(metrics={"a": math.nan, "b": -math.inf}, examples_per_second=None))
    raw = json.loads(ledger.path.read_text())
    assert raw["metrics"] == {"a": None, "b": "-inf"} and raw["schema"] == SCHEMA
    row = ledger.rows()[0]
    assert math.isnan(row.metrics["a"]) and row.metrics["b"] == -math.inf
    assert row.config["labels"] is None and row.examples_per_second is None


def test_numbers_by_key():
    row = make_row()
    assert row.number("test/accuracy") == 0.735 and row.number("seconds/train") == 12.5
    assert row.number("examples_per_second") == 1000
    assert row.number("test/none") is None and row.number("seconds/none") is None


def test_a_row_without_the_optional_fields_reads_and_writes_as_before(ledger):
    fields = json.loads(make_row().to_json())
    assert not {"test_correct", "history"} & set(fields)
    row = LedgerRow.from_dict(fields)
    assert row.test_correct is None and row.history == []


def test_correctness_and_history_come_back(ledger):
    packed = pack_correct([True, False, True])
    history = [{"step": 10, "accuracy": 0.5}, {"step": 20, "accuracy": math.nan}]
    ledger.append(make_row(test_correct=packed, history=history))
    row = ledger.rows()[0]
    assert unpack_correct(row.test_correct).tolist() == [True, False, True]
    assert row.history[0] == history[0] and math.isnan(row.history[1]["accuracy"])


@given(st.lists(st.booleans(), max_size=40))
def test_correctness_survives_packing(correct):
    packed = pack_correct(np.array(correct, bool))
    assert unpack_correct(packed).tolist() == correct
    assert packed.startswith(f"{len(correct)}:") and len(packed) <= 4 + 4 * (len(correct) // 24 + 1)


def test_damaged_correctness_is_refused():
    for text in ["", "3", "x:AA==", "9:gA==", "3:gAAA", "3:!", "-1:", "3:/w==", "3:gA=", "é:gA=="]:
        with pytest.raises(UserError, match="damaged per-example correctness"):
            unpack_correct(text)
    for wrong in ([[True]], [2, 0], [0.5]):
        with pytest.raises(ValueError, match="vector of booleans"):
            pack_correct(wrong)


def test_settings_are_flat_and_sorted():
    row = make_row(config={"b": {"y": [1], "x": {"z": None}}, "a": 1, "empty": {}})
    assert list(row.settings().items()) == [("a", 1), ("b.x.z", None), ("b.y", [1])]


def test_of_rows_with_one_hash_the_last_wins(ledger):
    for row in (make_row("aa", seed=1), make_row("bb"), make_row("aa", seed=9)):
        ledger.append(row)
    assert [(row.hash, row.seed) for row in ledger.rows()] == [("bb", 1), ("aa", 9)]
    assert len(ledger.history()) == 3


def test_a_crash_at_any_byte_costs_at_most_the_row_being_written(ledger):
    ledger.append(make_row("aa"))
    whole = ledger.path.read_bytes()
    line = make_row("bb", config={"name": "好"}).to_json().encode() + b"\n"
    for cut in [*range(1, len(line), 37), len(line) - 2]:
        ledger.path.write_bytes(whole + line[:cut])
        with pytest.warns(UserWarning, match=r"ledger.jsonl:2: the last line is cut short"):
            assert [row.hash for row in ledger.rows()] == ["aa"]
        ledger.append(make_row("cc"))
        assert [row.hash for row in ledger.rows()] == ["aa", "cc"]


def test_a_whole_last_row_without_its_newline_is_kept(ledger):
    ledger.append(make_row("aa"))
    ledger.path.write_bytes(ledger.path.read_bytes().rstrip(b"\n"))
    assert [row.hash for row in ledger.rows()] == ["aa"]
    ledger.append(make_row("bb"))
    assert [row.hash for row in ledger.rows()] == ["aa", "bb"]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"hash": "b', "damaged"),
        (b"\xff\xfe", "damaged"),
        (b"[1, 2]", "not a JSON object"),
        (b'{"hash": "bb"}', "missing fields: code"),
        (line_with(sede=1), "unknown fields: sede"),
        (line_with(schema=99), "schema 99"),
        (line_with(metrics=[1]), "metrics is not an object"),
        (line_with(metrics={"a": "high"}), "high"),
        (line_with(hash=7), "hash is not a string"),
        (line_with(seed="1"), "seed is not an integer"),
        (line_with(test_correct=7), "test_correct is not a string or null"),
        (line_with(history={}), "history is not a list"),
        (line_with(history=[1]), "not iterable"),
    ],
)
def test_any_other_damage_names_file_and_line(ledger, line, reason):
    ledger.append(make_row("aa"))
    ledger.path.write_bytes(ledger.path.read_bytes() + line + b"\n")
    ledger.append(make_row("cc"))
    with pytest.raises(UserError, match=r"ledger.jsonl:2: damaged ledger row") as caught:
        ledger.rows()
    assert reason in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "row",
    [
        {"hash": "aa"},
        {**dataclasses.asdict(make_row()), "extra": 1},
        make_row(config={"x": math.nan}),
        make_row(config={"x": object()}),
        make_row(metrics={"x": "high"}),
    ],
)
def test_a_row_that_does_not_fit_is_refused_before_anything_is_written(ledger, row):
    with pytest.raises(UserError, match="does not fit the ledger"):
        ledger.append(row)
    assert not ledger.path.exists()


def test_a_full_disk_leaves_the_ledger_as_it_was(ledger, monkeypatch):
    ledger.append(make_row("aa"))
    before = ledger.path.read_bytes()
    monkeypatch.setattr(
        ledger_module.os, "write", lambda handle, data, write=os.write: write(handle, data[:50])
    )
    with pytest.raises(UserError, match=r"cannot write the ledger .*: No space left"):
        ledger.append(make_row("bb"))
    assert ledger.path.read_bytes() == before


def test_a_place_that_cannot_be_written_is_one_clear_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write the ledger"):
        Ledger(tmp_path / "file" / "ledger.jsonl").append(make_row())
    with pytest.raises(UserError, match="cannot read the ledger"):
        Ledger(tmp_path).rows()


def test_processes_and_threads_share_a_ledger(ledger):
    def append_many(name):
        for index in range(15):
            ledger.append(make_row(f"{name}-{index}"))

    processes = [start_writer(ledger.path, f"p{n}", 15) for n in range(2)]
    threads = [threading.Thread(target=append_many, args=(f"t{n}",)) for n in range(2)]
    for thread in threads:
        thread.start()
    while any(process.poll() is None for process in processes):
        ledger.rows()  # a reader beside the writers never sees half a row: a warning is an error
    for thread in threads:
        thread.join()
    names = {f"{kind}{n}-{i}" for kind in "pt" for n in range(2) for i in range(15)}
    assert ledger.finished_hashes() == names and len(ledger.history()) == 60


def test_an_append_waits_for_the_lock(ledger):
    ledger.append(make_row("aa"))
    writer = threading.Thread(target=ledger.append, args=(make_row("bb"),))
    with open(ledger.path, "rb") as other:
        fcntl.flock(other, fcntl.LOCK_SH)  # somebody reads
        writer.start()
        writer.join(timeout=0.2)
        assert writer.is_alive() and ledger.finished_hashes() == {"aa"}
    writer.join(timeout=10)
    assert ledger.finished_hashes() == {"aa", "bb"}


def test_a_killed_writer_leaves_a_readable_ledger(ledger):
    process = start_writer(ledger.path, "p", 1_000_000)
    try:
        while len(ledger.history()) < 20:
            assert process.poll() is None
    finally:
        process.kill()
        process.wait()
    rows = [row.hash for row in ledger.rows()]
    assert rows == [f"p-{index}" for index in range(len(rows))]
    ledger.append(make_row("after"))
    assert ledger.rows()[-1].hash == "after"


def test_listing_a_ledger_needs_no_jax():
    code = "import sys, distill_jax.tables.ledger as l; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
