"""A runtime: versions of Python and of packages as one document with an id, pushed and rolled back like a version."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from holdfast.errors import InputError
from holdfast.records import canonical_json, sha256_hex

TOLERANCE: Final = 1e-5
"""Tolerated difference of a probability between two runtimes. Two kernels of one matrix product differ by about a
hundredth of it in single precision."""

_FACTS: Final = 64
_LONGEST: Final = 200


@dataclass(frozen=True, slots=True)
class Runtime:
    """The facts of one runtime: what it is made of, each with its version.

    >>> Runtime({"holdfast": "0.2", "numpy": "2.4.0"}).id == Runtime({"numpy": "2.4.0", "holdfast": "0.2"}).id
    True
    """

    facts: Mapping[str, str]

    @property
    def id(self) -> str:
        """Return its name: b- and 12 digits of the digest of its document."""
        return f"b-{sha256_hex(self.to_json())[:12]}"

    def to_json(self) -> str:
        """Return the document: canonical JSON, so that equal facts have equal ids."""
        return canonical_json(dict(self.facts))

    @classmethod
    def from_json(cls, document: str) -> Runtime:
        """Return the runtime of a document. Raises `InputError` HF108 for missing facts or facts that are too long."""
        try:
            named = json.loads(document)
        except ValueError as error:
            raise InputError("HF108", f"the facts of a runtime are a JSON object: {error}") from error
        if not isinstance(named, dict) or not 0 < len(named) <= _FACTS:
            raise InputError(
                "HF108", f"the facts of a runtime are a JSON object of 1 to {_FACTS} names and versions"
            )
        for name, release in named.items():
            if not isinstance(release, str) or max(len(name), len(release)) > _LONGEST:
                raise InputError(
                    "HF108",
                    f"the fact {name[:_LONGEST]!r} of a runtime is not a text of at most {_LONGEST} characters",
                )
        return cls(named)

    def difference(self, other: Runtime) -> str:
        """Return how `other` differs; empty if it does not.

        >>> Runtime({"numpy": "2.4.0", "build": ""}).difference(Runtime({"numpy": "2.4.1", "build": ""}))
        'numpy 2.4.0 -> 2.4.1'
        """
        names = sorted({*self.facts, *other.facts})
        pairs = ((name, self.facts.get(name, "none"), other.facts.get(name, "none")) for name in names)
        return ", ".join(
            f"{name} {ours or '-'} -> {theirs or '-'}" for name, ours, theirs in pairs if ours != theirs
        )


def furthest(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Return the greatest difference between two runtimes' predictions of the same rows.

    It is infinite if their numbers differ, or one of them is not a number.

    >>> furthest([0.5, 0.25], [0.5, 0.5])
    0.25
    """
    if len(ours) != len(theirs):
        return float("inf")
    differences = (abs(one - other) for one, other in zip(ours, theirs, strict=True))
    return max((each if each == each else float("inf") for each in differences), default=0.0)
