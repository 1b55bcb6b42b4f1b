"""Remember units that were seen before, by the first digits of their hashes in one short text."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from holdfast.records import sha256_hex

_HASH_DIGITS: Final = 8


def name_of(unit: bytes | str) -> str:
    """Return the name by which a unit is remembered.

    >>> name_of(b"u1")
    'bb82030d'
    """
    return sha256_hex(unit)[:_HASH_DIGITS]


def names_in(text: str) -> frozenset[str]:
    """Return the names of the units that `text` remembers."""
    return frozenset(text[at : at + _HASH_DIGITS] for at in range(0, len(text), _HASH_DIGITS))


def remember(text: str, names: Iterable[str], newest: int) -> str:
    """Return `text` with more `names`, limited to the `newest` ones.

    >>> remember("aaaaaaaabbbbbbbb", ["cccccccc"], 2)
    'bbbbbbbbcccccccc'
    """
    return (text + "".join(names))[-_HASH_DIGITS * newest :]
