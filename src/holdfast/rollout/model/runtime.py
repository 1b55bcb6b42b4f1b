"""What a server is: the releases of what it is made of as one document with an id, pushed and taken back like a version."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from holdfast.errors import InputError
from holdfast.records import canonical_json, sha256_hex

TOLERANCE: Final = 1e-5
"""How far two binaries may be apart in a probability: single precision leaves about a hundredth of it between two kernels of
one product of matrices."""

_FACTS: Final = 64
_LONGEST: Final = 200


@dataclass(frozen=True, slots=True)
class Binary:
    """The facts of one binary: what it is made of, each with its release.

    >>> Binary({"holdfast": "0.2", "numpy": "2.4.0"}).id == Binary({"numpy": "2.4.0", "holdfast": "0.2"}).id
    True
    """

    facts: Mapping[str, str]

    @property
    def id(self) -> str:
        """Its name: b- and 12 digits of the digest of its document."""
        return f"b-{sha256_hex(self.to_json())[:12]}"

    def to_json(self) -> str:
        """The document: canonical JSON, so that equal facts have equal ids."""
        return canonical_json(dict(self.facts))

    @classmethod
    def from_json(cls, document: str) -> Binary:
        """The binary of a document; `InputError` HF108 for one that says no facts, or says them at too great length."""
        try:
            named = json.loads(document)
        except ValueError as error:
            raise InputError("HF108", f"the facts of a binary are a JSON object: {error}") from error
        if not isinstance(named, dict) or not 0 < len(named) <= _FACTS:
            raise InputError(
                "HF108", f"the facts of a binary are a JSON object of 1 to {_FACTS} names and releases"
            )
        for name, release in named.items():
            if not isinstance(release, str) or max(len(name), len(release)) > _LONGEST:
                raise InputError(
                    "HF108", f"the fact {name[:_LONGEST]!r} of a binary is no text that can be kept"
                )
        return cls(named)

    def difference(self, other: Binary) -> str:
        """In what `other` is another binary, in words; empty when it is none.

        >>> Binary({"numpy": "2.4.0", "build": ""}).difference(Binary({"numpy": "2.4.1", "build": ""}))
        'numpy 2.4.0 -> 2.4.1'
        """
        names = sorted({*self.facts, *other.facts})
        pairs = ((name, self.facts.get(name, "none"), other.facts.get(name, "none")) for name in names)
        return ", ".join(
            f"{name} {ours or '-'} -> {theirs or '-'}" for name, ours, theirs in pairs if ours != theirs
        )


def furthest(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The greatest difference between two binaries' answers to the same rows; infinity when they are not as many, or one of
    them is not a number.

    >>> furthest([0.5, 0.25], [0.5, 0.5])
    0.25
    """
    if len(ours) != len(theirs):
        return float("inf")
    apart = (abs(one - other) for one, other in zip(ours, theirs, strict=True))
    return max((each if each == each else float("inf") for each in apart), default=0.0)
