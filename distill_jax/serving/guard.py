"""What stands before the application: who may call, how large a body is, how long it may take.

Plain ASGI. A request that is refused here has cost the reading of its headers, and its body is not
kept.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

from distill_jax.serving.settings import Settings
from distill_jax.serving.tokens import Tokens

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

OPEN = frozenset({"/", "/page.css", "/page.js", "/docs", "/openapi.json", "/health", "/ready"})
"""Paths that want no token: they tell nothing of what callers ask."""
LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]"})
_LINGER_SECONDS, _LINGER_BYTES = 2.0, 8 << 20
"""A refused body is read and dropped as long: who closes at once may destroy the answer that is on
its way (RFC 9112, 9.6)."""


class Guard:
    """Lets through what may come in, its body read and whole.

    Args:
      tokens: of the callers; None where anybody may call.
      hosts: names that a request may ask for; None for any.
    """

    def __init__(
        self, app: App, settings: Settings, tokens: Tokens | None, hosts: Iterable[str] | None
    ) -> None:
        self._app, self._settings, self._tokens = app, settings, tokens
        self._hosts = None if hosts is None else frozenset(hosts)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        refusal = self._refusal(scope)
        if refusal is None:
            try:
                async with asyncio.timeout(self._settings.read_seconds):
                    body = await self._body(receive)
            except TimeoutError:
                seconds = f"{self._settings.read_seconds:g} s"
                refusal = 408, f"the body did not come within {seconds}", {}
            else:
                if body is None:
                    return  # the caller has gone
                if len(body) <= self._settings.max_bytes:
                    await self._app(scope, _replayed(body, receive), send)
                    return
                refusal = self._too_large()
        await _refuse(receive, send, *refusal, linger=_has_body(scope))

    def _refusal(self, scope: Message) -> tuple[int, str, dict[str, str]] | None:
        """Why a request is not let in, from its headers alone."""
        headers: dict[bytes, list[bytes]] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name.lower(), []).append(value)
        if b"transfer-encoding" in headers and b"content-length" in headers:
            return 400, "both Content-Length and Transfer-Encoding: which is it?", {}
        host = headers.get(b"host", [b""])[0].decode("latin-1")
        if self._hosts is not None and _name_of(host) not in self._hosts:
            return 421, "this server does not answer under that name (--hosts)", {}
        if self._tokens is not None and scope["path"] not in OPEN:
            given = headers.get(b"authorization", [])
            if len(given) != 1 or not self._tokens.allow(given[0]):
                said = "a token is needed: Authorization: Bearer TOKEN"
                return 401, said, {"www-authenticate": "Bearer"}
        length = headers.get(b"content-length", [b"0"])[0]
        if not length.isdigit() or len(length) > 18 or int(length) > self._settings.max_bytes:
            return self._too_large()
        return None

    def _too_large(self) -> tuple[int, str, dict[str, str]]:
        return 413, f"a body may have {self._settings.max_bytes} bytes at most", {}

    async def _body(self, receive: Receive) -> bytes | None:
        """The body, read no further than one piece past the limit; None where the caller left."""
        pieces: list[bytes] = []
        size, more = 0, True
        while more and size <= self._settings.max_bytes:
            message = await receive()
            if message["type"] != "http.request":
                return None
            pieces.append(message.get("body", b""))
            size += len(pieces[-1])
            more = message.get("more_body", False)
        return b"".join(pieces)


def _name_of(host: str) -> str:
    """A header ``Host`` without its port, in lower case."""
    return re.sub(r":\d*$", "", host).lower().rstrip(".")


def _has_body(scope: Message) -> bool:
    names = {name.lower() for name, _ in scope["headers"]}
    return bool(names & {b"content-length", b"transfer-encoding"})


def _replayed(body: bytes, receive: Receive) -> Receive:
    """Gives the body once, then what the server has to say."""
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


async def _refuse(
    receive: Receive, send: Send, status: int, said: str, more: dict[str, str], *, linger: bool
) -> None:
    """Answer at once and close; what is still coming is dropped for a while before."""
    body = json.dumps({"detail": said}).encode()
    named = {
        "content-type": "application/json",
        "content-length": str(len(body)),
        "connection": "close",
        **more,
    }
    headers = [(name.encode(), value.encode()) for name, value in named.items()]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": linger})
    if linger:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LINGER_SECONDS):
                await _drop(receive)
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _drop(receive: Receive) -> None:
    dropped, more = 0, True
    while more and dropped < _LINGER_BYTES:
        message = await receive()
        dropped += len(message.get("body", b""))
        more = message.get("more_body", False)
