"""Send a label to the server: feedback."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.markup import escape

from holdfast.cli.app import command
from holdfast.cli.project import Run, misused, with_project
from holdfast.control.http.client import Client
from holdfast.errors import CODES, ConflictError, InputError, NotFoundError, UnavailableError
from holdfast.store.serving import servers


@command("Running")
@with_project
def feedback(
    run: Run,
    prediction: Annotated[str, typer.Argument(help="The prediction id of the response.")],
    value: Annotated[str, typer.Argument(help="The label: true, false, or a number from 0 to 1.")],
    source: Annotated[str, typer.Option("--source", help="The source of the label.")] = "cli",
) -> None:
    """Send the label of one prediction to the server.

    The same label again counts once; a different one is refused.

    Example: holdfast feedback s1-1-1 true
    """
    address = _address(run)
    body = json.dumps({"id": prediction, "value": _label(value), "source": source})
    try:
        with Client(address, timeout_seconds=10) as client:
            response = client.request("POST", f"/v2/models/{run.model.name}/feedback", body)
        document = response.document()
    except (OSError, ValueError) as error:
        raise UnavailableError(
            "HF506",
            f"no Holdfast server responds at {address} ({str(error) or type(error).__name__})",
            state="the feedback was not recorded",
            next_command="holdfast up",
        ) from error
    if response.status >= 400:
        is_unavailable, code = response.status >= 500, str(document.get("code", ""))
        kinds = {404: NotFoundError, 409: ConflictError}
        kind = kinds.get(response.status, UnavailableError if is_unavailable else InputError)
        raise kind(
            code if code in CODES else "HF504" if is_unavailable else "HF501",
            str(document.get("error", response.reason)),
            state="the feedback was not recorded",
        )
    run.out.print(
        f"[green]ok[/] {escape(value)} for {escape(prediction)} is stored; the control loop joins it (holdfast status), "
        "or rejects it if another label was joined before (holdfast events)"
    )
    run.out.result({"prediction": prediction, "accepted": True})


def _address(run: Run) -> str:
    """Return the address of the model's newest server that runs; of the settings if none is known."""
    with run.store.ledger.read() as connection:
        known = [
            each for each in servers.registered(connection, run.model.name) if not servers.has_ended(each)
        ]
    if known:
        return max(known, key=lambda each: each.started_at_us).address
    return f"http://{run.settings.host}:{run.settings.port}"


def _label(text: str) -> float:
    named = {"true": 1.0, "yes": 1.0, "false": 0.0, "no": 0.0}
    if text.lower() in named:
        return named[text.lower()]
    try:
        number = float(text)
    except ValueError:
        number = float("nan")
    if not 0.0 <= number <= 1.0:
        what = f"{text!r} is not a label: use true, false, or a number from 0 to 1"
        raise misused(what, "holdfast feedback --help", state="nothing was sent")
    return number
