"""Unpack gzip and Zstandard, up to a limit: a megabyte of zeros may claim to be a terabyte."""

from __future__ import annotations

from typing import Final

import pyarrow as pa

_MAGIC: Final = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
_CHUNK_BYTES: Final = 1 << 24


class TooLargeError(Exception):
    """The content is larger than the limit when it is unpacked."""


def unpacked(data: bytes, limit_bytes: int) -> bytes:
    """Return `data`, unpacked if it begins as a packed file does, whatever its name.

    Raises `TooLargeError` beyond `limit_bytes`, and `OSError` if a packed file is damaged or truncated.
    """
    for magic, codec in _MAGIC.items():
        if data.startswith(magic):
            return _unpack(data, codec, limit_bytes)
    return data


def _unpack(data: bytes, codec: str, limit_bytes: int) -> bytes:
    chunks: list[bytes] = []
    size = 0
    with pa.CompressedInputStream(pa.BufferReader(data), codec) as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            size += len(chunk)
            if size > limit_bytes:
                raise TooLargeError
            chunks.append(chunk)
    return b"".join(chunks)
