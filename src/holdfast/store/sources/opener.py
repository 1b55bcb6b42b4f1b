"""Open the source that an operator or a declaration names, as the bytes and rows of one delivery."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, TypeAlias, TypeVar
from urllib.parse import unquote, urlsplit

from holdfast.errors import InputError
from holdfast.feeds.postgres_query import BatchQuery
from holdfast.store.sources import local_files, object_store, postgres_query
from holdfast.store.sources.delivery import (
    DEADLINE_SECONDS,
    LIMIT_BYTES,
    Bundle,
    Rows,
    Source,
    refused,
    too_large,
    unanswered,
)


@dataclass(frozen=True, slots=True)
class Bounded:
    """A source with the deadline and the limit that it is opened with, wherever that happens."""

    spec: str | Path | BatchQuery
    deadline_seconds: float
    limit_bytes: int


Spec: TypeAlias = str | Path | BatchQuery | Bounded
"""A file, a directory, a pattern such as "in/*.csv", a URL (file://, s3://, gs://, az://), or a query for one batch."""

COUNT_SUFFIX: Final = ".count"
"""A file `day.csv.count` next to `day.csv` declares its number of rows: a number, or JSON with "rows"."""

T = TypeVar("T")

_URL: Final = re.compile(r"([a-z][a-z0-9+.-]+)://")
_DATABASES: Final = frozenset({"postgresql", "postgres"})


def open_source(
    spec: Spec | Source, *, deadline_seconds: float = DEADLINE_SECONDS, limit_bytes: int = LIMIT_BYTES
) -> Source:
    """Return the delivery at `spec`, all of it in memory; one that is open already is returned as it is.

    Parameters
    ----------
    deadline_seconds
        Deadline for the whole read; it holds even if the other system stops in the middle of a response.
    limit_bytes
        The largest delivery that is read, unpacked.

    A directory, a pattern or a prefix is one delivery of all the files below it, in the order of their names. Names that
    begin with "." or "_" are passed over; a file that is still being written (.tmp, .part ...), files of several kinds, and
    a file that changes while it is read are refused.

    Raises `InputError` HF201 when the source is missing, unreadable, empty, too large, changing or of an unknown kind,
    HF202 when a query returns a type that no column can be, HF103 when a URL cannot be used, and `UnavailableError`
    HF209 when there is no response within `deadline_seconds`.
    """
    match spec:
        case Bundle() | Rows():
            return spec
        case Bounded():
            return open_source(
                spec.spec, deadline_seconds=spec.deadline_seconds, limit_bytes=spec.limit_bytes
            )
        case BatchQuery():
            return postgres_query.ask(spec, deadline_seconds=deadline_seconds, limit_bytes=limit_bytes)
        case _:
            return _files(spec, deadline_seconds, limit_bytes)


def deliveries(spec: str, *, deadline_seconds: float = DEADLINE_SECONDS) -> tuple[str, ...]:
    """Return the files at `spec`, each as a source of its own, in the order of their names.

    Files that are still being written are left out. Raises as `open_source` does.
    """
    if _is_remote(spec):
        if not spec.endswith("/"):
            return (spec,)
        return _within(deadline_seconds, partial(object_store.names, spec), object_store.shown(spec))
    return local_files.names(_path(spec))


def _files(spec: str | Path, deadline_seconds: float, limit_bytes: int) -> Source:
    if isinstance(spec, str) and _is_remote(spec):
        name = object_store.shown(spec)
        bundle = _within(deadline_seconds, partial(object_store.read, spec, limit_bytes), name)
    else:
        path = str(spec) if isinstance(spec, Path) else _path(spec)
        bundle = _within(
            deadline_seconds, partial(local_files.read, path, limit_bytes), local_files.shown(path)
        )
    if sum(len(file.data) for file in bundle.files) > limit_bytes:
        raise too_large(bundle.name, limit_bytes)
    return bundle


def _is_remote(spec: str) -> bool:
    found = _URL.match(spec)
    if found is None or found[1] == "file":
        return False
    if found[1] in _DATABASES:
        raise InputError(
            "HF101",
            f"the source {postgres_query.shown(spec)} is a database: "
            "name its rows with --query, and their batch with --batch",
            state="nothing was loaded",
        )
    if found[1] not in object_store.SCHEMES:
        known = ", ".join(f"{scheme}://" for scheme in ("file", *sorted(object_store.SCHEMES), "postgresql"))
        raise refused(found[0], f"is of a kind that is not known: use {known}, or a path")
    return True


def _path(spec: str) -> str:
    if not spec.startswith("file://"):
        return spec
    parts = urlsplit(spec)
    if parts.netloc not in ("", "localhost"):
        raise refused(spec, "names another machine: file:// has three slashes before a path")
    return unquote(parts.path)


def _within(deadline_seconds: float, work: Callable[[], T], name: str) -> T:
    """Return or raise what `work` does; `UnavailableError` HF209 about the source `name` if it takes longer.

    The thread of work that never ends is left behind: a call into a stopped system cannot be cancelled. It does not keep
    the process alive.
    """
    done: list[T] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            done.append(work())
        except BaseException as error:  # raised again, in the thread that waits
            failed.append(error)

    thread = threading.Thread(target=run, name=f"reading {name}", daemon=True)
    thread.start()
    thread.join(deadline_seconds)
    if failed:
        raise failed[0]
    if not done:
        raise unanswered(name, f"did not answer within {deadline_seconds:g} seconds")
    return done[0]


def rows_declared(spec: Spec) -> int | None:
    """Return the number of rows that the control file of `spec` declares.

    None if `spec` is no file, or has no control file next to it.

    Raises `InputError` HF201 when the control file cannot be read: what the sender meant must not be guessed.
    """
    place = spec.spec if isinstance(spec, Bounded) else spec
    if not isinstance(place, (str, Path)) or "://" in str(place):
        return None
    path = Path(place)
    control = path.with_name(path.name + COUNT_SUFFIX)
    try:
        text = control.read_text()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise _unreadable_count(control) from error
    try:
        found = json.loads(text)
    except ValueError as error:
        raise _unreadable_count(control) from error
    rows = found.get("rows") if isinstance(found, dict) else found
    if isinstance(rows, bool) or not isinstance(rows, int) or rows < 0:
        raise _unreadable_count(control)
    return rows


def _unreadable_count(control: Path) -> InputError:
    return InputError(
        "HF201",
        f'the control file {control.name} holds neither a number of rows nor JSON such as {{"rows": 900}}',
        state="nothing was loaded",
    )
