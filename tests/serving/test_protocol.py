"""Over real connections: clients that are slow, that lie about lengths, that never read."""

import contextlib
import json
import socket
import time

import numpy as np
import pytest
from served import Line, listening, small_export, small_logits, statuses

from distill_jax.serving.app import create_app
from distill_jax.serving.settings import Settings

BODY = json.dumps({"text": "good film"}).encode()
HEAD = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
GOOD = HEAD + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY
LAST = GOOD.replace(b"\r\n", b"\r\nConnection: close\r\n", 1)
SETTINGS = Settings(
    max_bytes=50_000,
    max_connections=8,
    read_seconds=0.5,
    write_seconds=0.5,
    idle_seconds=1.0,
    drain_seconds=0.0,
)


@pytest.fixture(scope="module")
def small(toy_teacher):
    return small_export(toy_teacher / "tokenizer.json")


@pytest.fixture(scope="module")
def address(small):
    with listening(create_app(small, SETTINGS), SETTINGS) as (_, address):
        yield address


def seconds_until_closed(line):
    start = time.monotonic()
    received = line.until_closed()
    return time.monotonic() - start, received


def test_requests_follow_each_other_on_one_connection(address):
    received = Line(address).send(GOOD + GOOD + LAST).until_closed()
    assert statuses(received) == [200, 200, 200]


@pytest.mark.parametrize("sent", [b"", b"POST /pre", HEAD])
def test_headers_that_do_not_come_end_the_connection(address, sent):
    seconds, received = seconds_until_closed(Line(address).send(sent))
    assert 0.3 < seconds < 5 and received == b""


def test_headers_that_come_byte_by_byte_are_not_waited_for(address):
    line, start = Line(address), time.monotonic()
    with pytest.raises(OSError):
        for byte in 200 * HEAD:
            line.send(bytes([byte]))
            time.sleep(0.02)
    assert time.monotonic() - start < 5


def test_after_an_answer_headers_have_their_time_too(address):
    line = Line(address).send(GOOD + b"POST /predict HT")
    seconds, received = seconds_until_closed(line)
    assert statuses(received) == [200] and seconds < 5


def test_a_body_that_does_not_come_is_told_and_the_connection_ends(address):
    line = Line(address).send(HEAD + b"Content-Length: 40\r\n\r\n{")
    seconds, received = seconds_until_closed(line)
    assert statuses(received) == [408] and 0.3 < seconds < 8


def test_a_connection_without_requests_ends(address):
    seconds, received = seconds_until_closed(Line(address).send(GOOD))
    assert statuses(received) == [200] and 0.8 < seconds < 6


