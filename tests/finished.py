"""A finished table of toy students and their teacher, as folders."""

from functools import partial
from pathlib import Path

import jax
import pytest
from rich.console import Console

from distill_jax.cli.compare import CompareLosses, sweep_of
from distill_jax.core.mesh import make_mesh
from distill_jax.engine import run as run_module
from distill_jax.engine.engine import Engine
from distill_jax.engine.progress import Reporter
from distill_jax.engine.run import run_table
from distill_jax.tasks.classification.table import Classification


def finished_table(folder, teacher, data, students, **changes):
    """Run a table of ``kl`` students with a seed each: folder of each run by its student's name."""
    usual: dict = dict(
        data=f"files:{data}", teacher=str(teacher), students=students, objectives=("kl",),
        seeds=(0,), steps=20, evaluations=1, yardsticks=False, teacher_epochs=1, max_shapes=1,
        max_length=16, batch_size=16,
    )  # fmt: skip
    args = CompareLosses(**{**usual, **changes})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_module, "Engine", partial(Engine, mesh=make_mesh(jax.devices()[:1])))
        _, rows = run_table(
            Classification(sweep_of(args)), folder, Reporter(Console(quiet=True)), track="none"
        )
    return {row.group if row.row == "kl" else row.row: folder / "runs" / row.hash for row in rows}


def size_of(folder: Path) -> int:
    """Bytes of all files below."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
