"""Load, a restart and bad manners: what ``distill-jax serve`` does under each, on the loopback.

    python tools/bench/serve.py
    python tools/bench/serve.py EXPORT... --output experiments/results/bench

Callers and server share the machine. Without exports, students of random weights are exported:
what an answer costs does not hang on what it says. Texts are the movie reviews' test sentences.
"""

import asyncio
import contextlib
import dataclasses
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import serve_load
import tyro
from rich.console import Console
from serve_load import Address
from serve_page import page

from distill_jax.cli.main import dispatch
from distill_jax.cli.run import run
from distill_jax.core.errors import UserError
from distill_jax.core.files import write_atomic
from distill_jax.serving.settings import Settings
from distill_jax.tables.provenance import provenance

ROOT = Path(__file__).resolve().parents[2]
COMMAND = "from distill_jax.cli import main; main()"
HAND_ON = (
    "import os; os.dup2({}, 3); os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='1'); "
)
BUSY = 0.5
CONNECTIONS = (1, 8, 64)
MANY_TEXTS = 32
READ_SECONDS = 1.0
"""That slow clients get here, so that the bench need not wait for them long."""


@dataclass(frozen=True)
class Arguments:
    """Measures a server of exported students."""

    exports: Annotated[tuple[Path, ...], tyro.conf.Positional] = ()
    """Folders that distill-jax export wrote; by default ones of --students are made."""
    students: tuple[str, ...] = ("tiny", "l3")
    formats: tuple[str, ...] = ("onnx", "onnx-int8")
    seconds: float = 3.0
    """Of each load."""
    threads: int | None = None
    """Of the model, in the loads; by default what its runtime likes best."""
    bad: int = 20
    """Connections of each kind of bad manners."""
    tiny: bool = False
    """A toy model and a moment of each, to see that it runs."""
    output: Path = Path("experiments/results/bench")
    """A folder for serve.json and serve.md."""


@dataclass(frozen=True)
class Rate:
    """A load and what came of it; times in milliseconds."""

    model: str
    connections: int
    texts: int
    requests_per_second: float
    texts_per_second: float
    p50: float
    p99: float
    statuses: dict[str, int]


def main(args: Arguments) -> None:
    """Measure, print, write."""
    console, loaded = Console(), os.getloadavg()[0]
    if loaded > BUSY:
        console.print(f"warning: something else is running here (load {loaded:.1f})")
    seconds = 0.3 if args.tiny else args.seconds
    with tempfile.TemporaryDirectory() as scratch:
        exports = {each.name: each for each in args.exports} or made(args, Path(scratch))
        if len(exports) < len(args.exports):
            raise UserError("two exports have one name; rename a folder")
        texts = texts_of(args)
        flags = {} if args.threads is None else {"threads": args.threads}
        rates = [
            rate
            for name, export in exports.items()
            for rate in rates_of(name, export, texts, seconds, **flags)
        ]
        first = next(iter(exports.values()))
        restarts = {
            "one after the other": restarted(first, texts, seconds, handed_on=False),
            "the socket is handed on": restarted(first, texts, seconds, handed_on=True),
        }
        manners = bad_manners(first, texts, seconds, 3 if args.tiny else args.bad)
    results = {
        "machine": {**provenance(), "cores": os.cpu_count(), "load before": loaded},
        "seconds": seconds,
        "threads": args.threads,
        "rates": [dataclasses.asdict(rate) for rate in rates],
        "restarts": restarts,
        "bad manners": manners,
    }
    said = page(results)
    console.print(said, markup=False, highlight=False, soft_wrap=True)
    args.output.mkdir(parents=True, exist_ok=True)
    write_atomic(args.output / "serve.json", json.dumps(results, indent=1) + "\n")
    write_atomic(args.output / "serve.md", said)


def made(args: Arguments, scratch: Path) -> dict[str, Path]:
    """Exports of students of random weights, by name."""
    import jax

    from distill_jax.data.assets import fetch
    from distill_jax.models.bert import init_bert
    from distill_jax.models.huggingface import load_pretrained, save_pretrained
    from distill_jax.models.students import student_config

    if args.tiny:
        from tiny import make_world

        make_world(scratch)
        students, teacher = ("1x8x2",), scratch / "teacher/model"
    else:
        students, teacher = args.students, fetch("minilm-l6")
    loaded = load_pretrained(teacher, num_labels=2)
    found = {}
    for student in students:
        config = student_config(student, loaded.config)
        model = scratch / student
        params = init_bert(config, jax.random.key(0))
        save_pretrained(model, config, params, loaded.tokenizer_file, ("neg", "pos"))
        for format in args.formats:
            name = f"{student}, {format}"
            dispatch(["export", str(model), "--format", format, "--output", str(scratch / name)])
            found[name] = scratch / name
    return found


def texts_of(args: Arguments) -> list[str]:
    """Sentences to ask about."""
    if args.tiny:
        return ["the film is good", "very bad music", "the plot was not good and the cast was bad"]
    from distill_jax.data.load import load_dataset

    return list(load_dataset("review_snippets/movie").splits["test"].texts)


