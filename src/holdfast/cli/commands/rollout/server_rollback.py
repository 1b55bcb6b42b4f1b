"""Roll back one server over HTTP, which may run on another machine."""

from __future__ import annotations

import json
import time
from typing import Any, Final
from urllib.parse import urlsplit

from holdfast.cli.output import escape
from holdfast.cli.project import Run, misused
from holdfast.control.http.client import Client
from holdfast.errors import CODES, RefusedError, UnavailableError

_RESPONSE_SECONDS: Final = 5.0


def through_server(run: Run, url: str, version: str | None, reason: str) -> None:
    """Request one server to stop answering with `version`; None leaves the choice to the server."""
    address = urlsplit(url)
    if address.scheme != "http" or not address.hostname:
        what = f"{url!r} is not the URL of a server, such as http://10.0.0.7:8080"
        raise misused(what, "holdfast rollback --help", state="")
    token = run.project.settings.token
    if not token:
        what = "HOLDFAST_ABORT_TOKEN is not set, and a server requires it for a rollback"
        raise misused(what, "set it here and where the server runs", state="nothing was sent")
    began = time.monotonic()
    body = json.dumps({"version": version, "reason": reason, "actor": run.actor})
    status, response = _post(f"{address.hostname}:{address.port or 80}", token, body)
    if status != 200:
        code = str(response.get("code", ""))
        kind = RefusedError if status in (401, 403, 404, 409) else UnavailableError
        raise kind(
            code if code in CODES else "HF506",
            str(response.get("error", f"status {status}")),
            state="the server is unchanged",
        )
    duration_ms = 1000 * (time.monotonic() - began)
    run.out.print(
        f"[green]done[/] {response.get('serves')} answers at {escape(url)} instead of {response.get('version')}; "
        f"{duration_ms:.0f} ms"
    )
    run.out.result({"by": "server", "server": url, "duration_ms": duration_ms, **response})


def _post(host: str, token: str, body: str) -> tuple[int, dict[str, Any]]:
    try:
        with Client(f"http://{host}", timeout_seconds=_RESPONSE_SECONDS) as client:
            headers = {"Authorization": f"Bearer {token}"}
            response = client.request("POST", "/holdfast/abort", body, headers)
        return response.status, response.document()
    except (OSError, ValueError) as error:
        raise UnavailableError(
            "HF506",
            f"no Holdfast server responds at {host} ({str(error) or type(error).__name__})",
            state="it is unknown whether the server applied it; giving the command again is safe",
            next_command="the same command again",
        ) from error
