"""Uvicorn's HTTP/1.1 with patience that ends: for headers, for answers that nobody fetches."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from uvicorn.protocols.http.h11_impl import H11Protocol

from distill_jax.serving.settings import Settings

_SPARE_CONNECTIONS = 64
"""Past the limit: they are told that there is no room; more than those are closed unheard."""


class PatientProtocol(H11Protocol):
    """A connection that is closed when a request's headers do not come in time.

    Uvicorn itself only ends connections that are idle between two requests. Bodies have their time
    in ``Guard``. Subclasses set ``settings``.
    """

    settings: Settings

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._headers_due: asyncio.TimerHandle | None = None
        self._fetch_due: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self.settings.max_connections + _SPARE_CONNECTIONS:
            transport.abort()
        else:
            self._watch_headers()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch_headers()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        _stop(self._headers_due)
        _stop(self._fetch_due)
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """More lies unfetched than fits: the client has a while to go on reading."""
        super().pause_writing()
        self._await_fetching()

    def resume_writing(self) -> None:
        super().resume_writing()
        _stop(self._fetch_due)

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        self._await_fetching()  # closing waits for what was not fetched

    def shutdown(self) -> None:
        super().shutdown()
        self._await_fetching()

    def _watch_headers(self) -> None:
        """From a request's first byte until its headers are there; no byte sets the time anew."""
        asked = self.cycle is not None and not self.cycle.response_complete
        idle = self.timeout_keep_alive_task is not None
        if asked or idle or self.transport.is_closing():
            _stop(self._headers_due)
            self._headers_due = None
        elif self._headers_due is None:
            seconds = self.settings.read_seconds
            self._headers_due = self.loop.call_later(seconds, self.transport.abort)

    def _await_fetching(self) -> None:
        _stop(self._fetch_due)
        seconds = self.settings.write_seconds
        self._fetch_due = self.loop.call_later(seconds, self.transport.abort)


def _stop(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()


def protocol_with(settings: Settings) -> type[asyncio.Protocol]:
    """The class of a server's connections."""
    made = type("Connection", (PatientProtocol,), {"settings": settings})
    return cast(type[asyncio.Protocol], made)
