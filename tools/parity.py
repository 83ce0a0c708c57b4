"""Takes the same steps in every way there is, for every family of losses, and prints how far apart.

    python tools/parity.py                              # on simulated CPU devices, minutes
    python tools/parity.py --report docs/parity.md
    python tools/parity.py --families relations --ways pmap accumulate

Two steps with dropout, from one state, on batches with rows of padding, unequal lengths and missing
labels. A figure is the largest difference to one device and one process, over the student's
parameters and the losses' own ones (which Adam moves by about 0.01 a step) and over the value of
each loss, where it is relative to that value if that is above 1.
"""

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tyro

from distill_jax.core.distributed import is_lead, join_processes, to_host
from distill_jax.core.files import write_atomic
from distill_jax.core.mesh import make_mesh, own_rows
from distill_jax.core.types import Batch
from distill_jax.models.bert import Bert, BertConfig, init_bert
from distill_jax.objectives.registry import lookup, names
from distill_jax.objectives.resolve import resolve
from distill_jax.teachers.live import LiveTeacher
from distill_jax.training.layout import Layout
from distill_jax.training.loop import step_numbers
from distill_jax.training.optimizer import OptimizerConfig, make_optimizer
from distill_jax.training.step import make_step

DEVICES = 8
STUDENT = BertConfig(20, 8, 2, 2, 16, max_positions=16, num_labels=3)
TEACHER = BertConfig(20, 12, 4, 2, 16, max_positions=16, num_labels=3, initializer_range=0.3)
OPTIMIZER = OptimizerConfig(learning_rate=1e-2, warmup=0.0)
ROWS = 16


@dataclass(frozen=True)
class Way:
    """A way of taking a step.

    Attributes:
      words: for people.
      devices: in all processes together.
      accumulate: parts of a batch, one after another.
      processes: which share the devices equally.
    """

    words: str
    devices: int
    parallel: str = "jit"
    fsdp: int = 1
    accumulate: int = 1
    processes: int = 1


WAYS = {
    "jit2": Way("jit, 2 devices", 2),
    "jit8": Way("jit, 8 devices", 8),
    "fsdp2": Way("jit, 8 devices, parameters cut in 2", 8, fsdp=2),
    "fsdp4": Way("jit, 8 devices, parameters cut in 4", 8, fsdp=4),
    "pmap": Way("pmap, 8 devices", 8, "pmap"),
    "accumulate": Way("1 device, 4 parts of a batch", 1, accumulate=4),
    "accumulate8": Way("jit, 8 devices, 2 parts", 8, accumulate=2),
    "pmap_accumulate": Way("pmap, 4 devices, 2 parts", 4, "pmap", accumulate=2),
    "processes2": Way("2 processes of 2 devices", 4, processes=2),
    "processes4": Way("4 processes of 1 device, parameters cut in 2", 4, fsdp=2, processes=4),
}


def families() -> dict[str, list[str]]:
    """The losses by the module they stand in."""
    found: dict[str, list[str]] = {}
    for name in names("classes"):
        module = lookup(name).function.__module__
        if module.startswith("distill_jax."):
            found.setdefault(module.rpartition(".")[2], []).append(name)
    return found


def batches() -> Iterator[Batch]:
    """Two batches: rows of padding at the end, unequal lengths, some labels missing."""
    rng = np.random.default_rng(0)
    for real in (ROWS - 5, ROWS):
        lengths_B = np.where(np.arange(ROWS) < real, rng.integers(3, 13, ROWS), 0)
        where_BT = np.arange(12) < lengths_B[:, None]
        yield Batch(
            example_ids_B=np.where(lengths_B > 0, np.arange(ROWS), -1).astype(np.int32),
            input_ids_BT=np.where(where_BT, rng.integers(1, 20, where_BT.shape), 0).astype(
                np.int32
            ),
            token_type_ids_BT=np.zeros(where_BT.shape, np.int32),
            where_BT=where_BT,
            labels_B=rng.integers(0, 3, ROWS).astype(np.int32),
            label_where_B=(lengths_B > 0) & (rng.random(ROWS) < 0.6),
        )


def take_steps(text: str, way: Way) -> dict[str, np.ndarray]:
    """Every parameter and every loss's value after two steps, by name."""
    objective = resolve(text, STUDENT.shape, TEACHER.shape)
    layout = Layout(make_mesh(jax.devices()[: way.devices], fsdp=way.fsdp), way.parallel)  # type: ignore[arg-type]
    optimizer = make_optimizer(OPTIMIZER)
    student, losses = (
        init_bert(STUDENT, jax.random.key(0)),
        objective.init_params(jax.random.key(1)),
    )
    state = layout.new_state(student, losses, optimizer)
    spoken = init_bert(TEACHER, jax.random.key(2))
    speaker = LiveTeacher(Bert(TEACHER), spoken, objective.teacher_capture)
    step = layout.compile(
        make_step(
            Bert(STUDENT),
            objective,
            optimizer,
            accumulate=way.accumulate,
            axis=layout.axis,
            gathered=layout.gathered,
        )
    )
    own, values = own_rows(layout.mesh, ROWS), {}
    for number, whole in enumerate(batches()):
        # The teacher hears the whole batch, so that its rounding is the same in every way.
        said = jax.tree.map(lambda x: np.asarray(x)[own], speaker(whole))
        batch = jax.tree.map(lambda x: x[own], whole)
        numbers = layout.put_numbers(step_numbers(objective, OPTIMIZER, 5, number, 10))
        state, metrics = step(state, *layout.put_batch(batch, said), numbers)
        for term, (total, count) in to_host(metrics.terms).items():
            value = total / max(count, 1)
            values[f"loss/{number}/{term}"] = value
    trained = to_host({"student": state.params, "losses": state.loss_params})
    for path, leaf in jax.tree_util.tree_leaves_with_path(trained):
        values[jax.tree_util.keystr(path, simple=True, separator="/")] = leaf
    return values


