"""A model's server in this process, from the first request to the last answer."""

from __future__ import annotations

import ipaddress
import os
import socket
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from distill_jax.core.errors import UserError
from distill_jax.serving.settings import Settings

try:
    import uvicorn
    from fastapi import FastAPI

    from distill_jax.serving.app import create_app
    from distill_jax.serving.guard import LOOPBACK
    from distill_jax.serving.model import JAX, Model, open_served
    from distill_jax.serving.protocol import protocol_with
    from distill_jax.serving.tokens import Tokens
except ModuleNotFoundError as error:
    raise UserError(
        f"serving needs {error.name}, which is not installed: pip install 'distill_jax[serve]'"
    ) from error

if TYPE_CHECKING:
    from distill_jax.serving.app import Service


FIRST_FD = 3
"""Number of the first file that is handed on."""


class Server(uvicorn.Server):
    """Stops in three steps: /ready says no; nothing new is taken; what was taken is answered.

    Another signal ends the step that it finds it in.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        service: Service,
        drain_seconds: float,
        on_start: Callable[[], object] = lambda: None,
    ) -> None:
        super().__init__(config)
        self._service, self._drain_seconds, self._on_start = service, drain_seconds, on_start
        self._told: float | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Called once; connections are taken, and signals heard, when it ends."""
        await super().startup(sockets)
        self._on_start()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Called on SIGTERM and SIGINT."""
        if self.should_exit:
            self.force_exit = True
        elif self._told is not None:
            self.should_exit = True
        else:
            self._told = time.monotonic()
            self._service.leaving = True

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second: whether to stop taking connections."""
        if self._told is not None and time.monotonic() >= self._told + self._drain_seconds:
            self.should_exit = True
        return await super().on_tick(counter)


def serve(
    folder: Path,
    settings: Settings,
    *,
    host: str,
    port: int,
    tokens: Tokens | None,
    hosts: Iterable[str],
    threads: int | None,
    say: Callable[[str], object],
) -> None:
    """Serve an export, or a run, until a signal says to stop.

    A listening socket that systemd hands on is taken instead of an address.

    Args:
      port: 0 for any that is free.
      hosts: names that a request may ask for beside those of the loopback; where none is given
        and the server is not bound to the loopback, any.
      threads: of the model; None for what its runtime likes best.
      say: called with lines for people.

    Raises:
      UserError: for a folder without a model of texts, or an address that is not to be had.
    """
    listener = _listener(host, port)
    with listener:
        local = _is_loopback(listener)
        if not local and tokens is None:
            say(
                f"warning: {host} can be reached from elsewhere and anybody may ask (--tokens FILE)"
            )
        names = {*LOOPBACK, *(name.lower() for name in hosts)} if local or hosts else None
        served = open_served(folder, threads=threads)
        if served.opened.runtime.shape_price:
            what = "a run" if served.format == JAX else served.format
            say(f"note: {what} is compiled anew for new batches; an export to onnx is not")
        Model(served.opened, 1).check(len(served.columns))
        app = create_app(served, settings, tokens=tokens, hosts=names)
        line = f"serving {folder} at {address_of(listener)} (Ctrl-C stops)"
        server_for(app, settings, lambda: say(line)).run(sockets=[listener])
    say(f"stopped; {app.state.service.metrics.answered()} requests were answered")


def server_for(
    app: FastAPI, settings: Settings, on_start: Callable[[], object] = lambda: None
) -> Server:
    """Uvicorn for an application of ``create_app``, with the patience of the settings.

    Args:
      on_start: called when connections are taken.
    """
    config = uvicorn.Config(
        app,
        http=protocol_with(settings),
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        limit_concurrency=settings.max_connections,
        timeout_keep_alive=settings.idle_seconds,  # type: ignore[arg-type]  # a fraction will do
        timeout_graceful_shutdown=settings.stop_seconds,  # type: ignore[arg-type]
    )
    return Server(config, app.state.service, settings.drain_seconds, on_start)


def _listener(host: str, port: int) -> socket.socket:
    """The socket that was handed on, or one of its own."""
    if os.environ.get("LISTEN_PID") == str(os.getpid()):
        return _handed_on()
    if not 0 <= port < 1 << 16:  # the library would take it modulo that
        raise UserError(f"--port is {port}; expected 0 to 65535")
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, address = found[0]
        return socket.create_server(address[:2], family=family, backlog=2048)
    except (OSError, OverflowError, UnicodeError) as error:
        raise UserError(f"cannot listen at {host} port {port}: {error}") from error


def _handed_on() -> socket.socket:
    """What systemd, or whoever speaks as it does (sd_listen_fds(3)), holds open over restarts."""
    if os.environ.get("LISTEN_FDS") != "1":
        raise UserError(f"LISTEN_FDS is {os.environ.get('LISTEN_FDS')}; one socket is expected")
    try:
        listener = socket.socket(fileno=FIRST_FD)
        listens = listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError as error:
        raise UserError(f"the socket that was handed on is none: {error}") from error
    if not listens or listener.family not in (socket.AF_INET, socket.AF_INET6):
        raise UserError("the socket that was handed on does not listen at an address of TCP")
    return listener


def _is_loopback(listener: socket.socket) -> bool:
    return ipaddress.ip_address(_bound(listener)[0].partition("%")[0]).is_loopback


def address_of(listener: socket.socket) -> str:
    """Where a socket listens, as a URL."""
    host, port = _bound(listener)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _bound(listener: socket.socket) -> tuple[str, int]:
    name: Any = listener.getsockname()
    return name[0], name[1]
