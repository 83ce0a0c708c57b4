"""The files of tools/bench as modules."""

import importlib
import sys
from pathlib import Path

BENCH = Path(__file__).resolve().parents[1] / "tools/bench"


def bench_module(name):
    """A module of tools/bench; they import each other by name, as scripts of one folder do."""
    if str(BENCH) not in sys.path:
        sys.path.insert(0, str(BENCH))
    return importlib.import_module(name)
