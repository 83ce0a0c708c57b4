"""A table cut into parts: every run is somebody's, and together they are the table."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import jax
import pytest
from digit_tables import Runner, digit_sweep
from hypothesis import given
from hypothesis import strategies as st

from distill_jax.cli.main import dispatch
from distill_jax.core.errors import UserError
from distill_jax.engine import parts as parts_module
from distill_jax.engine.engine import Engine
from distill_jax.engine.merge import merge_ledgers, results_of
from distill_jax.engine.options import RunOptions
from distill_jax.engine.parts import Part, ledgers_in, only_process
from distill_jax.engine.sweep import axis
from distill_jax.tables.build import table_of
from distill_jax.tables.ledger import Ledger
from distill_jax.tables.outputs import load_results, write_outputs
from distill_jax.tasks.classification.cells import (
    TEACHER,
)
from distill_jax.training.interrupt import Interrupted

SWEEP = digit_sweep(
    ["ce", "0.5*ce + 0.5*kl(T=2)"],
    axis("training.optimizer.learning_rate", [5e-3, 2e-3]),
    steps=8,
    seeds=(0, 1),
    layout="grid",
)
RUNS = 8
SCRIPT = Path(__file__).resolve().parents[2] / "experiments/compare_losses.py"


@pytest.mark.parametrize("text", ["1/1", "1/2", "2/2", "17/400"])
def test_a_part_is_read_and_written(text):
    part = Part.parse(text)
    assert str(part) == text and RunOptions(part=text).share == part
    assert part.whole == (text == "1/1")


@pytest.mark.parametrize(
    "text",
    [
        "1",
        "0/2",
        "3/2",
        "1/0",
        "-1/2",
        "1/2/3",
        " 1/2",
        "1/2\n",
        "01/2",
        "1 / 2",
        "1.0/2",
        "١/٢",
        "a/b",
        "1/99999999",
        "",
    ],
)
def test_anything_else_is_no_part(text):
    with pytest.raises(UserError, match="--part is I/N with 1 <= I <= N"):
        RunOptions(part=text)


@given(st.binary(min_size=8, max_size=8), st.integers(1, 50))
def test_every_hash_is_in_just_one_part(digest, count):
    holders = [n for n in range(1, count + 1) if Part(n, count).holds(digest.hex())]
    assert len(holders) == 1


def test_parts_are_about_even():
    from distill_jax.core.digests import digest

    hashes = [digest(number) for number in range(4000)]
    sizes = [sum(map(Part(n, 4).holds, hashes)) for n in range(1, 5)]
    assert sum(sizes) == 4000 and min(sizes) > 900


def test_ledgers_of_a_folder_in_order(tmp_path):
    assert Part().ledger == "ledger.jsonl" and Part(2, 10).ledger == "ledger-2-of-10.jsonl"
    names = [Part(n, 10).ledger for n in (10, 2, 1)] + [Part(1, 2).ledger, "ledger.jsonl"]
    for name in [*names, "ledger-x-of-2.jsonl", "ledger-1-of-2.jsonl.bak", "other.jsonl"]:
        (tmp_path / name).touch()
    assert [path.name for path in ledgers_in(tmp_path)] == [
        "ledger.jsonl",
        "ledger-1-of-2.jsonl",
        "ledger-1-of-10.jsonl",
        "ledger-2-of-10.jsonl",
        "ledger-10-of-10.jsonl",
    ]
    assert ledgers_in(tmp_path / "nowhere") == []


class Parts(Runner):
    """(folder, part, strategy) -> what was said."""

    def __call__(self, folder, part="1/1", strategy="sequential", make=Engine):
        super().__call__(SWEEP, folder, strategy, make=make, part=part)
        return self.said


@pytest.fixture
def run(home, tmp_path, monkeypatch):
    """See ``Parts``; in an empty folder."""
    monkeypatch.setenv("DISTILL_JAX_HOME", str(home))
    return Parts(tmp_path, monkeypatch)


@pytest.fixture(scope="module")
def whole(home, tmp_path_factory):
    """The folder of the table that was trained as one."""
    root = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DISTILL_JAX_HOME", str(home))
        Parts(root, patch)("out")
    write_outputs(table_of(*load_results(root / "out")), root / "out")
    return root / "out"


def rows_of(folder, part=None):
    return Ledger(folder / (part or Part()).ledger).history()


def results(folder):
    return {row.hash: results_of(row) for row in rows_of(folder)}


def test_parts_in_one_folder_give_the_very_same_table(run, whole, tmp_path):
    folder, specs = tmp_path / "parts", set()
    for number in (1, 2, 3):
        said = run("parts", f"{number}/3")
        assert f"runs of part {number}/3 are finished already" in said
        assert run.rows == rows_of(folder, Part(number, 3))
        assert all(Part(number, 3).holds(row.hash) for row in run.rows)
        specs.add((folder / "table.json").read_bytes())
    assert specs == {(whole / "table.json").read_bytes()}
    merged = merge_ledgers([folder], folder)
    assert (merged.added, merged.known, merged.notes) == (RUNS + 1, 0, ())  # nothing twice
    assert results(folder) == results(whole)
    timeless = [
        path
        for path in write_outputs(table_of(*load_results(folder)), folder)
        if path.suffix != ".html" and path.stem != "costs"  # both show what was clocked
    ]
    assert len(timeless) > 5
    for path in timeless:
        assert path.read_bytes() == (whole / path.name).read_bytes(), path.name
    assert f"{RUNS} of {RUNS} runs are finished already" in run("parts")


def test_parts_in_folders_of_their_own(run, whole, tmp_path):
    for number in (1, 2):
        run(f"machine-{number}", f"{number}/2")
    merge_ledgers([tmp_path / "machine-1", tmp_path / "machine-2"], tmp_path / "all")
    assert results(tmp_path / "all") == results(whole)
    spec = (whole / "table.json").read_bytes()
    assert (tmp_path / "all/table.json").read_bytes() == spec
    assert f"{RUNS} of {RUNS} runs are finished already" in run("all")


def test_populations_are_made_of_the_parts_own_cells(run, tmp_path):
    crews = []

    class Watched(Engine):
        def train_population(self, works, params, **keywords):
            crews.append([work.identity.hash for work in works])
            return super().train_population(works, params, **keywords)

    for number in (1, 2):
        crews.clear()
        run("parts", f"{number}/2", "vmap", make=Watched)
        trained = {hash for crew in crews for hash in crew}
        own = {place.hash for place in run.spec.places if Part(number, 2).holds(place.hash)}
        assert trained == own and own
    folder = tmp_path / "parts"
    assert merge_ledgers([folder], folder).added == RUNS + 1


def test_a_stopped_part_goes_on_beside_another(run, tmp_path):
    """Part 1 stops in a population; part 2 leaves that alone; part 1 comes out the same."""
    undisturbed = "undisturbed"
    for number in (1, 2):
        run(undisturbed, f"{number}/2", "vmap")

    class Impatient(Engine):
        def train_population(self, works, params, **keywords):
            self.stop.requested = True
            return super().train_population(works, params, **keywords)

    with pytest.raises(Interrupted):
        run("disturbed", "1/2", "vmap", make=Impatient)
    crews = list((tmp_path / "disturbed/runs/populations-1-of-2").glob("*/crew.json"))
    begun = {hash for crew in crews for hash in json.loads(crew.read_text())["hashes"]}
    assert begun and all(map(Part(1, 2).holds, begun))
    run("disturbed", "2/2", "vmap")
    assert all(crew.exists() for crew in crews)
    run("disturbed", "1/2", "vmap")
    for folder in (undisturbed, "disturbed"):
        merge_ledgers([tmp_path / folder], tmp_path / folder)
    assert results(tmp_path / "disturbed") == results(tmp_path / undisturbed)


def test_cut_anew_nothing_is_trained_again(run, tmp_path):
    run("out", "1/2")
    first = len(run.rows)
    for number in (1, 2, 3):
        run("out", f"{number}/3")
    counts = [len(rows_of(tmp_path / "out", Part(number, 3))) for number in (1, 2, 3)]
    assert first + sum(counts) == RUNS + 1 and first
    with pytest.raises(UserError, match=rf"{RUNS + 1} finished runs are in ledgers of parts"):
        run("out")
    assert merge_ledgers([tmp_path / "out"], tmp_path / "out").added == RUNS + 1
    run("out")
    assert len(run.rows) == RUNS + 1


def test_a_teacher_that_two_parts_fine_tune_at_once_is_one_teacher(run, tmp_path, monkeypatch):
    """While part 1 is fine-tuning, part 2 begins and ends: part 1 takes what is there by then."""
    monkeypatch.setenv("DISTILL_JAX_HOME", str(tmp_path / "home"))
    folders = []

    class Overtaken(Engine):
        def train(self, work, params, **keywords):
            folders.append(keywords.get("folder") or self.run_folder(work.identity.hash))
            result = super().train(work, params, **keywords)
            if work.identity.config["student"] == TEACHER and self.options.part == "1/2":
                run("out", "2/2", make=Overtaken)
                off = jax.tree.map(lambda x: x + 1, result.params)  # another device, say
                return dataclasses.replace(result, params=off)
            return result

    run("out", "1/2", make=Overtaken)
    teachers = [folder for folder in folders if "-of-2" in folder.name]
    assert len(set(teachers)) == 2  # no two processes write one checkpoint
    assert len(list((tmp_path / "home/teachers").iterdir())) == 1  # no scratch is left
    merge_ledgers([tmp_path / "out"], tmp_path / "out")
    rows = rows_of(tmp_path / "out")
    assert len(rows) == RUNS + 1 and len({row.fingerprints["teacher"] for row in rows}) == 1


def test_one_process_a_part(tmp_path, monkeypatch):
    monkeypatch.setattr(parts_module, "LOCK_SECONDS", 0.1)
    with only_process(tmp_path, Part(1, 2)):
        with only_process(tmp_path, Part(2, 2)), only_process(tmp_path, Part()):
            pass
        told = rf"at work at part 1/2 in {tmp_path} \(process {os.getpid()} on "
        with pytest.raises(UserError, match=told), only_process(tmp_path, Part(1, 2)):
            pass
    with only_process(tmp_path, Part(1, 2)):
        pass


HOLDER = """
import sys, time
from pathlib import Path
from distill_jax.engine.parts import Part, only_process
with only_process(Path(sys.argv[1]), Part()):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_killed_process_lets_go(tmp_path):
    """And who comes while it is dying waits for its end."""
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout.readline() == "held\n"
    killer = subprocess.Popen(["sh", "-c", f"sleep 0.5; kill -9 {holder.pid}"])
    with only_process(tmp_path, Part()):
        assert holder.wait(timeout=5) == -signal.SIGKILL
    killer.wait()


