"""Two and four processes on one machine, over loopback, train the run of one process."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

SCRIPT = Path(__file__).with_name("one_of_several.py")
OBJECTIVE = "0.5*kl(T=2) + 0.5*ce + hidden_mse + rkd_distance + sp"
DEVICES = 4


def start(folder, processes, fsdp, one_device):
    """Starts all processes of a run, which share four simulated devices equally."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    share = f"--xla_force_host_platform_device_count={DEVICES // processes}"
    environment = {**one_device, "XLA_FLAGS": f"{share} {one_device['XLA_FLAGS']}"}
    if processes > 1:
        environment["DISTILL_JAX_COORDINATOR"] = f"127.0.0.1:{port}"
        environment["DISTILL_JAX_NUM_PROCESSES"] = str(processes)
    folder.mkdir()
    return [
        subprocess.Popen(
            [sys.executable, str(SCRIPT), OBJECTIVE, str(fsdp), str(folder)],
            env={**environment, "DISTILL_JAX_PROCESS_ID": str(own)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for own in range(processes)
    ]


def end(folder, processes):
    for process in processes:
        out, _ = process.communicate(timeout=300)
        assert process.returncode == 0, out[-3000:]
    return dict(np.load(folder / "end.npz"))


@pytest.fixture(scope="module")
def alone(one_device, tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone") / "run"
    return end(folder, start(folder, 1, 1, one_device))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("processes", "fsdp"), [(2, 1), pytest.param(4, 2, marks=pytest.mark.long)]
)
def test_several_processes_are_one(processes, fsdp, alone, one_device, tmp_path):
    """Slow: every process starts JAX; what they run together each compiles for itself."""
    folder = tmp_path / "run"
    together = end(folder, start(folder, processes, fsdp, one_device))
    assert together.keys() == alone.keys()
    for name, values in alone.items():
        np.testing.assert_allclose(together[name], values, rtol=2e-4, atol=2e-5, err_msg=name)


def test_wrong_variables_are_named(tmp_path):
    environment = {**os.environ, "DISTILL_JAX_COORDINATOR": "127.0.0.1:1"}
    environment |= {"DISTILL_JAX_NUM_PROCESSES": "2", "DISTILL_JAX_PROCESS_ID": "2"}
    code = "from distill_jax.core.distributed import join_processes; join_processes()"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    assert "DISTILL_JAX_PROCESS_ID must be from 0 to 1, not 2" in done.stderr
