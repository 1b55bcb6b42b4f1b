"""Send a label to the server: feedback."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from holdfast.cli.app import command
from holdfast.cli.output import escape
from holdfast.cli.project import Run, misused, with_project
from holdfast.contract import Boolean, Column, Integer
from holdfast.control.http.client import Client
from holdfast.errors import CODES, ConflictError, InputError, NotFoundError, UnavailableError


@command("Running")
@with_project
def feedback(
    run: Run,
    prediction: Annotated[
        str,
        typer.Argument(
            help="The prediction id of the response, with /n for row n of a request of several rows; with --key, the label."
        ),
    ],
    value: Annotated[
        str | None,
        typer.Argument(help="The label: true, false, or a number from 0 to 1; with --key true or false."),
    ] = None,
    key: Annotated[
        list[str] | None,
        typer.Option("--key", help="COLUMN=VALUE of the row's key, once for each column, instead of an id."),
    ] = None,
    source: Annotated[
        str, typer.Option("--source", help="The source of the label; only it can correct the label.")
    ] = "cli",
) -> None:
    """Send the label of one prediction, or of the row with a key, to the server.

    The same label again counts once. Another value from the same source is a correction if a label feed declares
    corrections="latest". Else the first value counts: another one is refused for a prediction, and kept without effect for a
    key. Another value from another source is quarantined.

    Example: holdfast feedback s4k7wq2mzt5ha-1-1.5f0c3a9be2714d68 true
    """
    address = run.server_address()
    if bool(key) == (value is not None):
        usage = "a label is PREDICTION VALUE, or --key COLUMN=VALUE and the label alone"
        raise misused(usage, "holdfast feedback --help", state="nothing was sent")
    label, named = value or prediction, prediction
    what: dict[str, object] = {"id": prediction}
    if key:
        what, named = {"key": _key(run, key)}, ", ".join(key)
    body = json.dumps({**what, "value": _label(label), "source": source})
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
        f"[green]ok[/] {escape(label)} for {escape(named)} is stored; the control loop joins it (holdfast status)"
        + ("" if key else ", or rejects it if it contradicts another label (holdfast events)")
    )
    warning = {"warning": str(document["warning"])} if "warning" in document else {}
    for text in warning.values():
        run.out.print(f"  [yellow]no effect[/]: {escape(text)}")
    run.out.result(
        {**warning, **({"key": what["key"]} if key else {"prediction": prediction}), "accepted": True}
    )


def _key(run: Run, parts: list[str]) -> dict[str, object]:
    """Return the key that `parts`, each "column=value", name."""
    found: dict[str, object] = {}
    contract = run.model.contract
    for part in parts:
        name, equals, text = part.partition("=")
        if not equals or name not in contract.key or name in found:
            what = f"{part!r} is not COLUMN=VALUE of the key, which is {', '.join(contract.key)}"
            raise misused(what, "holdfast contract show", state="nothing was sent")
        found[name] = _key_value(contract.column(name), text)
    return found


def _key_value(column: Column, text: str) -> object:
    if isinstance(column, Integer) and text.removeprefix("-").isdecimal():
        return int(text)
    if isinstance(column, Boolean) and text.lower() in ("true", "false"):
        return text.lower() == "true"
    return text  # the server knows what it must be


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
