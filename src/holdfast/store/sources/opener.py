"""Open the source that an operator or a declaration names, as the bytes and rows of one delivery."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, TypeAlias
from urllib.parse import unquote, urlsplit

from holdfast.errors import InputError
from holdfast.feeds.postgres_query import BatchQuery
from holdfast.store.sources import local_files, object_store, postgres_query
from holdfast.store.sources.deadline import within
from holdfast.store.sources.delivery import (
    DEADLINE_SECONDS,
    LIMIT_BYTES,
    Bundle,
    Rows,
    Source,
    refused,
    too_large,
)


@dataclass(frozen=True, slots=True)
class Bounded:
    """A source with the deadline and the limit that it is opened with, wherever that happens."""

    spec: str | Path | BatchQuery
    deadline_seconds: float
    limit_bytes: int


Spec: TypeAlias = str | Path | BatchQuery | Bounded
"""A file, a directory, a pattern such as "in/*.csv", a URL (file://, s3://, gs://, az://), or a query for one batch."""

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
        return within(deadline_seconds, partial(object_store.names, spec), object_store.shown(spec))
    return local_files.names(_path(spec))


def _files(spec: str | Path, deadline_seconds: float, limit_bytes: int) -> Source:
    if isinstance(spec, str) and _is_remote(spec):
        name = object_store.shown(spec)
        bundle = within(deadline_seconds, partial(object_store.read, spec, limit_bytes), name)
    else:
        path = str(spec) if isinstance(spec, Path) else _path(spec)
        bundle = within(
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
