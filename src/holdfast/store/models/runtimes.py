"""Rows of `binaries` and `releases`: what servers can be, which versions were tried with it, and what this process is."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Final

from sqlalchemy import Connection, delete, insert, select, update

from holdfast.errors import NotFoundError
from holdfast.records import Verdict
from holdfast.rollout.model.runtime import Binary
from holdfast.store.db import schema
from holdfast.store.db.dialects import inserting
from holdfast.store.rollout.traffic_plans import in_force as _in_force

MADE_OF: Final = ("holdfast", "httptools", "msgspec", "numpy", "onnxruntime", "polars", "uvloop")
"""The distributions on the way of a request."""

_BINARIES: Final = schema.binaries
_RELEASES: Final = schema.releases


@dataclass(frozen=True, slots=True)
class BinaryRow:
    """A registered binary. `command` starts it: what stands before `serve`; empty when nobody said how."""

    binary: str
    facts: Binary
    command: tuple[str, ...]
    registered_us: int


@dataclass(frozen=True, slots=True)
class Release:
    """What became of trying a version with a binary and a configuration."""

    version: str
    binary: str
    configuration: str
    verdict: Verdict
    explanation: str
    judged_us: int


def here(build: str) -> Binary:
    """What this process is; `build` is the deployer's own name for it, such as that of an image."""
    facts = {name: _release(name) for name in MADE_OF}
    return Binary(
        facts | {"python": platform.python_version(), "machine": platform.machine(), "build": build}
    )


def _release(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "0"  # run from a source tree that was not installed


def register(connection: Connection, binary: Binary, command: Sequence[str], *, now_us: int) -> str:
    """Keep `binary` in the caller's transaction; its id. A `command` that says something replaces the one that was known."""
    kept = json.dumps(list(command)) if command else None
    values = {
        "binary": binary.id,
        "facts": binary.to_json(),
        "command": kept,
        "registered_us": now_us,
    }
    connection.execute(inserting(connection, _BINARIES).values(values).on_conflict_do_nothing())
    if kept is not None:
        connection.execute(update(_BINARIES).where(_BINARIES.c.binary == binary.id).values(command=kept))
    return binary.id


def get(connection: Connection, binary: str) -> BinaryRow:
    """The binary of that id; `NotFoundError` HF303 when it was never registered."""
    for row in listed(connection):
        if row.binary == binary:
            return row
    raise NotFoundError(
        "HF303",
        f"there is no binary {binary[:64]!r}",
        state="nothing was changed",
        next_command="holdfast runtime register -- COMMAND, or holdfast runtime list",
    )


def listed(connection: Connection) -> tuple[BinaryRow, ...]:
    """Every binary, the first that was registered first."""
    query = select(_BINARIES).order_by(_BINARIES.c.registered_us, _BINARIES.c.binary)
    return tuple(
        BinaryRow(
            row.binary,
            Binary.from_json(row.facts),
            tuple(json.loads(row.command)) if row.command else (),
            row.registered_us,
        )
        for row in connection.execute(query)
    )


def judge(connection: Connection, release: Release) -> None:
    """Keep what became of a trial, in the place of what the same three came to before."""
    connection.execute(
        delete(_RELEASES).where(
            _RELEASES.c.version == release.version,
            _RELEASES.c.binary == release.binary,
            _RELEASES.c.configuration == release.configuration,
        )
    )
    connection.execute(
        insert(_RELEASES).values(
            version=release.version,
            binary=release.binary,
            configuration=release.configuration,
            verdict=release.verdict,
            explanation=release.explanation,
            judged_us=release.judged_us,
        )
    )


def tried(connection: Connection, version: str, binary: str, configuration: str) -> Release | None:
    """What became of trying the three together; None when they never were."""
    query = select(_RELEASES).where(
        _RELEASES.c.version == version,
        _RELEASES.c.binary == binary,
        _RELEASES.c.configuration == configuration,
    )
    row = connection.execute(query).one_or_none()
    if row is None:
        return None
    return Release(
        row.version, row.binary, row.configuration, Verdict(row.verdict), row.explanation, row.judged_us
    )


def passed(connection: Connection, version: str) -> tuple[str, ...]:
    """The binaries that `version` passed a trial or its gates with under any configuration, the last judged first."""
    query = (
        select(_RELEASES.c.binary)
        .where(_RELEASES.c.version == version, _RELEASES.c.verdict == Verdict.PASS)
        .order_by(_RELEASES.c.judged_us.desc(), _RELEASES.c.binary)
    )
    return tuple(dict.fromkeys(connection.scalars(query)))


def in_force(connection: Connection, model: str) -> tuple[tuple[int, str], ...]:
    """The two newest binaries that plans of `model` asked for, each with the first plan of its last spell, the newest first."""
    return _in_force(connection, model, "binary")
