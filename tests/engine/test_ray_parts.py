"""A table in parts on Ray: what dies is started again, and the table is the same."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from distill_jax.core.errors import UserError
from distill_jax.engine import ray_parts
from distill_jax.engine.merge import results_of
from distill_jax.engine.parts import Part
from distill_jax.engine.ray_parts import (
    PartDied,
    PartFailed,
    RayJob,
    Resources,
    run_part,
    run_parts,
)
from distill_jax.tables.ledger import Ledger

SCRIPT = Path(__file__).resolve().parents[2] / "experiments/compare_losses.py"


@pytest.fixture
def job(tmp_path):
    """(shell command) -> the job that runs it; there ``$2`` is the part, ``$4`` the folder."""

    def make(text, **environment):
        command = ("bash", "-c", text, "experiment")
        return RayJob(command, Part(1, 2), tmp_path / "out", tmp_path, environment)

    return make


def test_a_part_sends_back_the_ledgers_it_names(job, tmp_path):
    text = (
        'echo "$NPROC $PWD $1 $2"; cd "$4"; ledger=ledger-1-of-2.jsonl; echo old > $ledger; '
        "for t in a b; do mkdir $t; echo {} > $t/table.json; echo $t > $t/$ledger; "
        'echo "$4/$t/$ledger"; done; mkdir empty; echo "$4/empty/$ledger"'
    )
    made = job(text, NPROC="3")
    made.output_dir.mkdir()
    made.log.write_text(f"{made.output_dir}/ledger-1-of-2.jsonl\n")  # of an attempt before
    assert run_part(made) == {
        "a/ledger-1-of-2.jsonl": b"a\n",
        "a/table.json": b"{}\n",
        "b/ledger-1-of-2.jsonl": b"b\n",
        "b/table.json": b"{}\n",
    }
    assert f"3 {tmp_path} --part 1/2" in made.log.read_text()


@pytest.mark.parametrize("text", ["kill -9 $$", "kill -TERM $$", "exit 130", "exit 143"])
def test_a_process_that_died_may_be_started_again(job, text):
    with pytest.raises(PartDied):
        run_part(job(text))


def test_a_process_that_failed_may_not(job):
    with pytest.raises(PartFailed, match=r"exit code 2:\nerror: unknown loss"):
        run_part(job("echo error: unknown loss >&2; exit 2"))
    with pytest.raises(PartFailed, match="named no ledger"):
        run_part(job("echo hello"))
    command = RayJob(("/no/such/program",), *list(vars(job("")).values())[1:])
    with pytest.raises(PartFailed, match="cannot run /no/such/program: No such file"):
        run_part(command)


def test_a_share_of_a_machine():
    assert Resources(cpus=4).environment() == {"NPROC": "4"}
    assert Resources(cpus=0.5, gpus=0.5).environment() == {
        "NPROC": "1",
        "XLA_PYTHON_CLIENT_MEM_FRACTION": "0.450",
    }
    for wrong in ({"cpus": 0}, {"gpus": -1}, {"tpus": -1}):
        with pytest.raises(UserError, match="--cpus must be positive"):
            Resources(**wrong)


PARENT = """
import sys
from pathlib import Path
from distill_jax.engine.parts import Part
from distill_jax.engine.ray_parts import RayJob, run_part
text = "echo $$ > child; sleep 60"
folder = Path(sys.argv[1])
run_part(RayJob(("bash", "-c", text, "x"), Part(), folder, folder, {}))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux's")
def test_a_killed_worker_takes_its_process_along(tmp_path):
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path)])
    child = wait_for(lambda: (tmp_path / "child").is_file() and read(tmp_path / "child"))
    parent.kill()
    parent.wait()
    wait_for(lambda: not is_alive(int(child)))


def test_without_ray_it_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"pip install 'distill_jax\[ray\]'"):
        run_parts(["true"], 2, tmp_path, print)


class Stub:
    """As much of Ray as connecting takes; it fails a number of times."""

    def __init__(self, failures):
        self.failures, self.calls = failures, []

    def init(self, **keywords):
        self.calls.append(keywords["address"])
        if self.calls.count("shutdown") < self.failures:
            raise Exception("The current node timed out\nmore")

    def shutdown(self):
        self.calls.append("shutdown")