@contextlib.contextmanager
def serving(
    export: Path, port: int = 0, listener: socket.socket | None = None, **flags: float
) -> Iterator[tuple[Any, Address]]:
    """A server in a process of its own: the process and its address.

    Args:
      listener: is handed on, as systemd does it.
    """
    words = [f"--{name.replace('_', '-')}={value}" for name, value in flags.items()]
    handed = "" if listener is None else HAND_ON.format(listener.fileno())
    process = subprocess.Popen(
        [sys.executable, "-c", handed + COMMAND, "serve", str(export), f"--port={port}", *words],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
        pass_fds=[] if listener is None else [listener.fileno()],
    )
    try:
        line = process.stderr.readline()  # type: ignore[union-attr]
        if " at http://" not in line:
            raise UserError(f"the server did not start: {line}{process.communicate()[1]}")
        host, port = line.partition("http://")[2].split(" ")[0].split(":")  # type: ignore[assignment]
        yield process, Address(host, int(port))
        stop(process)
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def stop(process: Any) -> str:
    """Ask it to end, and wait; what it said last."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=60)[1]
    if process.returncode:
        raise UserError(f"the server ended with {process.returncode}: {said}")
    return said.strip()


def rates_of(
    name: str, export: Path, texts: Sequence[str], seconds: float, **flags: float
) -> Iterator[Rate]:
    """One text a request at every number of connections, then many texts a request."""
    single = [serve_load.request_of([text]) for text in texts]
    groups = [texts[n : n + MANY_TEXTS] for n in range(0, len(texts), MANY_TEXTS)]
    many = [serve_load.request_of(group) for group in groups[:-1] or groups]  # all as large
    with serving(export, drain_seconds=0, **flags) as (_, address):
        asyncio.run(serve_load.load(address, single, connections=4, seconds=seconds / 4))
        for connections in CONNECTIONS:
            yield rate_of(name, address, single, connections, 1, seconds)
        yield rate_of(name, address, many, 8, len(groups[0]), seconds)


def rate_of(
    name: str, address: Address, requests: list[bytes], connections: int, texts: int, seconds: float
) -> Rate:
    """Load for some seconds."""
    seen = asyncio.run(serve_load.load(address, requests, connections=connections, seconds=seconds))
    per_second = len(seen.latencies) / seen.seconds
    return Rate(
        name,
        connections,
        texts,
        per_second,
        texts * per_second,
        1000 * statistics.median(seen.latencies),
        1000 * float(np.percentile(seen.latencies, 99)),
        {str(status): count for status, count in sorted(seen.statuses.items())},
    )


def restarted(
    export: Path, texts: Sequence[str], seconds: float, *, handed_on: bool
) -> dict[str, Any]:
    """Eight callers; the server is stopped by SIGTERM, and another one takes its place.

    Args:
      handed_on: both take the same socket, as systemd hands it on, and the new one is there before
        the old one is stopped. Otherwise the new one is started when the old one has ended.
    """
    requests = [serve_load.request_of([text]) for text in texts]
    over = asyncio.Event()
    said: dict[str, str] = {}

    async def servers(started: asyncio.Future[Address]) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener, contextlib.ExitStack() as stack:
            address = Address(*listener.getsockname())
            if not handed_on:
                listener.close()

            async def start() -> Any:
                place = {"listener": listener} if handed_on else {"port": address.port}
                server = stack.enter_context
                return (await asyncio.to_thread(server, serving(export, **place)))[0]

            old = await start()
            started.set_result(address)
            await asyncio.sleep(seconds / 2)
            if handed_on:
                new = await start()
            said["old"] = await asyncio.to_thread(stop, old)
            if not handed_on:
                new = await start()
            await asyncio.sleep(seconds / 2)
            over.set()
            await calling
            said["new"] = await asyncio.to_thread(stop, new)

    async def callers(started: asyncio.Future[Address]) -> serve_load.Restarted:
        address = await started
        return await serve_load.through_a_restart(
            address, requests, connections=8, over=over.is_set
        )

    async def both() -> serve_load.Restarted:
        nonlocal calling
        started = asyncio.get_running_loop().create_future()
        calling = asyncio.create_task(callers(started))
        await servers(started)
        return await calling

    calling: asyncio.Task[serve_load.Restarted]
    seen = asyncio.run(both())
    own = {name: int(line.split("; ")[1].split(" ")[0]) for name, line in said.items()}
    return {**vars(seen), "answered by their own count": own}


def bad_manners(export: Path, texts: Sequence[str], seconds: float, times: int) -> list[Any]:
    """Eight good callers while others send what is refused: what came of it, and their p99."""
    requests = [serve_load.request_of([text]) for text in texts]
    rows = []
    with serving(export, drain_seconds=0, read_seconds=READ_SECONDS) as (_, address):

        async def beside(bad: bytes | None) -> tuple[dict[str, int], serve_load.Loaded]:
            good = asyncio.create_task(
                serve_load.load(address, requests, connections=8, seconds=seconds / 4)
            )
            came = await serve_load.misbehave(address, bad, times) if bad else {}
            return dict(came), await good

        asyncio.run(beside(None))
        kinds: dict[str, bytes | None] = {"nothing bad": None}
        for kind, bad in {**kinds, **serve_load.bad_requests(Settings().max_bytes)}.items():
            came, good = asyncio.run(beside(bad))
            rows.append(
                {
                    "kind": kind,
                    "came of it": came,
                    "good requests": len(good.latencies),
                    "good refused": sum(good.statuses.values()) - len(good.latencies),
                    "good p99": 1000 * float(np.percentile(good.latencies, 99)),
                }
            )
    return rows


if __name__ == "__main__":
    run(lambda: main(tyro.cli(Arguments, description=__doc__)))
