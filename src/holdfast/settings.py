"""The settings, and the only reader of the environment."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote

from holdfast.errors import InputError

SETTINGS: Final[tuple[tuple[str, str, str], ...]] = (
    (
        "HOLDFAST_ROOT",
        ".holdfast",
        "Directory that holds ledger, rows, blobs and logs; relative to the project's directory.",
    ),
    ("HOLDFAST_LEDGER", "", "SQLAlchemy URL of the ledger; empty means SQLite inside the root."),
    ("HOLDFAST_HOST", "127.0.0.1", "Address that the inference server and the page listen on."),
    ("HOLDFAST_PORT", "8080", "Port of the inference server; 0 takes a free one."),
    (
        "HOLDFAST_NAMES",
        "",
        "Names, besides localhost and addresses, by which clients may call the inference server; commas between.",
    ),
    ("HOLDFAST_PAGE_PORT", "8081", "Port of the page; 0 takes a free one."),
)
"""Name, default and help of every setting; the reference page is generated from it."""

_PORT: Final = re.compile(r"[0-9]{1,5}")


@dataclass(frozen=True, slots=True)
class Settings:
    """What the environment decides. Everything else is declared in the project's model file."""

    root: Path
    ledger_url: str
    host: str
    port: int
    page_port: int
    names: tuple[str, ...] = ()

    @classmethod
    def read(cls, project: Path, environment: Mapping[str, str] | None = None) -> Settings:
        """Settings for the project in directory `project`; `InputError` HF103 on a value that cannot be used."""
        given = os.environ if environment is None else environment
        values = {name: given.get(name, default) for name, default, _ in SETTINGS}
        root = (project / values["HOLDFAST_ROOT"]).resolve()
        return cls(
            root=root,
            # In a URL a path has its "?", "#" and "%" escaped, whatever the directory is called.
            ledger_url=values["HOLDFAST_LEDGER"] or f"sqlite:///{quote(str(root / 'ledger.db'))}",
            host=values["HOLDFAST_HOST"],
            port=_port("HOLDFAST_PORT", values),
            page_port=_port("HOLDFAST_PAGE_PORT", values),
            names=tuple(name.strip() for name in values["HOLDFAST_NAMES"].split(",") if name.strip()),
        )


def _port(name: str, values: Mapping[str, str]) -> int:
    text = values[name]
    if not _PORT.fullmatch(text) or int(text) > 65535:
        raise InputError("HF103", f"{name} is {text[:20]!r}: a port is a number from 0 to 65535")
    return int(text)
