"""Routes of the page and of its JSON API. All are GET and read-only."""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from prometheus_client.exposition import choose_encoder
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from holdfast.control.reports.metrics import StatusCollector
from holdfast.control.reports.status import Status, StatusReader
from holdfast.errors import HoldfastError
from holdfast.feeds import Feed
from holdfast.formatting import ago, latency, share, span
from holdfast.qualify import Objective
from holdfast.store import Store
from holdfast.web import feeds_section, rollout_section
from holdfast.web.charts import Drawings, colour
from holdfast.web.contexts import page
from holdfast.web.formatting import count, minute, number, percent, size, timestamp
from holdfast.web.rollout_section import evidence_of, interval_text, mean_text, metric_name, states_of

_POLICY: Final = (
    b"default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self';"
    b" base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

SECURITY_HEADERS: Final[tuple[tuple[bytes, bytes], ...]] = (
    (b"content-security-policy", _POLICY),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
"""The headers of every response: no inline script, no foreign resource, no framing of the page."""

_OPENMETRICS: Final = "application/openmetrics-text"
_NO_STORE: Final = {"cache-control": "no-store"}
_HERE: Final = Path(__file__).parent
_FIGURES: Final = (ago, share, span, count, minute, latency, timestamp, number, percent, size, colour)
_TEXTS: Final = (evidence_of, interval_text, mean_text, metric_name, states_of)
"""The functions that templates may use besides figures, by their names as filters."""


def build_app(
    store: Store,
    model: str,
    *,
    host: str = "127.0.0.1",
    allowed_hosts: Iterable[str] = (),
    feeds: Sequence[Feed] = (),
    label_delay: timedelta = timedelta(0),
    objective: Objective | None = None,
    recover_within: timedelta | None = None,
    silent_after: timedelta | None = None,
    clock_us: Callable[[], int] = lambda: time.time_ns() // 1000,
) -> Starlette:
    """Return the page of `model` as an ASGI application.

    Parameters
    ----------
    store
        The store to read. Nothing is written.
    host
        The address that the page listens on; a Host header may name it.
    allowed_hosts
        Further names for the Host header, as behind a proxy. Every other name gets status 421, which stops DNS
        rebinding: a foreign page cannot read this one by pointing its own name here. Addresses and localhost
        always work.
    feeds
        The declared feeds: what they expect states when a batch is overdue.
    label_delay
        The duration from an event until its label is known.
    objective
        The declared objective; None if none is declared.
    recover_within
        The declared bound of a data incident; None for none.
    silent_after
        The declared silence after which a model counts as not used; None derives it from its requests.
    clock_us
        The clock, in microseconds since 1970 UTC.
    """
    reader = StatusReader(store, model, feeds, label_delay, objective, recover_within, silent_after)
    pages = _Pages(store, model, reader, clock_us)
    return Starlette(
        routes=[
            Route("/", pages.full, methods=["GET"]),
            Route("/live", pages.live, methods=["GET"]),
            Route("/api/status", pages.api_status, methods=["GET"]),
            Route("/api/rollout", pages.api_rollout, methods=["GET"]),
            Route("/metrics", pages.metrics, methods=["GET"]),
            Route("/health", _health, methods=["GET"]),
            Mount("/static", StaticFiles(directory=_HERE / "static")),
        ],
        middleware=[Middleware(Guard, hosts=frozenset({"localhost", host, *allowed_hosts}))],
        exception_handlers={HoldfastError: _error},
    )


class _Pages:
    """The views of one model."""

    def __init__(self, store: Store, model: str, reader: StatusReader, clock_us: Callable[[], int]) -> None:
        self._store = store
        self._model = model
        self._reader = reader
        self._clock_us = clock_us
        self._drawings = Drawings(keep=128)  # more than a page has; with fewer each view would draw all again
        self._templates = _templates()

    def full(self, _request: Request) -> Response:
        """Return the page."""
        return self._render("page.html")

    def live(self, _request: Request) -> Response:
        """Return the part of the page that changes."""
        return self._render("live.html")

    def api_status(self, _request: Request) -> Response:
        """Return the same content as JSON."""
        return JSONResponse(asdict(self._status()), headers=_NO_STORE)

    def api_rollout(self, _request: Request) -> Response:
        """Return the running rollout as JSON: metrics, evidence over time, webhooks, drills."""
        return JSONResponse(asdict(self._rollout(self._clock_us())), headers=_NO_STORE)

    def metrics(self, request: Request) -> Response:
        """Return metrics for Prometheus; OpenMetrics if the Accept header names it."""
        accept = request.headers.get("accept", "")
        encoder, content_type = choose_encoder(_OPENMETRICS if _OPENMETRICS in accept else "")
        found = encoder(StatusCollector(self._model, self._status))
        return Response(found, media_type=content_type, headers=_NO_STORE)

    def _rollout(self, now_us: int) -> rollout_section.RolloutSection:
        return rollout_section.read(self._store, self._model, now_us=now_us)

    def _status(self) -> Status:
        return self._reader.read(now_us=self._clock_us())

    def _render(self, template: str) -> Response:
        status = self._status()
        feeds = feeds_section.read(self._store, [each.feed for each in status.feeds])
        content = page(status, self._rollout(status.now_us), self._drawings, feeds)
        return HTMLResponse(self._templates.get_template(template).render(page=content), headers=_NO_STORE)


def _templates() -> Environment:
    environment = Environment(
        loader=PackageLoader("holdfast.web"),
        autoescape=select_autoescape(default=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update({each.__name__: each for each in (*_FIGURES, *_TEXTS)})
    return environment


def _health(_request: Request) -> Response:
    return PlainTextResponse("ok\n")


def _error(_request: Request, error: Exception) -> Response:
    """Return an error in the shape of all errors; the next try may succeed."""
    fields: dict[str, Any] = error.as_dict() if isinstance(error, HoldfastError) else {"what": "error"}
    return JSONResponse({"error": fields}, status_code=503, headers={"retry-after": "2"})


class Guard:
    """Refuse requests with foreign Host headers, and add the security headers to every response."""

    def __init__(self, app: ASGIApp, hosts: frozenset[str]) -> None:
        self._app = app
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *SECURITY_HEADERS]
            await send(message)

        named = [value.decode("latin-1") for name, value in scope["headers"] if name == b"host"]
        if len(named) != 1 or not self._is_known(named[0]):
            refusal = PlainTextResponse(
                "This host name is not served here: see HOLDFAST_NAMES.\n", status_code=421
            )
            await refusal(scope, receive, guarded)
            return
        await self._app(scope, receive, guarded)

    def _is_known(self, named: str) -> bool:
        name = host_name(named)
        if name in self._hosts:
            return True
        # DNS rebinding needs a name that an attacker owns, which an address is not.
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True


def host_name(host: str) -> str:
    """Return the name in a Host header, without its port.

    >>> host_name("localhost:8081"), host_name("[::1]:8081"), host_name("127.0.0.1")
    ('localhost', '::1', '127.0.0.1')
    """
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower()
