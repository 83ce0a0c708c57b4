"""Around everything: every answer is counted, and gets the headers that keep browsers careful."""

from __future__ import annotations

import time
from collections.abc import Callable

from distill_jax.serving.guard import App, Message, Receive, Send
from distill_jax.serving.metrics import Metrics

_CAREFUL = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
HEADERS = [(name.encode(), value.encode()) for name, value in _CAREFUL.items()]
CLOSE = (b"connection", b"close")


class Observer:
    """Counts, and asks callers to leave when the server is about to.

    Args:
      paths: that are counted by name; all others are ``other``.
      leaving: whether the server is to stop.
    """

    def __init__(
        self, app: App, metrics: Metrics, paths: frozenset[str], leaving: Callable[[], bool]
    ) -> None:
        self._app, self._metrics, self._paths, self._leaving = app, metrics, paths, leaving

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start = time.perf_counter()
        path = scope["path"] if scope["path"] in self._paths else "other"

        status = 0

        async def observed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = [*message.get("headers", ()), *HEADERS]
                if self._leaving() and CLOSE not in headers:
                    headers.append(CLOSE)
                message = {**message, "headers": headers}
            await send(message)
            if message["type"] == "http.response.body" and not message.get("more_body"):
                self._metrics.requests.labels(path, str(status)).inc()
                if path == "/predict":
                    self._metrics.seconds.observe(time.perf_counter() - start)

        await self._app(scope, receive, observed)
