"""The parts of a table as jobs of a Ray cluster: Ray places, restarts and cancels them.

Each job runs the same command with ``--part I/N`` in a process of its own and sends back the
ledgers that it wrote, so that the machines need not share the output folder. Ray is an optional
extra.
"""

import ctypes
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill_jax.core.errors import UserError, first_line
from distill_jax.engine.merge import merge_ledgers
from distill_jax.engine.parts import Part
from distill_jax.tables.outputs import SPEC

POLL_SECONDS = 0.2
STOP_SECONDS = 120.0
"""How long parts that were asked to stop may take to save their state."""
STARTS = 3
"""How often a Ray of our own is started: on a busy machine it gives itself up after seconds."""
TAIL_CHARS = 2000
_PR_SET_PDEATHSIG = 1


class PartDied(Exception):
    """A part's process was killed, or asked to stop; started again, it goes on."""


class PartFailed(Exception):
    """A part's process ended with an error; started again, it would end the same."""


@dataclass(frozen=True)
class Resources:
    """What Ray sets aside for a part.

    Attributes:
      cpus: cores; as many threads as JAX takes.
      gpus: devices, or a share of one.
      tpus: chips.
    """

    cpus: float = 1.0
    gpus: float = 0.0
    tpus: float = 0.0

    def __post_init__(self) -> None:
        if not self.cpus > 0 or self.gpus < 0 or self.tpus < 0:
            raise UserError("--cpus must be positive, --gpus and --tpus not negative")

    def environment(self) -> dict[str, str]:
        """Variables that hold a process to its share; Ray itself names the devices."""
        variables = {"NPROC": str(max(1, int(self.cpus)))}
        if 0 < self.gpus < 1:
            variables["XLA_PYTHON_CLIENT_MEM_FRACTION"] = f"{0.9 * self.gpus:.3f}"
        return variables


@dataclass(frozen=True)
class RayJob:
    """A part to be run, wherever Ray puts it.

    Attributes:
      command: of the whole table, without ``--part`` and ``--output-dir``.
      part: which of them.
      output_dir: absolute; on a machine that does not share it, a folder of that name is made.
      folder: where the command runs.
      environment: changes of the variables.
    """

    command: tuple[str, ...]
    part: Part
    output_dir: Path
    folder: Path
    environment: Mapping[str, str]

    @property
    def log(self) -> Path:
        """What the process prints."""
        return self.output_dir / f"part-{self.part.number}-of-{self.part.count}.log"


def run_parts(
    command: Sequence[str],
    parts: int,
    output_dir: Path,
    say: Callable[[str], None],
    *,
    resources: Resources = Resources(),
    retries: int = 3,
    address: str | None = None,
) -> list[Path]:
    """Run all parts of what a command declares, and join their ledgers as they end.

    Args:
      command: with its arguments; ``--part`` and ``--output-dir`` are added.
      parts: into how many.
      output_dir: of the command.
      say: prints a line.
      retries: how often a part is started again that died with its worker, machine or process.
      address: of a Ray cluster; None for ``$RAY_ADDRESS``, else a Ray on this machine.

    Returns:
      The folders whose ledgers hold all rows now.

    Raises:
      UserError: without Ray, or when parts failed, once all others are done.
    """
    ray = _ray()
    if parts < 1 or retries < 0:
        raise UserError("--parts must be at least 1, --retries not negative")
    variables = resources.environment()
    if "DISTILL_JAX_HOME" in os.environ:
        variables["DISTILL_JAX_HOME"] = os.environ["DISTILL_JAX_HOME"]
    jobs = [
        RayJob(tuple(command), Part(number, parts), output_dir.resolve(), Path.cwd(), variables)
        for number in range(1, parts + 1)
    ]
    _connect(ray, address)
    try:
        remote = ray.remote(
            num_cpus=resources.cpus,
            num_gpus=resources.gpus,
            resources={"TPU": resources.tpus} if resources.tpus else {},
            max_retries=retries,
            retry_exceptions=[PartDied],
        )(run_part)
        return _collect(ray, {remote.remote(job): job for job in jobs}, say)
    finally:
        ray.shutdown()


