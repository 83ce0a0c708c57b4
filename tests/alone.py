"""Python without this package: what is exported has to do without it."""

import json
import subprocess
import sys


def alone(code):
    """Python in a process that cannot import this package."""
    program = 'import sys\nsys.modules["distill_jax"] = None\n'
    done = subprocess.run(
        [sys.executable, "-I", "-c", program + code],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])
