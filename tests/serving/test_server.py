"""The command, in processes of its own: the same answers as predict, and an end without losses."""

import contextlib
import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import httpx
import numpy as np
import pytest
from served import COMMAND, Line, Process, ask, small_export, statuses

from distill_jax.cli.main import dispatch
from distill_jax.core.errors import UserError
from distill_jax.export.manifest import MANIFEST, read_manifest, write_manifest
from distill_jax.serving import server
from distill_jax.serving.model import Model, open_served
from distill_jax.serving.tokens import read_tokens

TEXTS = ["good film", "", "the plot was very bad and the music not good", "a zebra", "bad"]


@pytest.mark.parametrize("format", ["onnx", "onnx-int8"])
def test_answers_are_those_of_predict(exports, app_of, capsys, tmp_path, format):
    texts = [*TEXTS, " ".join(40 * ["good", "film"])]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in texts))
    dispatch(["predict", str(exports[format]), "--input", str(tmp_path / "in.jsonl"),
              "--format", "jsonl"])  # fmt: skip
    told = capsys.readouterr()
    predicted = [json.loads(line) for line in told.out.splitlines()]
    answers = ask(app_of(open_served(exports[format])), {"texts": texts}).json()["answers"]
    assert [answer and answer["label"] for answer in answers] == [p["predicted"] for p in predicted]
    for answer, said in zip(answers, predicted, strict=True):
        if answer is None:
            assert said["probabilities"] is None
            continue
        assert answer["probabilities"].keys() == said["probabilities"].keys()
        for name, probability in answer["probabilities"].items():
            assert probability == pytest.approx(said["probabilities"][name], abs=2e-6)
    assert [bool(answer and answer["truncated"]) for answer in answers] == 5 * [False] + [True]
    assert "are cut at" in told.err


@pytest.mark.parametrize("format", ["onnx", "onnx-int8"])
def test_who_shares_a_batch_changes_no_answer(exports, format):
    model = Model(open_served(exports[format]).opened, 32)
    words = ("the", "film", "is", "was", "good", "bad", "plot", "cast", "very", "not")
    rng = np.random.default_rng(0)
    texts = [(" ".join(rng.choice(words, size)),) for size in rng.integers(1, 40, 16)]
    together = np.stack([[*said.answer.probabilities.values()] for said in model(texts)])
    alone = np.stack([[*model([text])[0].answer.probabilities.values()] for text in texts])
    np.testing.assert_allclose(together, alone, atol=1e-6)
    assert (together.max(axis=0) - together.min(axis=0)).max() > 1e-3


@pytest.fixture
def start(exports, one_device):
    """Starts a server of the toy export in a process; flags as on the command line."""
    with contextlib.ExitStack() as stack:

        def go(*flags, listener=None):
            options = {"environment": one_device, "listener": listener}
            process = Process(exports["onnx"], "--port", 0, *flags, **options)
            return stack.enter_context(process)

        yield go


def wait_until_leaving(process):
    deadline = time.monotonic() + 10
    while httpx.get(f"{process.address}/ready").status_code != 503:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_signal_ends_it_when_all_is_answered(start):
    """Readiness goes first; callers are asked to leave; what was sent is answered."""
    process = start("--drain-seconds", 1, "--batch-wait-ms", 400)
    body = json.dumps({"text": "good film"}).encode()
    head = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    first = head + b"Content-Length: %d\r\n\r\n" % len(body)
    halves = [Line(process.address).send(first + body[:5]) for _ in range(4)]
    wholes = [Line(process.address).send(first + body) for _ in range(4)]
    assert httpx.get(f"{process.address}/ready").status_code == 200
    process.stop()
    wait_until_leaving(process)
    assert httpx.get(f"{process.address}/health").status_code == 200
    still = httpx.post(f"{process.address}/predict", json={"text": "bad"})
    assert still.status_code == 200 and still.headers["connection"] == "close"
    time.sleep(1.3)  # nothing new is taken any more
    with pytest.raises(OSError):
        Line(process.address)
    for half in halves:
        half.send(body[5:])
    for line in (*halves, *wholes):
        assert statuses(line.until_closed()) == [200]
    assert process.end() == (0, "stopped; 9 requests were answered")


