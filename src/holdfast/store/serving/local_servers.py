"""Servers of this machine, found without the ledger: each writes its address next to its local copy."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec

from holdfast.store.durability import fsync
from holdfast.store.serving.servers import Server, has_ended

_DIRECTORY: Final = "at"


def announce(directory: Path, server: Server) -> None:
    """Write the address of `server` under `directory`. Raises `OSError` if it cannot be written."""
    fsync.make_directory(directory / _DIRECTORY)
    fsync.replace(directory / _DIRECTORY / f"{server.server}.json", msgspec.json.encode(server, enc_hook=str))


def running(directory: Path) -> tuple[Server, ...]:
    """Return the servers under `directory` whose processes run, by name."""
    found = []
    for path in sorted((directory / _DIRECTORY).glob("*.json")):
        try:
            server = msgspec.json.decode(path.read_bytes(), type=Server, dec_hook=_path)
        except (OSError, msgspec.MsgspecError):
            continue  # a torn file is no server; a running one writes it in one step
        if not has_ended(server):
            found.append(server)
    return tuple(found)


def _path(kind: type, value: object) -> object:
    if kind is Path and isinstance(value, str):
        return Path(value)
    raise TypeError(f"{kind} is not stored")
