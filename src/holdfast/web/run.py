"""The page's process: one socket with bounds, separate from the control loop so that neither stops the other."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Final

import uvicorn

from holdfast.errors import InputError
from holdfast.feeds import Feed
from holdfast.qualify import Objective
from holdfast.settings import Settings
from holdfast.store import Store
from holdfast.web.app import build_app
from holdfast.web.bounded_protocol import CONNECTIONS, BoundedProtocol

HEADER_BYTES: Final = 16 * 1024
IDLE_SECONDS: Final = 5


def serve_page(
    store: Store,
    model: str,
    settings: Settings,
    *,
    feeds: Sequence[Feed] = (),
    label_delay: timedelta = timedelta(0),
    objective: Objective | None = None,
    recover_within: timedelta | None = None,
    silent_after: timedelta | None = None,
    started: Callable[[str], None],
) -> None:
    """Serve the page of `model` until SIGTERM or SIGINT.

    Parameters
    ----------
    store, model
        The store to read, and the model to show.
    settings
        The address and port of the page.
    feeds
        The declared feeds.
    label_delay
        The duration from an event until its label is known.
    objective
        The declared objective; None if none is declared.
    recover_within
        The declared bound of a data incident; None for none.
    silent_after
        The declared silence after which a model counts as not used; None derives it from its requests.
    started
        Called with the URL once the socket listens.

    Raises `InputError` HF507 if the address cannot be listened on.
    """
    with _bind(settings) as bound:
        port = bound.getsockname()[1]
        started(f"http://{settings.host}:{port}/")
        config = uvicorn.Config(
            build_app(
                store,
                model,
                feeds=feeds,
                label_delay=label_delay,
                objective=objective,
                recover_within=recover_within,
                silent_after=silent_after,
                host=settings.host,
                allowed_hosts=settings.names,
            ),
            # h11 bounds the header of a request, which httptools under uvicorn does not.
            http=BoundedProtocol,
            h11_max_incomplete_event_size=HEADER_BYTES,
            limit_concurrency=2 * CONNECTIONS,  # only requests under way come so far
            timeout_keep_alive=IDLE_SECONDS,
            timeout_graceful_shutdown=IDLE_SECONDS,
            log_level="warning",
            access_log=False,
        )
        uvicorn.Server(config).run(sockets=[bound])


def _bind(settings: Settings) -> socket.socket:
    try:
        return socket.create_server((settings.host, settings.page_port))
    except OSError as error:
        raise InputError(
            "HF507",
            f"the page cannot listen on {settings.host}:{settings.page_port}: {error.strerror or error}",
            state="no page is shown",
            next_command="set HOLDFAST_PAGE_PORT to a free port",
        ) from error
