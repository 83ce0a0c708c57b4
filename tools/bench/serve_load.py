"""Callers of a server: many at a time, badly behaved ones, and some that live through a restart."""

import asyncio
import contextlib
import itertools
import json
import re
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

RETRY_SECONDS = 0.02
"""Between two attempts to connect to a server that is not there."""


@dataclass(frozen=True)
class Address:
    """Where a server listens."""

    host: str
    port: int


class Connection:
    """One connection of HTTP/1.1, opened when it is needed."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def open(self) -> None:
        """Connect, where it is not.

        Raises:
          OSError: nobody listens.
        """
        if self._streams is None:
            address = self._address
            self._streams = await asyncio.open_connection(address.host, address.port)

    async def ask(self, request: bytes) -> int:
        """Send some bytes; the status of the response.

        Raises:
          OSError: nobody listens, or the connection ended without a response.
        """
        await self.open()
        assert self._streams is not None
        reader, writer = self._streams
        try:
            writer.write(request)
            await writer.drain()
            return await self._response(reader)
        except asyncio.IncompleteReadError as error:
            self.close()
            raise ConnectionResetError("closed without a response") from error
        except OSError:
            self.close()
            raise

    async def _response(self, reader: asyncio.StreamReader) -> int:
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = re.search(rb"\r\ncontent-length: (\d+)", head)
        await reader.readexactly(int(length[1]) if length else 0)
        if b"\r\nconnection: close" in head:
            self.close()
        return int(head.split(b" ", 2)[1])

    def close(self) -> None:
        """Leave; the next request connects anew."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


def request_of(texts: Sequence[str]) -> bytes:
    """A request to /predict, as bytes."""
    return with_body(json.dumps({"texts": list(texts)}).encode())


def with_body(body: bytes) -> bytes:
    """A request to /predict with this body, whatever it is."""
    return (
        b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n" % len(body) + body
    )


@dataclass
class Loaded:
    """What callers saw.

    Attributes:
      latencies: seconds of every request that was answered with 200.
      statuses: of all answers.
      seconds: that it took.
    """

    latencies: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    seconds: float = 0.0


async def load(
    address: Address,
    requests: Sequence[bytes],
    *,
    connections: int,
    seconds: float,
    meanwhile: Callable[[], "asyncio.Future[None] | None"] = lambda: None,
) -> Loaded:
    """Ask again and again on so many connections, one request after the other on each.

    Args:
      meanwhile: started with it; it ends when this does, if seconds are over.
    """
    seen, turn = Loaded(), itertools.cycle(requests)
    start = time.perf_counter()

    async def caller() -> None:
        connection = Connection(address)
        while time.perf_counter() < start + seconds:
            before = time.perf_counter()
            status = await connection.ask(next(turn))
            seen.statuses[status] += 1
            if status == 200:
                seen.latencies.append(time.perf_counter() - before)
        connection.close()

    callers = [caller() for _ in range(connections)]
    beside = meanwhile()
    await asyncio.gather(*callers, *([beside] if beside else []))
    seen.seconds = time.perf_counter() - start
    return seen


@dataclass
class Restarted:
    """What callers saw of a restart.

    Attributes:
      answered: requests that got their answer.
      refused: attempts to connect while nobody listened.
      unanswered: requests that were sent on a connection which ended without an answer; sent anew.
      lost: requests that nobody answered in the end.
      longest: seconds from a request's first attempt to its answer.
    """

    answered: int = 0
    refused: int = 0
    unanswered: int = 0
    lost: int = 0
    longest: float = 0.0


async def through_a_restart(
    address: Address,
    requests: Sequence[bytes],
    *,
    connections: int,
    over: Callable[[], bool],
) -> Restarted:
    """Callers that try anew where a connection fails, until it is over."""
    seen, turn = Restarted(), itertools.cycle(requests)

    async def caller() -> None:
        connection = Connection(address)
        while not over():
            request, start, status = next(turn), time.perf_counter(), 0
            while status != 200 and time.perf_counter() < start + 60:
                try:
                    await connection.open()
                except OSError:
                    seen.refused += 1
                    await asyncio.sleep(RETRY_SECONDS)
                    continue
                try:
                    status = await connection.ask(request)
                except OSError:
                    seen.unanswered += 1
            if status == 200:
                seen.answered += 1
            else:
                seen.lost += 1
            seen.longest = max(seen.longest, time.perf_counter() - start)
        connection.close()

    await asyncio.gather(*(caller() for _ in range(connections)))
    return seen


def bad_requests(max_bytes: int) -> dict[str, bytes]:
    """Requests that get no answer, by what is wrong with them."""
    head = with_body(b"").replace(b"Content-Length: 0\r\n\r\n", b"")
    piece = b"4000\r\n" + 0x4000 * b" " + b"\r\n"
    chunks = piece * (max_bytes // 0x4000 + 2) + b"0\r\n\r\n"
    return {
        "no JSON": with_body(b"{nonsense"),
        "wrong type": with_body(b'{"texts": [3]}'),
        "nested 100,000 deep": with_body(b'{"text": ' + 100_000 * b"["),
        "half a surrogate pair": with_body(b'{"text": "\\ud800"}'),
        "1 byte too large": with_body((max_bytes + 1) * b" "),
        "too large, no length": head + b"Transfer-Encoding: chunked\r\n\r\n" + chunks,
        "said to be 10 GB": head + b"Content-Length: 10000000000\r\n\r\n",
        "two lengths": head + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "body does not come": head + b"Content-Length: 100\r\n\r\n{",
        "headers do not come": head,
    }


async def misbehave(address: Address, bad: bytes, times: int) -> Counter[str]:
    """Send it on so many connections at once; what came of it."""

    async def once() -> str:
        connection = Connection(address)
        try:
            return str(await asyncio.wait_for(connection.ask(bad), 60))
        except TimeoutError:
            return "nothing in 60 s"
        except OSError:
            return "closed"
        finally:
            with contextlib.suppress(OSError):
                connection.close()

    return Counter(await asyncio.gather(*(once() for _ in range(times))))
