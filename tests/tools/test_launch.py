"""The launch scripts, with stand-ins for sbatch, srun, ssh, gcloud that run what they are given."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

LAUNCH = Path(__file__).resolve().parents[2] / "tools/launch"
SCRIPTS = ("slurm_array.sh", "slurm_multihost.sh", "tpu_vm.sh", "ssh.sh")
AWKWARD = [
    "a b",
    "it's",
    '"$HOME"',
    "*",
    "0.9*kl(T=4) + 0.1*ce",
    "",
    "back\\slash",
    "two\nlines",
    "é",
]

STANDINS = {
    # One task after another, as the array would run them; or the one job of a multi-host run.
    "sbatch": """
        printf '%s\\n' "$@" > "$LOG/sbatch"
        job=$(mktemp "$LOG/job.XXXX"); cat > "$job"
        export SLURM_JOB_ID=20005 SLURM_JOB_NODELIST='n[1-2]' SLURM_NNODES=2
        case "$*" in
          *--array=1-2*) for SLURM_ARRAY_TASK_ID in 1 2; do
              export SLURM_ARRAY_TASK_ID; bash "$job" || exit; done ;;
          *) bash "$job" ;;
        esac
    """,
    "scontrol": "[ \"$*\" = 'show hostnames n[1-2]' ] && printf 'node1\\nnode2\\n'",
    "srun": """
        [ "$1" = --kill-on-bad-exit=1 ] && shift
        for SLURM_PROCID in 0 1; do export SLURM_PROCID; "$@" || exit; done
    """,
    "gcloud": """
        printf '%s\\n' "$@" > "$LOG/gcloud"
        for last in "$@"; do :; done
        cd "$LOG" && bash -c "${last#--command=}"
    """,
    # As ssh does: the words joined by spaces, read again by a shell there.
    "ssh": """
        [ "$1 $2 $3" = '-tt -o BatchMode=yes' ] && shift 3
        host=$1; shift
        printf '%s\\n' "$host" >> "$LOG/ssh"
        [ "$host" != broken ] || exit 255
        cd "$LOG" && bash -c "$*"
    """,
}
PROBE = """
import json, os, sys
names = ("COORDINATOR", "NUM_PROCESSES", "PROCESS_ID")
facts = {"arguments": sys.argv[2:], "folder": os.getcwd()}
facts |= {name: os.environ.get(f"DISTILL_JAX_{name}") for name in names}
with open(sys.argv[1], "a") as file:
    file.write(json.dumps(facts) + "\\n")
