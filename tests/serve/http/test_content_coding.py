"""Compressed bodies: what comes out is bounded, however small what goes in is."""

from __future__ import annotations

import asyncio
import gzip
import tracemalloc
import zlib
from collections.abc import Callable

import pytest

from holdfast.rollout.model.serving_config import ConnectionLimits
from holdfast.serve.http.content_coding import ContentDecoder, TooLargeError, decompress
from holdfast.serve.http.exchange import Exchange

CODINGS: dict[bytes, Callable[[bytes], bytes]] = {b"gzip": gzip.compress, b"deflate": zlib.compress}


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("size", [0, 1, 65_536, 65_537, 262_144, 1_000_000])
def test_a_body_of_any_size_up_to_the_limit_comes_out_whole(coding: bytes, size: int) -> None:
    body = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    packed = CODINGS[coding](body)
    assert decompress(coding, packed, size) == body
    if size:
        with pytest.raises(TooLargeError):
            decompress(coding, packed, size - 1)


@pytest.mark.parametrize("coding", CODINGS)
def test_a_body_that_would_grow_a_thousandfold_takes_no_more_memory_than_the_limit(coding: bytes) -> None:
    packed = CODINGS[coding](bytes(100_000_000))
    limit = 1_000_000
    tracemalloc.start()
    with pytest.raises(TooLargeError):
        decompress(coding, packed, limit)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 3 * limit


@pytest.mark.parametrize("coding", CODINGS)
def test_what_is_no_whole_stream_is_refused(coding: bytes) -> None:
    packed = CODINGS[coding](b"body " * 1_000)
    broken = bytearray(packed)
    broken[len(packed) // 2] ^= 0xFF
    for wrong in (b"", packed[:-1], packed[:5], packed + b"x", packed + packed, bytes(broken), b"plain text"):
        with pytest.raises(ValueError, match=r"body|behind"):
            decompress(coding, wrong, 100_000)


class Recorder:
    """The place for responses of a connection."""

    def __init__(self) -> None:
        self.statuses: list[int] = []

    def reply(self, _exchange: Exchange, status: int, _body: bytes, _type: bytes, _extra: bytes) -> None:
        self.statuses.append(status)


def test_bodies_that_wait_to_be_decompressed_are_bounded_together() -> None:
    """Each may come to the limit of a body, so their number is bounded by that of all bodies together."""
    limits = ConnectionLimits(body_bytes=400_000, held_bytes=1_000_000)
    recorder = Recorder()
    decoded: list[int] = []
    packed = gzip.compress(bytes(300_000))

    async def send_many() -> None:
        decoder = ContentDecoder(lambda: limits, lambda _, error: pytest.fail(str(error)))
        for _ in range(10):
            exchange = Exchange(recorder, b"POST", b"/", {}, packed)
            decoder.decode(exchange, b"GZIP", lambda each: decoded.append(len(each.body)))
        assert recorder.statuses == [503] * 8
        async with asyncio.timeout(60):
            while len(decoded) < 2:
                await asyncio.sleep(0)
        small = Exchange(recorder, b"POST", b"/", {}, gzip.compress(b"small"))
        decoder.decode(small, b"gzip", lambda each: decoded.append(len(each.body)))
        decoder.close()

    asyncio.run(send_many())
    assert decoded == [300_000, 300_000, 5]
