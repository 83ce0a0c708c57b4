"""Freed memory is used again without the system being asked."""

import platform
import subprocess
import sys

import pytest

from distill_jax.core import memory

PROGRAM = """
import resource
import sys
from distill_jax.core.memory import keep_freed_memory

if sys.argv[1] == "kept":
    keep_freed_memory()
import jax, jax.numpy as jnp

@jax.jit
def step(x):
    y = jnp.sin(x[:, None] + x[None])
    return (y @ jnp.stack([x] * 16, 1))[:, 0]  # an intermediate value of 36 MB

x = jnp.ones(3072)
for _ in range(30):
    step(x).block_until_ready()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(30):
    step(x).block_until_ready()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc alone is spoken to")
def test_steps_ask_the_system_for_no_pages(one_device):
    environment = {k: v for k, v in one_device.items() if k != "GLIBC_TUNABLES"}
    faults = {}
    for how in ("plain", "kept"):
        command = [sys.executable, "-c", PROGRAM, how]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        faults[how] = int(done.stdout)
    assert faults["plain"] > 30 * 9000  # each step its pages
    assert faults["kept"] < faults["plain"] / 4


@pytest.mark.skipif(platform.system() != "Linux", reason="Linux counts them")
def test_areas_of_memory_are_counted(monkeypatch):
    monkeypatch.setattr(memory, "MOST_MAPS", 10)
    assert memory.many_programs()
    monkeypatch.setattr(memory, "MOST_MAPS", 10**6)
    assert not memory.many_programs()
