"""Find a member that a JSON document names twice: readers differ in which of the two counts (RFC 8259 section 4).

msgspec takes the last without an error. Counting the names costs microseconds; only a document in which the count differs
from what was decoded is read again, member by member.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

READ_BYTES: Final = 256 * 1024
"""The longest document that is read again: more would hold up other requests."""
_SPACED: Final = re.compile(rb'"[ \t\r\n]+:')


class _RepeatedError(ValueError):
    """An object has two members of this name."""


def find_repeated_name(document: bytes | bytearray | memoryview, names: int) -> str:
    r"""Return why a decoded JSON document is refused: an object of it has two members of one name. Empty if none has.

    Parameters
    ----------
    document
        The document.
    names
        How many members were decoded. With fewer than it has, the document is read again; in one of more than
        `READ_BYTES` they are only counted, one by one, and it is refused if that gives another number.

    >>> find_repeated_name(b'{"a": {"a": ":"}}', 2)
    ''
    >>> find_repeated_name(rb'{"a": 1, "\u0061": 2}', 1)
    "the body names 'a' twice"
    """
    text = bytes(document)
    if count_names(text) == names:
        return ""
    if len(text) > READ_BYTES:
        if _count_exactly(text) == names:
            return ""
        return "the body names a member twice, or one that is null or unknown, which a request of this size may not"
    try:
        json.loads(text, object_pairs_hook=_checked, parse_int=float, parse_float=float)
    except _RepeatedError as error:
        return f"the body names {str(error)[:64]!r} twice"
    except ValueError:  # what the decoder skipped, it did not check
        return "the body is not JSON in UTF-8"
    except RecursionError:
        return "the body is nested too deeply"
    return ""


def count_names(text: bytes) -> int:
    r"""Return how many strings of a JSON document are followed by a colon.

    These are its members, and the strings that begin with a colon.

    >>> count_names(b'{"a" : "b:c", "d": {"e\\": 1": 2}}')
    3
    """
    if b"\\" in text:
        text = text.replace(b"\\\\", b"").replace(b'\\"', b"")
    return text.count(b'":') + len(_SPACED.findall(text))


def _count_exactly(text: bytes) -> int:
    """Return how many members a valid JSON document has: as `count_names`, without the strings that begin with a colon."""
    if b"\\" in text:
        text = text.replace(b"\\\\", b"").replace(b'\\"', b"")
    after_strings = text.split(b'"')[2::2]
    return sum(each.lstrip()[:1] == b":" for each in after_strings)


def count_members(document: object) -> int:
    """Return how many members the objects of a decoded document have.

    >>> count_members({"a": [{"b": 1}, {"b": 2}]})
    3
    """
    if isinstance(document, dict):
        return len(document) + sum(map(count_members, document.values()))
    return sum(map(count_members, document)) if isinstance(document, list) else 0


def _checked(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise _RepeatedError(name)
        found[name] = value
    return found
