"""The command that tells the server what turned out to be true: feedback."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.markup import escape

from holdfast.cli.app import command
from holdfast.cli.options import HERE, AsJson, DeclarationFile, Directory
from holdfast.cli.output import Report
from holdfast.cli.project import Project
from holdfast.control.http.client import Client
from holdfast.errors import (
    CODES,
    ConflictError,
    HoldfastError,
    InputError,
    NotFoundError,
    UnavailableError,
)


@command("Running")
def feedback(
    prediction: Annotated[str, typer.Argument(help="The prediction id that came with the answer.")],
    value: Annotated[
        str, typer.Argument(help="What turned out to be true: true, false, or a number from 0 to 1.")
    ],
    source: Annotated[str, typer.Option("--source", help="Who says so.")] = "cli",
    project: Directory = HERE,
    declaration: DeclarationFile = None,
    as_json: AsJson = False,
) -> None:
    """Tell the server what turned out to be true for one answer.

    The same again counts once; another value than the server took before is refused. Example: holdfast feedback s1-1-1 true
    """
    report = Report(as_json=as_json)
    loaded = Project.load(project, declaration)
    settings = loaded.settings
    body = json.dumps({"id": prediction, "value": _label(value), "source": source})
    try:
        with Client(f"http://{settings.host}:{settings.port}", timeout_seconds=10) as client:
            response = client.request("POST", f"/v2/models/{loaded.model.name}/feedback", body)
        document = response.document()
    except (OSError, ValueError) as error:
        raise UnavailableError(
            "HF506",
            f"no Holdfast server answers at {settings.host}:{settings.port} ({str(error) or type(error).__name__})",
            state="the feedback was not recorded",
            next_command="holdfast up",
        ) from error
    if response.status >= 400:
        reason = str(document.get("error", response.reason))
        raise _refusal(response.status, str(document.get("code", "")), reason)
    report.say(
        f"[green]ok[/] {escape(value)} for {escape(prediction)} is kept; it counts once it is joined (holdfast status), "
        "or is refused then where another value was joined before (holdfast events)"
    )
    report.result({"prediction": prediction, "accepted": True})


def _refusal(status: int, code: str, words: str) -> HoldfastError:
    """The server's refusal of feedback as the error that the command ends with."""
    known = code if code in CODES else "HF504" if status >= 500 else "HF501"
    match status:
        case 404:
            kind: type[HoldfastError] = NotFoundError
        case 409:
            kind = ConflictError
        case _:
            kind = UnavailableError if status >= 500 else InputError
    return kind(known, words, state="the feedback was not recorded")


def _label(text: str) -> float:
    named = {"true": 1.0, "yes": 1.0, "false": 0.0, "no": 0.0}
    if text.lower() in named:
        return named[text.lower()]
    try:
        number = float(text)
    except ValueError:
        number = float("nan")
    if not 0.0 <= number <= 1.0:
        raise InputError(
            "HF101",
            f"{text!r} is not a label: use true, false, or a number from 0 to 1",
            state="nothing was sent",
            next_command="holdfast feedback --help",
        )
    return number