@pytest.mark.long
def test_two_processes_at_once_from_the_teacher_on(
    toy_teacher, toy_reviews, one_device, tmp_path, capsys
):
    """Slow: three processes that import and compile. Both fine-tune the teacher they share."""
    flags = (
        f"--data files:{toy_reviews} --teacher {toy_teacher} --students 1x8x2 --seeds 0 1 2 "
        "--objectives ce kl --label-fraction 0.5 --batch-size 16 --teacher-batch-size 16 "
        "--teacher-epochs 1 --teacher-learning-rate 1e-4 --max-shapes 1 --max-length 16 "
        "--track none --evaluations 2 --steps 20"
    ).split()

    def start(folder, home, *more):
        command = [sys.executable, str(SCRIPT), *flags, "--output-dir", str(tmp_path / folder)]
        environment = {
            **one_device,
            "DISTILL_JAX_HOME": str(tmp_path / home),
        }
        return subprocess.Popen(
            [*command, *more],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def end(process):
        said, _ = process.communicate(timeout=600)
        assert process.returncode == 0, said
        return said

    pair = [start("out", "home", "--part", f"{number}/2") for number in (1, 2)]
    for number, process in enumerate(pair, 1):
        assert end(process).endswith(f"ledger-{number}-of-2.jsonl\n")
    out = str(tmp_path / "out")
    with pytest.raises(UserError, match=r"has ledgers of parts only; merge them first"):
        dispatch(["table", out])
    dispatch(["ledger", "merge", out, "--into", out])
    assert "9 rows added, 0 were there already" in capsys.readouterr().out
    dispatch(["table", out])
    assert "out/report.html" in capsys.readouterr().out
    end(start("whole", "home"))
    assert results(tmp_path / "out") == results(tmp_path / "whole")
