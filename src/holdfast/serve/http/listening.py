"""The socket that a server listens on: bound or inherited, and closed without a reset connection.

When its listening socket closes, a connection is reset that the kernel has taken and no process accepted. So a server that
owns the socket alone first drops new handshakes, which the client repeats, then accepts what waits, then closes.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import select
import socket
import struct
from contextlib import suppress
from pathlib import Path
from typing import Final

from holdfast.errors import InputError

SETTLE_SECONDS: Final = 0.1
"""How long a handshake that has begun may take to end; then it is accepted too."""
WAIT_SECONDS: Final = 1.0
"""The longest wait for the connections that wait."""
_PAUSE_SECONDS: Final = 0.002
_SO_ATTACH_FILTER: Final = 26
_DROP_SYN: Final = ((0x30, 0, 0, 13), (0x45, 0, 1, 0x02), (0x06, 0, 0, 0), (0x06, 0, 0, 0xFFFFFFFF))
"""A classic BPF program over the TCP header: drop a segment with the flag SYN in byte 13, keep every other."""


def bind(host: str, port: int) -> socket.socket:
    """Return a socket that is bound to the address. Port 0 takes a free one. Raises `InputError` HF507 if it is taken."""
    bound: socket.socket | None = None
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, where = found[0]
        bound = socket.socket(family, kind, protocol)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(where)
    except OSError as error:
        if bound is not None:
            bound.close()
        raise InputError(
            "HF507",
            f"cannot listen on {host}:{port}: {error.strerror or error}",
            state="no server was started",
            next_command="set HOLDFAST_HOST and HOLDFAST_PORT",
        ) from error
    bound.setblocking(False)
    return bound


def inherit(descriptor: int) -> socket.socket:
    """Return the bound socket of `descriptor`, which other processes may share. Raises `InputError` HF507 if it is none."""
    try:
        bound = socket.socket(fileno=descriptor)
        bound.getsockname()
    except OSError as error:
        raise InputError(
            "HF507", f"descriptor {descriptor} is no socket to listen on", state="no server was started"
        ) from error
    bound.setblocking(False)
    return bound


def address_of(bound: socket.socket) -> tuple[str, int]:
    """Return host and port of a bound socket, as they stand in a URL."""
    host, port = bound.getsockname()[:2]
    return (f"[{host}]" if ":" in host else host), port


def is_held_by(process: int, bound: socket.socket) -> bool:
    """Return True if another process has the same socket open, or may have it: a process of another user does not show it."""
    inode = f"socket:[{os.fstat(bound.fileno()).st_ino}]"
    try:
        links = list(Path(f"/proc/{process}/fd").iterdir())
    except PermissionError:
        return True
    except OSError:  # it has ended, or the system has no /proc
        return False
    for link in links:
        with suppress(OSError):
            if str(link.readlink()) == inode:
                return True
    return False


async def settle(bound: socket.socket) -> None:
    """Let no new handshake begin, and wait until the loop has accepted every connection that waits.

    To be called while the loop accepts connections, by the only process that has the socket, just before it is closed.
    """
    loop = asyncio.get_running_loop()
    with suppress(OSError):
        _drop_handshakes(bound)
    begun = loop.time()
    while True:
        await asyncio.sleep(_PAUSE_SECONDS)
        elapsed = loop.time() - begun
        if elapsed >= WAIT_SECONDS or (elapsed >= SETTLE_SECONDS and not _has_waiting(bound)):
            return


def _drop_handshakes(bound: socket.socket) -> None:
    program = b"".join(struct.pack("HBBI", *each) for each in _DROP_SYN)
    kept = ctypes.create_string_buffer(program, len(program))
    described = struct.pack("HL", len(_DROP_SYN), ctypes.addressof(kept))
    bound.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, described)


def _has_waiting(bound: socket.socket) -> bool:
    polled = select.poll()
    polled.register(bound, select.POLLIN)
    return bool(polled.poll(0))
