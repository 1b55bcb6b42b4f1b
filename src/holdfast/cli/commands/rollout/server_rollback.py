"""A roll-back that is asked of one server over HTTP, which may be on another machine."""

from __future__ import annotations

import getpass
import json
import time
from typing import Any, Final
from urllib.parse import urlsplit

from rich.markup import escape

from holdfast.cli.output import Report
from holdfast.control.http.client import Client
from holdfast.errors import CODES, InputError, RefusedError, UnavailableError
from holdfast.settings import Settings

_ANSWER_SECONDS: Final = 5.0


def through_server(report: Report, settings: Settings, url: str, version: str | None, reason: str) -> None:
    """Ask one server, which may be on another machine, to let `version` answer no more."""
    address = urlsplit(url)
    if address.scheme != "http" or not address.hostname:
        raise InputError(
            "HF101",
            f"{url!r} is not the URL of a server, such as http://10.0.0.7:8080",
            next_command="holdfast rollback --help",
        )
    token = settings.token
    if not token:
        raise InputError(
            "HF103",
            "HOLDFAST_ABORT_TOKEN is not set, and a server takes a roll-back only with it",
            state="nothing was sent",
            next_command="set it here and where the server runs",
        )
    began = time.monotonic()
    status, said = _post(address.hostname, address.port or 80, token, version, reason)
    if status != 200:
        code = str(said.get("code", ""))
        kind = RefusedError if status in (401, 403, 404, 409) else UnavailableError
        raise kind(
            code if code in CODES else "HF506",
            str(said.get("error", f"status {status}")),
            state="the server goes on as it was",
        )
    took_ms = 1000 * (time.monotonic() - began)
    report.say(
        f"[green]done[/] {said.get('version')} does not answer at {escape(url)} any more, {said.get('serves')} does; "
        f"{took_ms:.0f} ms"
    )
    report.result({"by": "server", "server": url, "took_ms": took_ms, **said})


def _post(host: str, port: int, token: str, version: str | None, reason: str) -> tuple[int, dict[str, Any]]:
    body = json.dumps({"version": version, "reason": reason, "actor": getpass.getuser()})
    try:
        with Client(f"http://{host}:{port}", timeout_seconds=_ANSWER_SECONDS) as client:
            headers = {"Authorization": f"Bearer {token}"}
            response = client.request("POST", "/holdfast/abort", body, headers)
        return response.status, response.document()
    except (OSError, ValueError) as error:
        raise UnavailableError(
            "HF506",
            f"no Holdfast server answers at {host}:{port} ({str(error) or type(error).__name__})",
            state="it is not known whether the server took it; asking again does no harm",
            next_command="the same command again",
        ) from error
