"""Options that many commands share, so that they are called and explained alike everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of words.")]
Directory = Annotated[
    Path,
    typer.Option("--project", "-p", help="The project's directory.", file_okay=False, show_default="here"),
]
DeclarationFile = Annotated[
    Path | None,
    typer.Option("--file", "-f", help="The file that declares the model.", show_default="model.py"),
]
HERE = Path()
VersionName = Annotated[
    str | None,
    typer.Argument(
        help="The version, as in v3-1f2e3d4c, or v3 for short.", show_default="the newest that fits"
    ),
]
Limit = Annotated[int, typer.Option("--limit", help="How many to show at most.", min=1)]
