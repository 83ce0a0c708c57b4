"""The application: one model, asked over HTTP."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Coroutine, Iterable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response

from distill_jax.core.errors import UserError
from distill_jax.core.version import VERSION
from distill_jax.serving import pages
from distill_jax.serving.batcher import Batcher, QueueFull, Stopped
from distill_jax.serving.guard import Guard
from distill_jax.serving.messages import (
    Problem,
    Requests,
    answer_of,
    answers_model,
    requests_of,
)
from distill_jax.serving.metrics import Metrics
from distill_jax.serving.model import Model, Said, Served, Texts
from distill_jax.serving.observer import Observer
from distill_jax.serving.settings import Settings
from distill_jax.serving.tokens import Tokens

GONE = 499
"""Counted where a caller did not wait for the answer; as nginx numbers it."""
Answered = TypeVar("Answered")
_LOG = logging.getLogger("distill_jax.serving")
PATHS = frozenset({"/", "/predict", "/health", "/ready", "/metrics", "/docs", "/openapi.json"})
_REFUSALS: dict[int | str, dict[str, Any]] = {
    400: {"model": Problem, "description": "headers that could be read in two ways"},
    401: {"model": Problem, "description": "no token, or one that is not known"},
    408: {"model": Problem, "description": "the body took too long"},
    413: {"model": Problem, "description": "the body is too large"},
    415: {"model": Problem, "description": "the body is not said to be JSON"},
    421: {"model": Problem, "description": "a name that the server does not answer under"},
    422: {"model": Problem, "description": "the body is not what is expected; says why"},
    429: {"model": Problem, "description": "too much is waiting; Retry-After says when to return"},
    500: {"model": Problem, "description": "the model failed"},
    503: {"model": Problem, "description": "the server is about to stop"},
}


@dataclass
class Service:
    """A served model: what its routes share.

    Attributes:
      leaving: whether it was told to stop; it still answers, and /ready says no.
    """

    served: Served
    requests: Requests
    batcher: Batcher[Texts, Said]
    metrics: Metrics
    leaving: bool = False
    runner: asyncio.Task[None] | None = field(default=None, repr=False)

    @property
    def alive(self) -> bool:
        """Whether batches are being computed."""
        return self.runner is not None and not self.runner.done()

    async def predict(self, items: list[Texts], *, raw: bool) -> list[dict[str, Any] | None]:
        """The answer for each, None for blank ones."""
        rows = [row for row, texts in enumerate(items) if any(text.strip() for text in texts)]
        rows.sort(key=lambda row: sum(map(len, items[row])))  # batches of like lengths pad less
        said = await self.batcher.submit([items[row] for row in rows])
        form = self.served.form
        watched = [form.watched(each.answer) for each in said]
        cut = sum(each.cut for each in said)
        self.metrics.answers(watched, cut=cut, blank=len(items) - len(rows))
        answers: list[dict[str, Any] | None] = [None] * len(items)
        for row, each in zip(rows, said, strict=True):
            answers[row] = answer_of(form, each.raw if raw else each.answer, cut=each.cut)
        return answers


def create_app(
    served: Served,
    settings: Settings | None = None,
    *,
    tokens: Tokens | None = None,
    hosts: Iterable[str] | None = None,
) -> FastAPI:
    """The ASGI application; its ``state.service`` is the ``Service``.

    Args:
      tokens: of the callers; None where anybody may call.
      hosts: names that a request may ask for; None for any.
    """
    settings = settings or Settings()
    service = _service(served, settings)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        service.runner = asyncio.create_task(service.batcher.run())
        yield
        service.batcher.close()
        await asyncio.wait({service.runner})

    app = FastAPI(
        title="distill_jax",
        summary="What a distilled model says of texts.",
        version=VERSION,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.service = service
    _add_predict(app, service)
    _add_states(app, service)
    _add_pages(app, service)
    app.add_middleware(Guard, settings=settings, tokens=tokens, hosts=hosts)
    app.add_middleware(
        Observer, metrics=service.metrics, paths=PATHS, leaving=lambda: service.leaving
    )
    return app


def _service(served: Served, settings: Settings) -> Service:
    metrics = Metrics(served)
    batcher = Batcher(
        Model(served.opened, settings.max_batch, metrics.words),
        most=settings.max_batch,
        wait=settings.batch_wait_ms / 1000,
        room=settings.max_queue,
        on_batch=metrics.batches.observe,
    )
    metrics.watch_queue(lambda: len(batcher))
    requests = requests_of(served.form, served.columns, settings)
    return Service(served, requests, batcher, metrics)


def _add_predict(app: FastAPI, service: Service) -> None:
    schema = service.requests.body.model_json_schema()
    form = service.served.form
    body = {"required": True, "content": {"application/json": {"schema": schema}}}

    @app.post(
        "/predict",
        response_model=answers_model(form),
        responses=_REFUSALS,
        openapi_extra={"requestBody": body},
        summary="Ask about one text or several",
    )
    async def predict(request: Request) -> Response:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            return _problem(415, "the body must be JSON: Content-Type: application/json")
        try:
            items, raw = service.requests.read(await request.body())
            answers = await _unless_gone(request, service.predict(items, raw=raw))
            if answers is None:
                return Response(status_code=GONE)
            content: dict[str, Any] = {"answers": answers, "model": service.served.run}
            if form.divisor is not None:
                content["temperature"] = 1.0 if raw else form.divisor
            return JSONResponse(content)
        except UserError as error:
            return _problem(422, str(error))
        except QueueFull as full:
            return _problem(429, str(full), {"retry-after": str(full.seconds)})
        except Stopped:
            return _problem(503, "the server is about to stop", {"retry-after": "1"})
        except Exception:
            _LOG.exception("a request was not answered")
            return _problem(500, "the model failed; the server's log says how")


async def _unless_gone(request: Request, answers: Coroutine[Any, Any, Answered]) -> Answered | None:
    """What is awaited, or None where the caller leaves before: nobody else wants it."""
    answering = asyncio.create_task(answers)
    leaving = asyncio.ensure_future(request.receive())  # the body is read: what comes is the end
    try:
        await asyncio.wait({answering, leaving}, return_when=asyncio.FIRST_COMPLETED)
        return answering.result() if answering.done() else None
    finally:
        answering.cancel()
        leaving.cancel()


def _add_states(app: FastAPI, service: Service) -> None:
    @app.get("/health", summary="Whether the process works; 503 where it should be restarted")
    async def health() -> Response:
        return JSONResponse({"healthy": service.alive}, 200 if service.alive else 503)

    @app.get("/ready", summary="Whether to send it requests; 503 from the signal to stop on")
    async def ready() -> Response:
        takes = service.alive and not service.leaving
        return JSONResponse({"ready": takes}, 200 if takes else 503)

    @app.get("/metrics", summary="Counters for Prometheus")
    async def metrics() -> Response:
        return Response(service.metrics.page(), media_type="text/plain; version=0.0.4")


def _add_pages(app: FastAPI, service: Service) -> None:
    page = pages.try_page(service.served)

    @app.get("/", include_in_schema=False)
    async def index() -> Response:
        return HTMLResponse(page)

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return HTMLResponse(pages.docs_page(app.openapi()))

    for name, kind in pages.FILES.items():
        content = Response(pages.read(name), media_type=kind)
        app.add_api_route(f"/{name}", _always(content), include_in_schema=False)


def _always(response: Response) -> Any:
    async def give() -> Response:
        return response

    return give


def _problem(status: int, said: str, headers: dict[str, str] | None = None) -> Response:
    return JSONResponse({"detail": said}, status, headers)
