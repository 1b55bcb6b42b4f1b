"""`POST /holdfast/abort`: take traffic from a version, from any machine and without a ledger.

Off while no token is set. The token is compared in constant time, before the body is read.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import Final, TypeAlias

import msgspec

from holdfast.errors import HoldfastError
from holdfast.serve.http.exchange import Exchange
from holdfast.serve.http.responses import status_of
from holdfast.serve.protocol.bearer_token import bears_token
from holdfast.serve.protocol.repeated_names import find_repeated_name

REASON_CHARACTERS: Final = 500
ACTOR_CHARACTERS: Final = 63

_log = logging.getLogger(__name__)

Abort: TypeAlias = Callable[[str | None, str, str], dict[str, object]]
"""Gives an abort (version or None, reason, actor): what became of it, or a `HoldfastError`. It may wait for a disk."""


class _Body(msgspec.Struct, forbid_unknown_fields=True):
    version: str | None = None
    reason: str = "requested by an operator"
    actor: str = "http"


class AbortEndpoint:
    """The abort endpoint of one server.

    Parameters
    ----------
    token
        The secret that a request must carry; empty rejects all.
    abort
        Called outside the event loop, so that no request waits for the disk.
    """

    def __init__(self, token: str, abort: Abort) -> None:
        self._token = token.encode()
        self._abort = abort
        self._loop = asyncio.get_running_loop()

    def __call__(self, exchange: Exchange) -> None:
        """Reject the request, or respond when the abort is carried out."""
        if not self._token:
            exchange.refuse(403, "HF510", "rollbacks over HTTP are off: HOLDFAST_ABORT_TOKEN is not set")
            return
        if not bears_token(exchange.headers.get(b"authorization", b""), self._token):
            challenge = b"www-authenticate: Bearer\r\n"
            exchange.refuse(401, "HF510", "a rollback needs the token of this server", extra=challenge)
            return
        try:
            body = msgspec.json.decode(exchange.body or b"{}", type=_Body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            exchange.refuse(400, "HF511", f"the body is not an abort: {error}")
            return
        if why := find_repeated_name(exchange.body or b"{}", 0):
            exchange.refuse(400, "HF511", why)
            return
        reason, actor = body.reason[:REASON_CHARACTERS], body.actor[:ACTOR_CHARACTERS]
        aborted = self._loop.run_in_executor(None, self._abort, body.version, reason, actor)
        aborted.add_done_callback(partial(_respond, exchange))


def _respond(exchange: Exchange, aborted: asyncio.Future[dict[str, object]]) -> None:
    try:
        exchange.send(200, msgspec.json.encode(aborted.result()))
    except HoldfastError as error:
        exchange.refuse(status_of(error), error.code, error.what)
    except Exception:  # whatever it is, the operator must not wait for an answer that never comes
        _log.exception("an abort failed")
        exchange.refuse(503, "HF503", "the abort failed by a defect of the server; see its log")
