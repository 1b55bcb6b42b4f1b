"""Serving config: the limits of a server as one document with an id, pushed and rolled back like a version."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Final

from holdfast.errors import InputError
from holdfast.records import canonical_json, sha256_hex

_LEAST: Final[Mapping[str, float]] = {
    "header_bytes": 1024,
    "body_bytes": 1024,
    "held_bytes": 1024,
    "receipt_seconds": 0.1,
    "idle_seconds": 0.1,
    "write_seconds": 0.1,
    "connections": 8,
    "pipelined": 1,
    "queue_seconds": 0.01,
    "labels_per_hour": 1,
}
"""Lower limits: with less, a server could not be probed, and a rollback not be confirmed."""


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Limits of one client, and of all clients together. Sizes in bytes, times in seconds.

    >>> ConnectionLimits().id == ConnectionLimits.from_json(ConnectionLimits().to_json()).id
    True
    """

    header_bytes: int = 16 * 1024
    body_bytes: int = 8 * 1024 * 1024
    held_bytes: int = 256 * 1024 * 1024
    """All request bodies that are still being received."""
    receipt_seconds: float = 10.0
    """From the first byte of a request (or the connection) to its last."""
    idle_seconds: float = 75.0
    write_seconds: float = 20.0
    """How long a client may leave a full send buffer unread."""
    connections: int = 1024
    pipelined: int = 256
    """Requests of one connection that wait for their reply at once."""
    queue_seconds: float = 1.0
    """How long a request may be expected to wait for its turn; beyond that new ones get 429."""
    labels_per_hour: int = 1_000_000
    """Labels that are stored of one source from one address within an hour of the clock; beyond that they get 429."""

    @property
    def id(self) -> str:
        """Return the name of this serving config: c- and 12 digits of the digest of its document."""
        return f"c-{sha256_hex(self.to_json())[:12]}"

    def to_json(self) -> str:
        """Return the document: canonical JSON, so that equal limits have equal ids.

        A limit that older documents do not have is left out while it has its default, so that they keep their ids.
        """
        return canonical_json(
            {
                name: _as(kind, value)
                for (name, value), kind in zip(asdict(self).items(), _kinds(), strict=True)
                if value != _ADDED.get(name)
            }
        )

    @classmethod
    def from_json(cls, document: str) -> ConnectionLimits:
        """Return the limits of a document, the others as by default. Raises `InputError` HF103 if it is invalid."""
        try:
            named = json.loads(document)
        except ValueError as error:
            raise InputError("HF103", f"a serving config is a JSON object: {error}") from error
        return cls.of(named if isinstance(named, dict) else {"": named})

    @classmethod
    def of(cls, named: Mapping[str, object]) -> ConnectionLimits:
        """Return the limits that `named` gives, with defaults for the others.

        Raises `InputError` HF103 for an unknown name, a value that is not a number, and one with which no server
        could be probed.
        """
        kinds = dict(zip((field.name for field in fields(cls)), _kinds(), strict=True))
        for name, value in named.items():
            if name not in kinds:
                raise InputError("HF103", f"unknown limit {name!r}; known are {', '.join(kinds)}")
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or (kinds[name] is int and not isinstance(value, int)):
                raise InputError(
                    "HF103", f"{name} must be a {'whole ' * (kinds[name] is int)}number: {value!r}"
                )
            assert isinstance(value, int | float)
            if not _LEAST[name] <= value < 2**53:
                raise InputError("HF103", f"{name} must be at least {_LEAST[name]:g}: {value}")
        return cls(**{name: _as(kinds[name], value) for name, value in named.items()})  # type: ignore[arg-type]  # checked above


_ADDED: Final[Mapping[str, object]] = {
    name: getattr(ConnectionLimits(), name) for name in ("queue_seconds", "labels_per_hour")
}
"""The limits that the first documents did not have, with their defaults."""


def _kinds() -> tuple[type, ...]:
    return tuple(type(field.default) for field in fields(ConnectionLimits))


def _as(kind: type, value: object) -> object:
    """Convert whole seconds to a decimal, so that both have one id."""
    return float(value) if kind is float and isinstance(value, int) else value