def distance(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> float:
    """The largest difference, see the module's docstring."""
    assert one.keys() == other.keys()
    worst = 0.0
    for name, values in one.items():
        scale = max(1.0, float(np.max(np.abs(values)))) if name.startswith("loss/") else 1.0
        worst = max(worst, float(np.max(np.abs(values - other[name]))) / scale)
        if not np.isfinite(other[name]).all():
            return float("inf")
    return worst


def in_processes(text: str, way_name: str) -> dict[str, np.ndarray]:
    """``take_steps`` in processes of their own."""
    way = WAYS[way_name]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    count = way.devices // way.processes
    flags = f"--xla_force_host_platform_device_count={count} --xla_backend_optimization_level=0"
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, "--one-of", way_name, "--objective", text]
        started = [
            subprocess.Popen(
                [*command, "--report", f"{folder}/end.npz"],
                env={
                    **os.environ,
                    "XLA_FLAGS": flags,
                    "JAX_PLATFORMS": "cpu",
                    "DISTILL_JAX_COORDINATOR": f"127.0.0.1:{port}",
                    "DISTILL_JAX_NUM_PROCESSES": str(way.processes),
                    "DISTILL_JAX_PROCESS_ID": str(number),
                },
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for number in range(way.processes)
        ]
        for process in started:
            said, _ = process.communicate()
            if process.returncode:
                raise SystemExit(said)
        with np.load(f"{folder}/end.npz", allow_pickle=False) as end:
            return dict(end)


@dataclass(frozen=True)
class Arguments:
    """Compare ways of taking a step."""

    families: tuple[str, ...] = ()
    """Modules of losses: logits, features ...; all by default."""
    ways: tuple[str, ...] = ()
    """Some of: jit2 jit8 fsdp2 fsdp4 pmap accumulate accumulate8 pmap_accumulate processes2
    processes4; all by default."""
    report: Path | None = None
    """A Markdown file to write."""
    one_of: str = ""
    """Used by the tool itself: the way whose process this is."""
    objective: str = ""
    """Likewise: its losses."""


def main(args: Arguments) -> None:
    """Print the table."""
    if args.one_of:
        join_processes()
        values = take_steps(args.objective, WAYS[args.one_of])
        if is_lead() and args.report:
            with args.report.open("wb") as file:
                np.savez(file, **values)  # type: ignore[arg-type]
        return
    rows = []
    chosen = args.ways or tuple(WAYS)
    for family, losses in families().items():
        if args.families and family not in args.families:
            continue
        text = " + ".join(losses)
        one = take_steps(text, Way("one device", 1))
        cells = []
        for name in chosen:
            many = WAYS[name].processes > 1
            other = in_processes(text, name) if many else take_steps(text, WAYS[name])
            cells.append(f"{distance(one, other):.1e}")
            print(f"{family}: {WAYS[name].words}: {cells[-1]}", flush=True)
        rows.append(f"| {family} ({len(losses)}) | {' | '.join(cells)} |")
    text = page(rows, [WAYS[name].words for name in chosen])
    print(text)
    if args.report:
        write_atomic(args.report, text + by_hand(args.report))


def by_hand(report: Path) -> str:
    """The sections of an earlier report after its table, which are not of this tool."""
    before = report.read_text(encoding="utf-8") if report.is_file() else ""
    found = before.find("\n## ")
    return before[found:] if found >= 0 else ""


def page(rows: list[str], words: list[str]) -> str:
    """The report."""
    assert __doc__ is not None
    what = __doc__.split("\n\n")[-1].strip()
    versions: dict[str, Any] = {"jax": jax.__version__, "backend": jax.default_backend()}
    facts = ", ".join(f"{key} {value}" for key, value in versions.items())
    lines = [
        "# One step, many ways of taking it",
        "",
        what,
        "",
        f"Made by `python tools/parity.py` with {facts}; devices are simulated, processes talk "
        "over loopback. In brackets the number of losses of the family.",
        "",
        f"| family of losses | {' | '.join(words)} |",
        f"|---|{'---|' * len(words)}",
        *rows,
    ]
    return "\n".join(lines) + "\n"


def simulate_devices() -> None:
    """Before JAX looks for devices."""
    flags = f"--xla_force_host_platform_device_count={DEVICES} --xla_backend_optimization_level=0"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flags}"
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    jax.config.update("jax_platforms", os.environ["JAX_PLATFORMS"])


if __name__ == "__main__":
    if "DISTILL_JAX_COORDINATOR" not in os.environ:
        simulate_devices()
    main(tyro.cli(Arguments))