def test_a_ray_of_its_own_is_started_again_and_a_cluster_is_not(monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    ray_parts._connect(ray := Stub(2), None)
    assert ray.calls == [None, "shutdown", None, "shutdown", None]
    with pytest.raises(UserError, match=r"a Ray on this machine: The current node timed out$"):
        ray_parts._connect(Stub(3), None)
    with pytest.raises(UserError, match="cannot reach the Ray cluster at here"):
        ray_parts._connect(Stub(1), "here")
    monkeypatch.setenv("RAY_ADDRESS", "there")
    with pytest.raises(UserError, match="cannot reach the Ray cluster at there"):
        ray_parts._connect(Stub(1), None)


def read(path):
    return path.read_text().strip()


def is_alive(pid):
    try:
        return read(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_for(condition, process=None, seconds=600):
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if process is not None and process.poll() is not None:
            said, errors = process.communicate()
            if "cannot reach a Ray on this machine" in errors:
                pytest.skip(f"Ray itself does not start here: {errors}")
            raise AssertionError(said + errors)
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return value


@pytest.fixture
def start(toy_teacher, toy_reviews, one_device, tmp_path):
    """(folder, arguments before the command) -> a process that trains a table of four students."""
    flags = (
        f"--data files:{toy_reviews} --teacher {toy_teacher} --students 1x8x2 --seeds 0 1 2 3 "
        "--objectives ce kl --label-fraction 0.5 --batch-size 16 --teacher-batch-size 16 "
        "--teacher-epochs 1 --teacher-learning-rate 1e-4 --max-shapes 1 --max-length 16 "
        "--track none --evaluations 2 "
        "--steps 40 --checkpoint-seconds 1"
    ).split()

    started = []

    def go(folder, *before):
        output = ["--output-dir", str(tmp_path / folder)]
        command = [sys.executable, str(SCRIPT), *flags]
        if before:
            program = "from distill_jax.cli import main; main()"
            command = [sys.executable, "-c", program, *before, *output, "--", *command]
        else:
            command += output
        environment = {
            **one_device,
            "DISTILL_JAX_HOME": str(tmp_path / "home"),
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_agent_register_timeout_ms": "300000",  # the machine may be busy
        }
        started.append(
            subprocess.Popen(
                command,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,  # a Ray that ends badly takes its process group along
            )
        )
        return started[-1]

    yield go
    for process in started:
        process.kill()


def results(folder):
    return {row.hash: results_of(row) for row in Ledger(folder / "ledger.jsonl").rows()}


def process_of_part(part, output):
    """Process id of the experiment that trains a part; None when there is none yet."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().decode().split("\0")
        except OSError:
            continue
        if "--part" in words and words[words.index("--part") + 1] == part and str(output) in words:
            return int(path.parent.name)
    return None


def parent_of(pid):
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("PPid:")[2].split()[0])


def has_begun(output, part):
    """Whether a part has a teacher, and trains students."""
    log = output / f"part-{part.number}-of-{part.count}.log"
    return log.is_file() and f"runs of part {part} are finished already" in log.read_text()


@pytest.mark.slow
def test_a_worker_and_a_process_are_killed_and_the_table_is_the_same(start, tmp_path):
    """Slow: a local Ray of two workers, four processes that import and compile.

    The worker of part 1 gets a SIGKILL, and of part 2 the process below its worker.
    """
    pytest.importorskip("ray")
    out = tmp_path / "out"
    process = start("out", "ray", "--parts", "2")
    first = wait_for(lambda: has_begun(out, Part(1, 2)) and process_of_part("1/2", out), process)
    worker = parent_of(first)
    os.kill(worker, signal.SIGKILL)
    second = wait_for(lambda: has_begun(out, Part(2, 2)) and process_of_part("2/2", out), process)
    os.kill(second, signal.SIGKILL)
    wait_for(lambda: not is_alive(first))
    wait_for(lambda: process_of_part("1/2", out), process)  # again
    said, errors = process.communicate(timeout=600)
    assert process.returncode == 0, said + errors
    assert "part 1/2 is done" in said and "part 2/2 is done" in said
    assert said.strip().endswith("out/ledger.jsonl") and (out / "report.html").is_file()
    undisturbed = start("whole")
    said, errors = undisturbed.communicate(timeout=600)
    assert undisturbed.returncode == 0, said + errors
    assert len(results(out)) == 9 and results(out) == results(tmp_path / "whole")
