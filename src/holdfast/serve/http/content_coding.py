"""Compressed request bodies: gzip and deflate, decompressed in bounded memory, large ones in a thread.

The limit of a body holds for what comes out. It is found exceeded while the output grows, so a body that would decompress to
a thousand times its size costs no more memory than the limit.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from holdfast.rollout.model.serving_config import ConnectionLimits
from holdfast.serve.http.exchange import Exchange

_WINDOWS: Final = {b"gzip": 31, b"x-gzip": 31, b"deflate": 15}
"""By coding, the window size of zlib, which also names the format (RFC 9110 section 8.4.1)."""
_ACCEPTED: Final = b"accept-encoding: gzip, deflate, identity\r\n"

INLINE_BYTES: Final = 64 * 1024
"""Bodies that decompress to no more are read at once, in a tenth of a millisecond; larger ones in a thread."""
_CHUNK_BYTES: Final = 256 * 1024


class TooLargeError(ValueError):
    """The body decompresses to more than the limit."""


def decompress(coding: bytes, body: bytes | bytearray, limit: int) -> bytes:
    """Return a decompressed body.

    Parameters
    ----------
    coding
        "gzip" or "deflate".
    body
        One compressed stream, and nothing behind it.
    limit
        The most bytes that may come out. No more than these and one chunk are ever in memory.

    Raises
    ------
    TooLargeError
        When more than `limit` come out.
    ValueError
        When the body is not such a stream, ends too early, or has bytes behind it.
    """
    stream = zlib.decompressobj(_WINDOWS[coding])
    rest: bytes | bytearray = body
    parts: list[bytes] = []
    size = 0
    while not stream.eof:
        try:
            part = stream.decompress(rest, min(_CHUNK_BYTES, limit - size + 1))
        except zlib.error as error:
            raise ValueError(f"the body is not {coding.decode()}: {error}") from None
        rest = stream.unconsumed_tail
        size += len(part)
        if size > limit:
            raise TooLargeError(f"a body is at most {limit} bytes, decompressed too")
        if not part and not rest and not stream.eof:
            raise ValueError(f"the body ends within its {coding.decode()} data")
        parts.append(part)
    if stream.unused_data:
        raise ValueError(f"there are bytes behind the {coding.decode()} data")
    return b"".join(parts)


class ContentDecoder:
    """Decompresses the bodies of requests, small ones at once and large ones one after the other in a thread.

    `limits` returns the limits of now. The bodies that wait for the thread are bounded by `held_bytes`, each counted with
    the size that it may come to. `failed` answers an exchange whose body met an error of the server's own.
    """

    def __init__(
        self, limits: Callable[[], ConnectionLimits], failed: Callable[[Exchange, Exception], None]
    ) -> None:
        self._failed = failed
        self._limits = limits
        self._waiting = 0
        self._thread = ThreadPoolExecutor(1, "decompress")  # starts with the first large body
        self._loop = asyncio.get_running_loop()

    def decode(self, exchange: Exchange, coding: bytes, then: Callable[[Exchange], None]) -> None:
        """Decompress the body of `exchange` and call `then`, now or later; or refuse it."""
        coding = coding.strip().lower()
        if coding in (b"", b"identity"):
            then(exchange)
            return
        if coding not in _WINDOWS:
            exchange.refuse(415, "HF509", "a body is sent in gzip, deflate or no coding", extra=_ACCEPTED)
            return
        limits = self._limits()
        try:
            exchange.body = decompress(coding, exchange.body, min(limits.body_bytes, INLINE_BYTES))
        except TooLargeError:
            self._decode_in_thread(exchange, coding, then, limits)
        except ValueError as error:
            _refuse_damaged(exchange, error)
        else:
            then(exchange)

    def _decode_in_thread(
        self, exchange: Exchange, coding: bytes, then: Callable[[Exchange], None], limits: ConnectionLimits
    ) -> None:
        if self._waiting and (self._waiting + 1) * limits.body_bytes > limits.held_bytes:
            exchange.refuse(503, "HF504", "too many compressed request bodies are being received")
            return

        def finish(decompressed: asyncio.Future[bytes]) -> None:
            self._waiting -= 1
            try:
                exchange.body = decompressed.result()
            except TooLargeError as error:
                exchange.refuse(413, "HF501", str(error))
            except ValueError as error:
                _refuse_damaged(exchange, error)
            except Exception as error:
                self._failed(exchange, error)
            else:
                then(exchange)

        self._waiting += 1
        self._loop.run_in_executor(
            self._thread, decompress, coding, exchange.body, limits.body_bytes
        ).add_done_callback(finish)

    def close(self) -> None:
        """Let no further body wait, and leave the thread to end."""
        self._thread.shutdown(wait=False, cancel_futures=True)


def _refuse_damaged(exchange: Exchange, error: ValueError) -> None:
    exchange.refuse(400, "HF508", str(error))