print("hello")
"""


@pytest.fixture
def world(tmp_path):
    """(script, arguments) -> the finished process; ``world.seen()``: what the commands got."""
    import json

    folder = tmp_path / "bin"
    folder.mkdir()
    for name, body in STANDINS.items():
        (folder / name).write_text(f"#!/usr/bin/env bash\n{body}")
        (folder / name).chmod(0o755)
    (tmp_path / "distill_jax").mkdir()
    (tmp_path / "probe.py").write_text(PROBE)

    def call(script, *arguments, **variables):
        environment = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}", "LOG": str(tmp_path)}
        return subprocess.run(
            [str(LAUNCH / script), *arguments],
            capture_output=True,
            text=True,
            timeout=60,
            cwd=tmp_path,
            env={**environment, **variables},
        )

    call.folder = tmp_path
    call.command = [sys.executable, str(tmp_path / "probe.py"), str(tmp_path / "seen"), *AWKWARD]

    def seen():
        path = tmp_path / "seen"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    call.seen = seen
    return call


def hosts_file(world, text="one\nme@two  # the second\n\n# three\n"):
    (world.folder / "hosts.txt").write_text(text)
    return "hosts.txt"


def test_a_job_array_runs_a_part_each(world):
    done = world("slurm_array.sh", "2", "--time=1:00:00", "--", *world.command)
    assert done.returncode == 0, done.stderr
    assert [facts["arguments"] for facts in world.seen()] == [
        [*AWKWARD, "--part", f"{number}/2"] for number in (1, 2)
    ]
    options = (world.folder / "sbatch").read_text().splitlines()
    assert {"--array=1-2", "--time=1:00:00", "--requeue", "--open-mode=append"} <= set(options)


def test_one_task_of_an_array_alone_is_still_that_part_of_all(world):
    """``--array=2`` after the default: SLURM takes the last; the count does not follow it."""
    done = world("slurm_array.sh", "--dry-run", "8", "--array=2", "--", "python", "x.py")
    assert "--array=1-8" in done.stdout and done.stdout.index("--array=2") > 0
    assert 'exec python x.py --part "$SLURM_ARRAY_TASK_ID/8"' in done.stdout


def test_a_multi_host_job_tells_every_process_who_it_is(world):
    done = world("slurm_multihost.sh", "2", "--gres=gpu:8", "--", *world.command)
    assert done.returncode == 0, done.stderr
    assert [facts["arguments"] for facts in world.seen()] == [AWKWARD, AWKWARD]
    assert [facts["PROCESS_ID"] for facts in world.seen()] == ["0", "1"]
    assert {facts["NUM_PROCESSES"] for facts in world.seen()} == {"2"}
    assert {facts["COORDINATOR"] for facts in world.seen()} == {"node1:20005"}
    options = (world.folder / "sbatch").read_text().splitlines()
    assert {"--nodes=2", "--ntasks-per-node=1", "--gres=gpu:8"} <= set(options)


def test_a_tpu_slice_runs_one_command_on_all_workers(world):
    done = world("tpu_vm.sh", "my-slice", "--zone=z", "--", *world.command)
    assert done.returncode == 0, done.stderr
    (facts,) = world.seen()
    assert facts["arguments"] == AWKWARD
    assert facts["COORDINATOR"] == "auto" and facts["PROCESS_ID"] is None
    assert facts["folder"] == str(world.folder / "distill_jax")
    words = (world.folder / "gcloud").read_text().splitlines()
    assert words[:6] == ["compute", "tpus", "tpu-vm", "ssh", "my-slice", "--zone=z"]
    assert "--worker=all" in words


def test_ssh_runs_a_part_on_each_host(world):
    done = world("ssh.sh", hosts_file(world), "--", *world.command)
    assert done.returncode == 0, done.stderr
    assert sorted((world.folder / "ssh").read_text().split()) == ["me@two", "one"]
    parts = sorted(facts["arguments"] for facts in world.seen())
    assert parts == [[*AWKWARD, "--part", f"{number}/2"] for number in (1, 2)]
    assert {facts["COORDINATOR"] for facts in world.seen()} == {None}
    assert "one: hello\n" in done.stdout and "me@two: hello\n" in done.stdout


def test_ssh_runs_one_multi_host_run(world):
    file = hosts_file(world, "me@one\ntwo\nthree")
    done = world("ssh.sh", file, "--multihost", "--port=7000", "--", *world.command)
    assert done.returncode == 0, done.stderr
    seen = sorted(world.seen(), key=lambda facts: facts["PROCESS_ID"])
    assert [facts["PROCESS_ID"] for facts in seen] == ["0", "1", "2"]
    assert {facts["NUM_PROCESSES"] for facts in seen} == {"3"}
    assert {facts["COORDINATOR"] for facts in seen} == {"one:7000"}
    assert all(facts["arguments"] == AWKWARD for facts in seen)
    done = world("ssh.sh", "--dry-run", file, "--multihost", "--coordinator=10.0.0.1", "--", "x")
    assert "DISTILL_JAX_COORDINATOR=10.0.0.1:29400" in done.stdout


def test_the_folder_is_the_users_to_name(world):
    (world.folder / "my code").mkdir()
    for script, first in (("ssh.sh", hosts_file(world, "one")), ("tpu_vm.sh", "slice")):
        assert world(script, first, "--", *world.command, DIRECTORY="my code").returncode == 0
    assert {facts["folder"] for facts in world.seen()} == {str(world.folder / "my code")}


def test_a_host_that_fails_is_named_and_the_others_finish(world):
    done = world("ssh.sh", hosts_file(world, "one\nbroken\n"), "--", *world.command)
    assert done.returncode == 1
    assert "broken ended with exit code 255" in done.stderr and "one ended" not in done.stderr
    assert len(world.seen()) == 1


@pytest.mark.parametrize("text", ["", "# none\n", "-oProxyCommand=touch", "one two", "a;b", "$(x)"])
def test_a_hosts_file_with_something_else_is_refused(world, text):
    done = world("ssh.sh", hosts_file(world, text), "--", *world.command)
    assert done.returncode == 2 and done.stderr.startswith("error: no")
    assert world.seen() == [] and not (world.folder / "ssh").exists()


FIRST = {
    "slurm_array.sh": "2",
    "slurm_multihost.sh": "2",
    "tpu_vm.sh": "slice",
    "ssh.sh": "hosts.txt",
}


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_dry_run_prints_and_runs_nothing(world, script):
    hosts_file(world)
    done = world(script, "--dry-run", FIRST[script], "--", *world.command)
    assert done.returncode == 0, done.stderr
    assert world.seen() == []
    assert not any((world.folder / name).exists() for name in ("sbatch", "gcloud", "ssh"))
    program = {"slurm_array.sh": "sbatch", "slurm_multihost.sh": "sbatch", "tpu_vm.sh": "gcloud"}
    assert done.stdout.startswith(program.get(script, "ssh") + " ")


@pytest.mark.parametrize("script", ["slurm_array.sh", "slurm_multihost.sh"])
def test_what_a_dry_run_of_slurm_prints_can_be_pasted(world, script):
    printed = world(script, "--dry-run", "2", "--", *world.command).stdout
    environment = {"PATH": f"{world.folder}/bin:{os.environ['PATH']}", "LOG": str(world.folder)}
    quoted = printed.replace("<<EOF", "<<'EOF'")
    done = subprocess.run(["bash", "-c", quoted], env=environment, cwd=world.folder)
    assert done.returncode == 0
    assert [facts["arguments"][: len(AWKWARD)] for facts in world.seen()] == [AWKWARD, AWKWARD]


@pytest.mark.parametrize("script", SCRIPTS)
def test_usage_on_wrong_arguments(world, script):
    hosts_file(world)
    first = FIRST[script]
    wrong = [[], ["--dry-run"], [first], [first, "--"], [first, "--x"], [first, "x", "--", "c"]]
    wrong += [["--", "c"], ["--help"], ["Not/A/Name;", "x", "--", "c"]]
    if "slurm" in script:
        wrong += [["0", "--", "c"], ["-1", "--", "c"], ["2x", "--", "c"]]
    if script == "ssh.sh":
        wrong += [[first, "--no-such", "--", "c"], [first, "--port=x", "--", "c"]]
    for arguments in wrong:
        done = world(script, *arguments)
        assert done.returncode == 2, arguments
        assert f"tools/launch/{script} [--dry-run]" in done.stderr, arguments
        assert "set -euo" not in done.stderr and done.stdout == ""
    assert world.seen() == []


def test_every_example_in_a_head_is_one(world):
    """Its script exists, and a dry run takes it."""
    hosts_file(world)
    for script in SCRIPTS:
        lines = (LAUNCH / script).read_text().splitlines()
        examples = [line[1:].strip() for line in lines if f"launch/{script}" in line]
        examples = [line for line in examples if "[" not in line]
        assert examples
        for example in examples:
            words = shlex.split(example)
            done = world(script, "--dry-run", *words[1:])
            assert done.returncode == 0, done.stderr
            (path,) = [word for word in words if word.startswith("experiments/")]
            assert (LAUNCH.parents[1] / path).is_file()


def test_shellcheck_has_nothing_to_say():
    if shutil.which("shellcheck") is None:
        pytest.skip("no shellcheck")
    done = subprocess.run(
        ["shellcheck", "-x", *sorted(map(str, LAUNCH.glob("*.sh")))],
        capture_output=True,
        text=True,
        cwd=LAUNCH.parents[1],
    )
    assert done.returncode == 0, done.stdout
