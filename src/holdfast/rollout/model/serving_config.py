"""What servers run with: their limits as one document with an id, pushed and taken back like a version."""

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
}
"""With less than this a server could not be probed, and a roll-back not be confirmed."""


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """What one client, and all of them together, may cost. Sizes in bytes, times in seconds.

    >>> ConnectionLimits().id == ConnectionLimits.from_json(ConnectionLimits().to_json()).id
    True
    """

    header_bytes: int = 16 * 1024
    body_bytes: int = 8 * 1024 * 1024
    held_bytes: int = 256 * 1024 * 1024
    """Of all request bodies that are still being received."""
    receipt_seconds: float = 10.0
    """From the first byte of a request (or the connection) to its last."""
    idle_seconds: float = 75.0
    write_seconds: float = 20.0
    """How long a client may leave a full send buffer unread."""
    connections: int = 1024
    pipelined: int = 256
    """Requests of one connection that wait for their reply at once."""

    @property
    def id(self) -> str:
        """The name of these limits as a configuration: c- and 12 digits of the digest of their document."""
        return f"c-{sha256_hex(self.to_json())[:12]}"

    def to_json(self) -> str:
        """The document: canonical JSON, so that equal limits have equal ids."""
        return canonical_json(
            {
                name: _as(kind, value)
                for (name, value), kind in zip(asdict(self).items(), _kinds(), strict=True)
            }
        )

    @classmethod
    def from_json(cls, document: str) -> ConnectionLimits:
        """The limits of a document; what it does not name is as it is by default. `InputError` HF103 for what cannot be."""
        try:
            named = json.loads(document)
        except ValueError as error:
            raise InputError("HF103", f"a configuration is a JSON object: {error}") from error
        return cls.of(named if isinstance(named, dict) else {"": named})

    @classmethod
    def of(cls, named: Mapping[str, object]) -> ConnectionLimits:
        """The limits that `named` says, the others as by default.

        Raises `InputError` HF103 for a name that is none, a value that is no number, and one with which a server could not
        be reached any more.
        """
        kinds = dict(zip((field.name for field in fields(cls)), _kinds(), strict=True))
        for name, value in named.items():
            if name not in kinds:
                raise InputError("HF103", f"{name!r} is no option of serving; there are {', '.join(kinds)}")
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or (kinds[name] is int and not isinstance(value, int)):
                raise InputError(
                    "HF103", f"{name} is {value!r}: it is a {'whole ' * (kinds[name] is int)}number"
                )
            assert isinstance(value, int | float)
            if not _LEAST[name] <= value < 2**53:
                raise InputError(
                    "HF103", f"{name} is {value}: with less than {_LEAST[name]:g} nobody is served"
                )
        return cls(**{name: _as(kinds[name], value) for name, value in named.items()})  # type: ignore[arg-type]  # checked above


def _kinds() -> tuple[type, ...]:
    return tuple(type(field.default) for field in fields(ConnectionLimits))


def _as(kind: type, value: object) -> object:
    """Whole seconds and the same as a decimal are one value, and have one id."""
    return float(value) if kind is float and isinstance(value, int) else value