def test_from_a_model_to_an_answer_as_a_new_user_would(toy_teacher, tmp_path, one_device):
    """Two commands and a request."""
    command = [sys.executable, "-c", COMMAND, "export", str(toy_teacher), "--format", "onnx"]
    done = subprocess.run(
        [*command, "--output", str(tmp_path / "student")],
        env=one_device,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    with Process(tmp_path / "student", "--port", 0, environment=one_device) as process:
        answer = httpx.post(f"{process.address}/predict", json={"text": "good film"}).json()
        assert answer["answers"][0]["label"] in ("a", "b")
        assert "<form" in httpx.get(process.address).text
        process.stop()
        assert process.end() == (0, "stopped; 1 requests were answered")


def test_what_compiles_is_noted_and_a_model_that_cannot_answer_is_told(
    toy_teacher, exports, tmp_path, monkeypatch
):
    monkeypatch.setattr(server.Server, "run", lambda self, sockets: None)
    dispatch(["export", str(toy_teacher), "--format", "stablehlo", "--output", str(tmp_path / "x")])
    said = []
    options = {"host": "127.0.0.1", "port": 0, "tokens": None, "hosts": (), "threads": 1}
    server.serve(tmp_path / "x", server.Settings(), say=said.append, **options)
    assert "stablehlo is compiled anew" in said[0]
    monkeypatch.setattr(Model, "__call__", lambda self, items: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        server.serve(exports["onnx"], server.Settings(), say=said.append, **options)


def test_a_model_that_cannot_tell_two_texts_apart_is_told(toy_teacher):
    served = small_export(toy_teacher / "tokenizer.json")
    Model(served.opened, 1).check(1)
    with pytest.raises(UserError, match="it was not made for pairs"):
        Model(served.opened, 1).check(2)


def test_a_socket_that_is_handed_on_outlives_its_servers(start):
    """Callers go on while one server ends and the next one starts: all get their answers."""
    told, refused, over = [], [], threading.Event()

    def call():
        with httpx.Client(base_url=address, timeout=60) as client:
            while not over.is_set():
                try:
                    told.append(client.post("/predict", json={"text": "good film"}).status_code)
                except httpx.ConnectError as error:
                    refused.append(error)
                except httpx.TransportError:
                    continue  # was idle when it was closed; nothing of it was taken

    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        old = start("--drain-seconds", 0.2, listener=listener)
        assert old.address == address
        callers = [threading.Thread(target=call) for _ in range(4)]
        for caller in callers:
            caller.start()
        deadline = time.monotonic() + 20
        while len(told) < 20 and time.monotonic() < deadline:
            time.sleep(0.01)
        old.stop(signal.SIGINT)
        code, last = old.end()
        before = len(told)
        new = start("--drain-seconds", 0, listener=listener)
        deadline = time.monotonic() + 20
        while len(told) < before + 20 and time.monotonic() < deadline:
            time.sleep(0.01)
        over.set()
        for caller in callers:
            caller.join(30)
        new.stop()
        assert (code, new.end()[0]) == (0, 0)
    assert len(told) >= before + 20 and set(told) == {200} and not refused
    answered = [int(line.split()[1]) for line in (last, new.errors.splitlines()[-1])]
    assert sum(answered) == len(told) and min(answered) > 0


def test_what_is_handed_on_must_be_a_listening_socket(exports, monkeypatch):
    monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
    monkeypatch.setenv("LISTEN_FDS", "2")
    assert "one socket is expected" in said_by(exports["onnx"])
    monkeypatch.setenv("LISTEN_FDS", "1")
    for kind, told in (
        (socket.socket(), "does not listen"),
        (socket.socket(socket.AF_UNIX), "does not listen"),
    ):
        with kind:
            monkeypatch.setattr(server, "FIRST_FD", os.dup(kind.fileno()))
            assert told in said_by(exports["onnx"])
    monkeypatch.setattr(server, "FIRST_FD", os.open(os.devnull, os.O_RDONLY))
    assert "is none" in said_by(exports["onnx"])


def test_another_signal_ends_the_step_that_it_finds(start):
    process = start("--drain-seconds", 60, "--read-seconds", 50)
    half = Line(process.address).send(
        b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Content-Length: 20\r\n\r\n{"
    )
    process.stop()
    wait_until_leaving(process)
    process.stop()  # it takes no connection any more, and waits for the body
    with pytest.raises(OSError):
        for _ in range(500):
            Line(process.address).socket.close()
            time.sleep(0.02)
    assert process.process.poll() is None
    process.stop()
    assert process.end()[1] == "stopped; 0 requests were answered"
    assert 200 not in statuses(half.until_closed())


def said_by(*arguments):
    with pytest.raises(UserError) as error:
        dispatch(["serve", *map(str, arguments)])
    return str(error.value)


def test_mistakes_are_told_in_a_line(exports, toy_teacher, tmp_path):
    assert "--threads is for exports" in said_by(toy_teacher, "--threads", 1, "--port", 0)
    manifest = dataclasses.replace(read_manifest(exports["onnx"]), task="recommendation")
    write_manifest(tmp_path, manifest)
    assert "is an export for recommendation; serve answers" in said_by(tmp_path, "--port", 0)
    (tmp_path / MANIFEST).unlink()
    assert "no model at" in said_by(tmp_path / "none")
    assert "holds no model: expected an export, or a finished run" in said_by(tmp_path, "--port", 0)
    assert "--max-queue 10 has no room" in said_by(exports["onnx"], "--max-queue", 10)
    assert "--read-seconds is 0" in said_by(exports["onnx"], "--read-seconds", 0)
    assert "--batch-wait-ms is nan" in said_by(exports["onnx"], "--batch-wait-ms", "nan")
    assert "cannot read tokens" in said_by(exports["onnx"], "--tokens", tmp_path / "none")
    assert "cannot listen at 203.0.113.1" in said_by(exports["onnx"], "--host", "203.0.113.1")
    assert "--port is 99999" in said_by(exports["onnx"], "--port", 99999)


def test_a_port_that_is_taken_is_told(exports):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        said = said_by(exports["onnx"], "--port", taken.getsockname()[1])
    assert "cannot listen" in said and "in use" in said


@pytest.mark.parametrize(
    ("host", "tokens", "warned"),
    [("127.0.0.1", False, False), ("0.0.0.0", False, True), ("0.0.0.0", True, False)],
)
def test_who_can_be_reached_from_elsewhere_is_warned(
    exports, tmp_path, monkeypatch, host, tokens, warned
):
    monkeypatch.setattr(server.Server, "run", lambda self, sockets: None)
    (tmp_path / "tokens").write_text("0123456789abcdef\n")
    said = []
    known = read_tokens(tmp_path / "tokens") if tokens else None
    server.serve(exports["onnx"], server.Settings(), host=host, port=0, tokens=known, hosts=(),
                 threads=1, say=said.append)  # fmt: skip
    assert any(line.startswith("warning") for line in said) == warned
    assert said[-1] == "stopped; 0 requests were answered"


def test_without_the_extra_it_says_how_to_get_it():
    """Help needs nothing of it."""
    program = (
        "import sys\nfor name in ('uvicorn', 'fastapi', 'prometheus_client'):\n"
        "    sys.modules[name] = None\nsys.argv = ['distill-jax', 'serve', *sys.argv[1:]]\n"
        f"{COMMAND}"
    )

    def run(*arguments):
        command = [sys.executable, "-c", program, *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=60)

    assert "--max-queue" in run("--help").stdout
    refused = run(".")
    assert refused.returncode == 2 and "pip install 'distill_jax[serve]'" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1