def test_a_body_without_end_is_answered_early(address):
    line = Line(address).send(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
    piece = b"2000\r\n" + 0x2000 * b" " + b"\r\n"
    sent = 0
    line.socket.settimeout(0.2)
    answer = b""
    with pytest.raises(OSError) as end:
        while sent < 100 << 20:
            line.send(piece)
            sent += len(piece)
            if not answer and sent > 100_000:
                try:
                    answer = line.socket.recv(65536)
                except TimeoutError:
                    continue
    assert statuses(answer) == [413] and sent < 64 << 20, end


def test_a_large_body_is_refused_by_its_length_alone(address):
    line = Line(address).send(HEAD + b"Content-Length: 5000000000\r\n\r\n")
    line.socket.settimeout(5)
    assert statuses(line.socket.recv(65536)) == [413]


def test_who_asks_first_is_not_told_to_go_on_with_too_much(address):
    asked = HEAD + b"Expect: 100-continue\r\nContent-Length: 60000\r\n\r\n"
    line = Line(address).send(asked)
    line.socket.settimeout(5)
    assert statuses(line.socket.recv(65536)) == [413]
    fine = HEAD + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(BODY)
    line = Line(address).send(fine)
    assert statuses(line.socket.recv(65536)) == [100]
    assert statuses(line.send(BODY).socket.recv(65536)) == [200]


@pytest.mark.parametrize(
    "headers",
    [
        b"Content-Length: 26\r\nTransfer-Encoding: chunked\r\n",
        b"Content-Length: 26\r\nContent-Length: 27\r\n",
        b"Content-Length: -1\r\n",
        b"Content-Length: 0x1a\r\n",
        b"Content-Length: 2 6\r\n",
        b"Transfer-Encoding: gzip, chunked\r\n",
        b"Transfer-Encoding: xchunked\r\n",
        b"Content-Length : 26\r\n",
        b"Host: other\r\nContent-Length: 26\r\n",
        b"X: a\x00b\r\n",
    ],
)
def test_what_two_servers_could_read_in_two_ways_is_refused(address, headers):
    hidden = b"0\r\n\r\nGET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"
    received = Line(address).send(HEAD + headers + b"\r\n" + hidden).until_closed()
    (status,) = statuses(received)
    assert status in (400, 501), received


def test_headers_without_end_are_refused(address):
    line = Line(address)
    with contextlib.suppress(ConnectionError):
        line.send(HEAD + b"X: " + 2_000_000 * b"a")
    assert statuses(line.until_closed()) in ([400], [])


def test_a_body_shorter_than_it_says_is_no_request(address):
    line = Line(address).send(HEAD + b"Content-Length: 400\r\n\r\n" + BODY)
    line.socket.shutdown(socket.SHUT_WR)
    assert statuses(line.until_closed()) in ([], [400], [408])


def test_line_ends_in_a_path_reach_no_header(address):
    path = b"/predict%0d%0aSet-Cookie:%20a=b"
    asked = b"GET " + path + b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    received = Line(address).send(asked).until_closed()
    assert statuses(received) == [404] and b"set-cookie" not in received.lower()


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET /\xff HTTP/1.1\r\nHost: localhost\r\n\r\n", [400]),
        (b"GET /ready HTTP/1.1\r\n\r\n", [400]),  # no Host
        (b"GET /ready\r\n\r\n", [400]),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc", [400]),  # TLS
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", [404, 400]),
        (b"CONNECT evil:443 HTTP/1.1\r\nHost: localhost\r\n\r\n", [404]),
        (b"GET http://evil/ready HTTP/1.1\r\nHost: localhost\r\n\r\n", [404]),
        (b"GET /%00/ready HTTP/1.1\r\nHost: localhost\r\n\r\n", [404]),
        (b"OPTIONS /predict HTTP/1.1\r\nHost: localhost\r\nOrigin: http://evil\r\n\r\n", [405]),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n", [400]),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFFFFFFFFF\r\n", [400]),
        (b"GET /ready HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
         b"Connection: Upgrade\r\n\r\n", [200]),
    ],
)  # fmt: skip
def test_what_is_no_request_of_ours_does_no_harm(address, sent, status):
    received = Line(address).send(sent).until_closed()
    assert statuses(received) == status and b"access-control" not in received.lower()
    assert statuses(Line(address).send(LAST).until_closed()) == [200]


def test_past_the_connections_requests_are_refused_and_room_comes_back(address):
    lines = [Line(address) for _ in range(12)]
    received = Line(address).send(LAST).until_closed()
    assert statuses(received) == [503]
    for line in lines:
        line.until_closed()
    assert statuses(Line(address).send(LAST).until_closed()) == [200]


def test_who_does_not_fetch_answers_is_left(toy_teacher):
    """Answers of many classes, asked for again and again, none of them read."""

    def wide(*arrays):
        return small_logits(*arrays)[:, :1] * sines[None]

    sines = np.sin(np.arange(300, dtype=np.float32))
    names = tuple(f"class {n:04}" for n in range(300))
    export = small_export(toy_teacher / "tokenizer.json", logits=wide, label_names=names)
    body = json.dumps({"texts": 64 * ["good"]}).encode()
    asked = HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body
    with listening(create_app(export, SETTINGS), SETTINGS) as (server, address):
        line = Line(address)
        line.socket.settimeout(0.2)
        start = time.monotonic()
        with pytest.raises(OSError):
            while time.monotonic() < start + 20:
                try:
                    line.send(asked)
                except TimeoutError:
                    if not server.server_state.connections:
                        raise ConnectionResetError from None
        assert not server.server_state.connections
