"""Where a number comes from: code, packages, device, time. JAX is imported only for the device."""

import datetime
import functools
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

from distill_jax.core.version import VERSION

PACKAGES = ("distill_jax", "jax", "jaxlib", "flax", "optax", "numpy")
_CODE = ("distill_jax", ":(glob)experiments/*.py", "pyproject.toml")
"""What makes a checkout dirty. Results do not: a run that writes its ledger changes no code."""


def provenance() -> dict[str, Any]:
    """The fields ``code``, ``packages``, ``device`` and ``finished_at`` of a ledger row."""
    return {
        "code": dict(code_version()),
        "packages": package_versions(),
        "device": device_description(),
        "finished_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def package_versions() -> dict[str, str]:
    """Versions of Python and of the packages that shape a result, as installed."""
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            if name == "distill_jax":
                versions[name] = VERSION
    return versions


@functools.cache
def code_version() -> dict[str, Any]:
    """Package version and, in a git checkout, commit and whether code differs from it.

    Asked once per process: later edits do not change the code that is running.
    """
    return describe_code(Path(__file__).resolve().parents[2])


def describe_code(root: Path) -> dict[str, Any]:
    """``code_version`` of the checkout at ``root``; only the version where it is none."""
    version: dict[str, Any] = {"version": VERSION}
    # A package installed inside somebody else's checkout is not that checkout's code.
    top = _git(root, "rev-parse", "--show-toplevel")
    if top is None or Path(top.strip()).resolve() != root.resolve():
        return version
    commit, status = _git(root, "rev-parse", "HEAD"), _git(root, "status", "--porcelain", *_CODE)
    if commit is None or status is None:
        return version
    return {**version, "commit": commit.strip(), "dirty": bool(status.strip())}


def device_description() -> str:
    """The default backend in words, e.g. ``gpu: 1 x NVIDIA H100 80GB HBM3``."""
    import jax

    devices = jax.devices()
    kind, platform_name = devices[0].device_kind, devices[0].platform
    if platform_name == "cpu":
        return f"cpu: {cpu_description()}, {len(devices)} JAX devices"
    return f"{platform_name}: {len(devices)} x {kind}"


def cpu_description() -> str:
    """The processor in words, with the cores that this process may use."""
    return f"{_processor()}, {_usable_cores()} cores"


def _usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.machine()


def _git(root: Path, *arguments: str) -> str | None:
    """Output of a git command at ``root``; None where git or the checkout is missing."""
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