def run_part(job: RayJob) -> dict[str, bytes]:
    """Run one part to its end, on the machine where this is called.

    Returns:
      The ledgers it wrote and their tables' descriptions: path below ``output_dir`` -> content.

    Raises:
      PartDied: when the process was killed or stopped.
      PartFailed: when it ended with an error.
    """
    job.output_dir.mkdir(parents=True, exist_ok=True)
    command = [*job.command, "--part", str(job.part), "--output-dir", str(job.output_dir)]
    with open(job.log, "a+b") as log:
        begin = log.seek(0, os.SEEK_END)
        try:
            process = subprocess.Popen(
                command,
                cwd=job.folder,
                env={**os.environ, **job.environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                preexec_fn=_die_with_parent if sys.platform == "linux" else None,
            )
        except OSError as error:
            raise PartFailed(f"cannot run {command[0]}: {error.strerror or error}") from error
        code = _wait(process)
        log.seek(begin)
        said = log.read().decode(errors="replace")
    if code < 0 or code in (128 + signal.SIGINT, 128 + signal.SIGTERM):
        raise PartDied(f"ended by a signal (exit code {code})")
    if code:
        raise PartFailed(f"ended with exit code {code}:\n{said[-TAIL_CHARS:].strip()}")
    ledgers = [Path(line) for line in said.splitlines() if line.endswith(f"/{job.part.ledger}")]
    if not ledgers:
        raise PartFailed("the command named no ledger of its part: is it one that trains a table?")
    files = [file for ledger in ledgers for file in (ledger, ledger.with_name(SPEC))]
    return {
        str(file.relative_to(job.output_dir)): file.read_bytes()
        for file in files
        if file.is_file()  # a part may be without runs, and has no ledger then
    }


def _wait(process: subprocess.Popen[bytes]) -> int:
    """Its exit code. Awake often, for Ray cancels by a flag; a cancelled process may save."""
    try:
        while process.poll() is None:
            time.sleep(POLL_SECONDS)
    except BaseException:
        process.terminate()
        process.wait()
        raise
    return process.returncode


def _collect(ray: Any, waiting: dict[Any, RayJob], say: Callable[[str], None]) -> list[Path]:
    """Join what the parts send back, as they end."""
    started, failures = time.monotonic(), []
    folders: dict[Path, None] = {}
    for job in waiting.values():
        say(f"part {job.part}: {job.log}")
    try:
        while waiting:
            (done,), _ = ray.wait(list(waiting), num_returns=1)
            job = waiting.pop(done)
            try:
                added = _join(ray.get(done), job.output_dir, folders)
            except (PartDied, PartFailed, UserError, ray.exceptions.RayError) as error:
                cause = getattr(error, "cause", None) or error
                failures.append(f"part {job.part}: {cause}")
                say(failures[-1])
            else:
                seconds = time.monotonic() - started
                say(f"part {job.part} is done after {seconds:.0f} s: {added} rows")
    except BaseException:
        for reference in waiting:
            ray.cancel(reference)
        if waiting:
            ray.wait(list(waiting), num_returns=len(waiting), timeout=STOP_SECONDS)
        raise
    if failures:
        raise UserError(f"{len(failures)} parts failed, see above; the same command goes on")
    return list(folders)


def _join(files: Mapping[str, bytes], output_dir: Path, folders: dict[Path, None]) -> int:
    """Add a part's rows to the ledgers under ``output_dir``; notes the folders."""
    added = 0
    with tempfile.TemporaryDirectory() as scratch:
        for name, content in files.items():
            path = Path(scratch, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        for name in files:
            if Path(name).name != SPEC:
                into = output_dir / Path(name).parent
                added += merge_ledgers([Path(scratch, name)], into).added
                folders[into] = None
    return added


def _ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise UserError("Ray is an extra: pip install 'distill_jax[ray]'") from error
    return ray


def _connect(ray: Any, address: str | None) -> None:
    address = address or os.environ.get("RAY_ADDRESS")
    for tries_left in reversed(range(1 if address else STARTS)):
        try:
            ray.init(
                address=address, include_dashboard=False, log_to_driver=False, logging_level="ERROR"
            )
            return
        except Exception as error:  # Ray raises many kinds, the bare one among them
            ray.shutdown()
            if not tries_left:
                where = f"the Ray cluster at {address}" if address else "a Ray on this machine"
                raise UserError(f"cannot reach {where}: {first_line(error)}") from error


def _die_with_parent() -> None:
    """A worker that is killed takes its process along: Ray starts the part again elsewhere."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
