"""Servers for tests: an export in small that needs no runtime, applications in this process."""

import asyncio
import contextlib
import dataclasses
import signal
import socket
import subprocess
import sys
import threading
import types

import httpx
import numpy as np
from toys import SPECIAL, WORDS

from distill_jax.evaluation.task_file import TaskFile
from distill_jax.serving.model import of_export
from distill_jax.serving.server import address_of, server_for
from distill_jax.tasks.kinds.kinds import kind_named

LONGEST = 12
HAND_ON = (
    "import os; os.dup2({}, 3); os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='1'); "
)
"""Before the command: hands a socket on as systemd does."""
COMMAND = "from distill_jax.cli import main; main()"


def small_logits(input_ids_BT, token_type_ids_BT, attention_mask_BT):
    """Two classes; what stands where, which text it is of, and how much there is, all count."""
    given = (input_ids_BT, token_type_ids_BT, attention_mask_BT)
    assert {x.dtype for x in given} == {np.dtype(np.int64)} and input_ids_BT.shape[1] <= LONGEST
    place_T = np.arange(1, input_ids_BT.shape[1] + 1)
    values_BT = np.sin(input_ids_BT * place_T[None] * 1.7 + 3 * token_type_ids_BT)
    sum_B = (values_BT * attention_mask_BT).sum(1)
    return np.stack([sum_B, -sum_B / attention_mask_BT.sum(1)], axis=1).astype(np.float32)


def small_export(tokenizer_file, logits=small_logits, **manifest):
    """What ``of_export`` makes of an export in memory; keywords replace what its manifest says."""
    about = {
        "format": "onnx",
        "task": "classification",
        "label_names": ("neg", "pos"),
        "max_length": LONGEST,
        "pairs": False,
        "temperature": 2.0,
        "source": {"run": "0123456789abcdef"},
    }
    export = types.SimpleNamespace(
        folder=tokenizer_file.parent,
        manifest=types.SimpleNamespace(**(about | manifest)),
        tokenizer_file=tokenizer_file,
        logits=logits,
    )
    return of_export(export)


TAGS = ("O", "B-praise", "I-praise")


def small_tagger(tokenizer_file, **manifest):
    """As ``small_export``: "good" begins an entity, and "film" goes on with it."""

    def logits(input_ids_BT, token_type_ids_BT, attention_mask_BT):
        is_film, is_good = (input_ids_BT == number_of(word) for word in ("film", "good"))
        return np.eye(3, dtype=np.float32)[is_good + 2 * is_film]

    return small_task("tags", {"tags": list(TAGS)}, TAGS, tokenizer_file, logits, **manifest)


def small_answerer(tokenizer_file, **manifest):
    """As ``small_export``: the answer is the last "plot" of the context; there may be none."""

    def logits(input_ids_BT, token_type_ids_BT, attention_mask_BT):
        is_plot_BT = (input_ids_BT == number_of("plot")) & (token_type_ids_BT == 1)
        said_BT = is_plot_BT * np.arange(1, input_ids_BT.shape[1] + 1)
        said_BT[:, 0] = 1  # no answer
        return np.stack([said_BT, said_BT], axis=-1).astype(np.float32)

    saved = {"unanswerable": True, "null_threshold": 0.0}
    about = {"pairs": True, "max_length": 24} | manifest
    return small_task("spans", saved, ("start", "end"), tokenizer_file, logits, **about)


def small_task(task, saved, outputs, tokenizer_file, logits, **manifest):
    """As ``small_export``, of another task than classes."""
    served = small_export(tokenizer_file, logits, label_names=outputs, **manifest)
    form = kind_named(task).form(saved, outputs, tokenizer_file)
    opened = dataclasses.replace(served.opened, form=form, task=TaskFile(task, saved))
    return dataclasses.replace(served, opened=opened)


def number_of(word):
    """Of a word's token in the toy tokeniser."""
    return [*SPECIAL, *WORDS].index(word)


def talk(app, conversation, **options):
    """``await conversation(client)`` with an application that was started as servers start it."""

    async def run():
        transport = httpx.ASGITransport(app)
        address = {"base_url": "http://localhost"} | options
        client = httpx.AsyncClient(transport=transport, **address)
        async with app.router.lifespan_context(app), client:
            return await conversation(client)

    return asyncio.run(run())


def ask(app, body, **options):
    """The response to one request to /predict."""
    return talk(app, lambda client: client.post("/predict", **as_body(body), **options))


def as_body(body):
    """Bytes and text as they are, said to be JSON; all else as JSON."""
    if isinstance(body, bytes | str):
        return {"content": body, "headers": {"content-type": "application/json"}}
    return {"json": body}


@contextlib.contextmanager
def listening(app, settings):
    """An application on a port of the loopback, in a thread; gives its server and its address."""
    server = server_for(app, settings)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            while not server.started:
                thread.join(0.01)
                assert thread.is_alive()
            yield server, address_of(listener)
        finally:
            server.should_exit = True
            thread.join(30)
            assert not thread.is_alive()


class Line:
    """A connection on which bytes are sent as they are."""

    def __init__(self, address):
        host, port = address.removeprefix("http://").split(":")
        self.socket = socket.create_connection((host, int(port)), timeout=20)

    def send(self, data):
        self.socket.sendall(data)
        return self

    def until_closed(self):
        """What comes until the other side ends; a reset ends it too."""
        received = b""
        with contextlib.suppress(ConnectionError):
            while data := self.socket.recv(65536):
                received += data
        self.socket.close()
        return received


def statuses(received):
    """Of the responses in what was received, as far as there is one a line."""
    heads = [line for line in received.split(b"\r\n") if b"HTTP/1.1 " in line]
    return [int(head.partition(b"HTTP/1.1 ")[2][:3]) for head in heads]


class Process:
    """``distill-jax serve`` in a process of its own; ``errors`` is what it said."""

    def __init__(self, *arguments, environment, listener=None):
        handed = "" if listener is None else HAND_ON.format(listener.fileno())
        self.process = subprocess.Popen(
            [sys.executable, "-c", handed + COMMAND, "serve", *map(str, arguments)],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
            pass_fds=[] if listener is None else [listener.fileno()],
        )
        self.errors, self.address = "", ""
        while not self.address:
            line = self.process.stderr.readline()
            assert line, self.errors
            self.errors += line
            self.address = line.partition(" at ")[2].partition(" ")[0]

    def stop(self, signal=signal.SIGTERM):
        self.process.send_signal(signal)

    def end(self):
        """Wait for the end; the exit code and the last line."""
        _, errors = self.process.communicate(timeout=60)
        self.errors += errors
        return self.process.returncode, self.errors.splitlines()[-1]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
            self.process.communicate()
