"""Compiled programs outlive the process, and the folder that they were made in."""

import os
import shutil
import subprocess
import sys

PROGRAM = """
import jax
from distill_jax.core.compiled import keep_compiled_programs
keep_compiled_programs()
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
found = []
jax.monitoring.register_event_listener(
    lambda event, **_: found.append(event) if event.endswith("cache_hits") else None
)
jax.jit(lambda x: jax.numpy.sin(x @ x))(jax.numpy.ones((8, 8)))
print(len(found))
"""


def found(home):
    variables = {k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**variables, "DISTILL_JAX_HOME": str(home)},
        capture_output=True,
        text=True,
        check=True,
    )
    return int(done.stdout.split()[-1])


def test_programs_are_found_under_another_path(tmp_path):
    assert found(tmp_path / "one") == 0
    shutil.move(tmp_path / "one", tmp_path / "other")
    assert found(tmp_path / "other") > 0
