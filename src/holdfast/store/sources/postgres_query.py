"""Read the rows of a batch from PostgreSQL, in a child process that can be killed.

A stopped server blocks a client for ever, whatever time-outs are set, because its machine still acknowledges what is sent.
So the rows are read by a child (`postgres_worker.py`), and the parent waits no longer than the deadline.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from typing import Final
from urllib.parse import unquote, urlsplit

import pyarrow as pa

from holdfast.errors import HoldfastError, InputError, UnavailableError, missing_extra
from holdfast.feeds.postgres_query import BatchQuery
from holdfast.records import check_name, sha256_hex
from holdfast.settings import resolve
from holdfast.store.sources import postgres_worker
from holdfast.store.sources.arrow_tables import plain
from holdfast.store.sources.canonical_order import canonical
from holdfast.store.sources.delivery import Rows, refused, too_large, unanswered
from holdfast.store.sources.memory import TEXT_TIMES, Memory, TooLargeError
from holdfast.store.sources.memory_room import find_room

SCHEMES: Final = frozenset({"postgresql", "postgres"})


def shown(url: str) -> str:
    """Return the URL of a database without user, password and options.

    >>> shown("postgresql://u:secret@db.example:5432/dw?sslkey=k")
    'postgresql://db.example:5432/dw'
    """
    parts = urlsplit(url)
    return f"postgresql://{parts.netloc.rpartition('@')[2]}{parts.path}"


def ask(source: BatchQuery, *, deadline_seconds: float, limit_bytes: int) -> Rows:
    """Return the rows of the query now, read in one REPEATABLE READ, READ ONLY transaction.

    Raises `InputError` HF103 when the URL cannot be used, HF201 when the database refuses the query, HF202 when it returns
    a type that no column can be, and `UnavailableError` HF209 when it cannot be reached or does not respond in time.
    """
    check_name(source.batch, "batch")
    url = resolve(source.url)
    if urlsplit(url).scheme not in SCHEMES:
        raise InputError(
            "HF103",
            "the URL of a query begins with postgresql://",
            state="nothing was loaded",
            next_command="set the variable that the declaration names to a URL such as postgresql://reader@db.example/warehouse",
        )
    name = name_of(source)
    seconds = source.deadline_seconds or deadline_seconds
    stream = _read(name, url, source, seconds, limit_bytes)
    table = pa.ipc.open_stream(pa.BufferReader(stream)).read_all()
    memory = Memory(limit_bytes)
    try:
        memory.hold(len(stream))
        memory.hold_rows(table.num_rows, table.num_columns, table.nbytes)
        ordered, digested = canonical(plain(table))
    except (TooLargeError, MemoryError) as error:
        room = error.room if isinstance(error, TooLargeError) else find_room()
        raise too_large(name, limit_bytes, in_memory=True, room=room) from error
    return Rows(name, ordered, digested)


def name_of(source: BatchQuery) -> str:
    """Return what the ledger keeps of where the rows came from. Raises `InputError` HF103 if the URL is not set."""
    return f"{shown(resolve(source.url))} query {sha256_hex(source.query)[:8]}"


def _read(name: str, url: str, source: BatchQuery, seconds: float, limit_bytes: int) -> bytes:
    request = {
        "url": url,
        "query": source.query.strip().rstrip(";"),
        "batch": source.batch if "$1" in source.query else None,
        "deadline_ms": max(1, round(seconds * 1000)),
        # A result of this size takes all that it may before its rows are ordered.
        "limit_bytes": Memory(limit_bytes).left_bytes // TEXT_TIMES,
    }
    try:
        # -P: the child's own directory is no place to import from.
        done = subprocess.run(
            [sys.executable, "-P", postgres_worker.__file__],
            input=json.dumps(request).encode(),
            capture_output=True,
            timeout=seconds,
            check=False,
            env=os.environ | {"PYTHONWARNINGS": "ignore"},
        )
    except subprocess.TimeoutExpired as error:
        raise unanswered(name, f"did not answer within {seconds:g} seconds") from error
    if done.returncode:
        raise _why(name, url, done, limit_bytes)
    return done.stdout


def _why(name: str, url: str, done: subprocess.CompletedProcess[bytes], limit_bytes: int) -> HoldfastError:
    message = _without_secrets(" ".join(done.stderr.decode("utf-8", "replace").split()), url)[-500:]
    match done.returncode:
        case postgres_worker.REFUSED:
            return refused(name, f"refuses the query: {message}")
        case postgres_worker.UNAVAILABLE:
            return unanswered(name, f"did not answer: {message}")
        case postgres_worker.TOO_LARGE:
            return too_large(name, limit_bytes, in_memory=True)
        case postgres_worker.NOT_INSTALLED:
            return missing_extra("postgres", f"the source {name}", state="nothing was loaded")
        case code if code < 0:
            ended = signal.Signals(-code).name
            return UnavailableError(
                "HF209",
                f"the source {name} could not be read: {ended} ended the reader, most likely for want of memory",
                state="nothing was loaded",
                next_command="deliver it as several batches, or raise ulimit -v or the memory limit of the container",
            )
        case code:
            return unanswered(name, f"could not be read: the reader ended with status {code} ({message})")


def _without_secrets(message: str, url: str) -> str:
    parts = urlsplit(url)
    secrets = {url, parts.query, parts.password or "", unquote(parts.password or "")}
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        message = message.replace(secret, "***")
    return re.sub(r"(?i)(password=)\S+", r"\1***", message)
