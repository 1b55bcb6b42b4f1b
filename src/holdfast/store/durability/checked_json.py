"""JSON files that carry the SHA-256 of their content, so that damage is found when they are read."""

from __future__ import annotations

import json
from typing import Any

from holdfast.records import canonical_json, sha256_hex


def encode(content: dict[str, Any]) -> bytes:
    """Return `content` as canonical JSON with its SHA-256.

    >>> decode(encode({"rows": 3}))
    {'rows': 3}
    """
    return canonical_json({"sha256": sha256_hex(canonical_json(content)), "content": content}).encode()


def decode(data: bytes) -> dict[str, Any]:
    """Return the content of a file that `encode` wrote; `ValueError` if it is damaged."""
    try:
        content: dict[str, Any] = json.loads(data)["content"]
        intact = encode(content) == data
    except (KeyError, TypeError) as error:
        raise ValueError("it is no JSON with a SHA-256") from error
    if not intact:
        raise ValueError("its SHA-256 is not that of its content")
    return content
