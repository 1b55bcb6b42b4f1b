"""Read objects of a store such as S3: one, all below a prefix, or those that match a pattern.

Credentials come from the environment, never from the URL.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Mapping
from datetime import timedelta
from fnmatch import fnmatchcase
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final, TypeAlias
from urllib.parse import unquote, urlsplit

from holdfast.errors import HoldfastError, missing_extra
from holdfast.formatting import first_line
from holdfast.settings import is_s3_unencrypted
from holdfast.store.durability.failpoints import failpoint
from holdfast.store.sources.delivery import (
    Bundle,
    File,
    absent,
    all_finished,
    as_file,
    changed,
    is_data,
    is_unfinished,
    of_one_kind,
    refused,
    too_large,
    unanswered,
)

if TYPE_CHECKING:
    from obstore.store import ObjectStore

SCHEMES: Final = frozenset({"s3", "gs", "az"})

MOST_LISTED: Final = 100_000
"""The most objects that are listed for a pattern."""

_ESCAPED: Final = re.compile(r"[%?#*\[]")
"""What has a meaning in a URL or a pattern; in the name of an object it is escaped."""

_RETRIES: Final[Any] = {"max_retries": 4, "retry_timeout": timedelta(seconds=30)}

_Looks: TypeAlias = tuple[int, str | None, str | None]
"""Size, entity tag and version: an object that was replaced has another of them."""


def shown(url: str) -> str:
    """Return the URL without what could be a secret.

    >>> shown("s3://key:secret@bucket/day/?token=x")
    's3://bucket/day/'
    """
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def is_pattern(url: str) -> bool:
    """Return True if `url` can match several objects, by "*" or "[" as in a local path; one that ends in "/" is a prefix.

    >>> [is_pattern(f"s3://lake/parcels/{name}") for name in ("part-*.csv", "part-1.csv", "[1]/")]
    [True, False, False]
    """
    path = urlsplit(shown(url)).path
    return glob.has_magic(path) and not path.endswith("/")


def names(url: str) -> tuple[str, ...]:
    """Return the URL of each object of rows below the prefix or of the pattern `url`, in the order of their names."""
    store, key, base = _opened(url)
    pattern = is_pattern(url)
    try:
        if pattern and _exists(store, key):
            return (url,)
        prefix, found = _found(store, key, pattern=pattern)
    except HoldfastError:
        raise
    except Exception as error:
        raise _failed(shown(url), error) from error
    wanted = tuple(
        base + _ESCAPED.sub(lambda found: f"%{ord(found[0]):02X}", prefix + name)
        for name in sorted(found)
        if is_data(name) and not is_unfinished(name)
    )
    if not wanted:
        raise absent(shown(url)) if pattern else refused(shown(url), "holds no file of rows")
    return wanted


def read(url: str, limit_bytes: int) -> Bundle:
    """Read the delivery at `url`: every object below it if it ends in "/", those that match a pattern, or else the one object.

    An object whose name is the pattern itself is that object.
    """
    name = shown(url)
    store, key, _ = _opened(url)
    try:
        pattern = is_pattern(url) and not _exists(store, key)
        if key and not key.endswith("/") and not pattern:
            return Bundle(name, (_one(store, key, name, limit_bytes),), alone=True, limit_bytes=limit_bytes)
        return _several(store, key, name, limit_bytes, pattern=pattern)
    except HoldfastError:
        raise
    except Exception as error:
        raise _failed(name, error) from error


def _several(store: ObjectStore, key: str, name: str, limit_bytes: int, *, pattern: bool) -> Bundle:
    prefix, found = _found(store, key, pattern=pattern)
    if pattern and not found:
        raise absent(name)
    wanted = all_finished(found, name)
    if sum(found[each][0] for each in wanted) > limit_bytes:
        raise too_large(name, limit_bytes)
    files = []
    for each in wanted:
        files.append(as_file(each, _get(store, prefix + each, found[each], name), f"{name}: {each}"))
    failpoint("source.read")
    if _found(store, key, pattern=pattern)[1] != found:
        raise changed(name)
    return Bundle(name, of_one_kind(files, name), alone=False, limit_bytes=limit_bytes)


def _one(store: ObjectStore, key: str, name: str, limit_bytes: int) -> File:
    import obstore

    looks = _looks(obstore.head(store, key))
    if looks[0] > limit_bytes:
        raise too_large(name, limit_bytes)
    return as_file(key.rpartition("/")[2], _get(store, key, looks, name), name)


def _get(store: ObjectStore, key: str, looks: _Looks, name: str) -> bytes:
    """Return the object as it was listed.

    A store that knows If-Match refuses another one; what came is compared too.
    """
    import obstore
    from obstore.exceptions import NotFoundError, PreconditionError

    try:
        response = obstore.get(store, key, options={"if_match": looks[1]} if looks[1] else {})
        data = bytes(response.bytes())
    except (NotFoundError, PreconditionError) as error:
        raise changed(name) from error
    if _looks(response.meta) != looks or len(data) != looks[0]:
        raise changed(name)
    return data


def _found(store: ObjectStore, key: str, *, pattern: bool) -> tuple[str, dict[str, _Looks]]:
    """Return a prefix, and the objects below it: those that match `key` as a pattern, or all below the prefix `key`.

    For a pattern, the directory before its first wildcard is listed.
    """
    if not pattern:
        return key, _below(store, key)
    begins = key[: min(place for place in map(key.find, "*[") if place >= 0)]
    wanted = tuple(part for part, _ in groupby(key.split("/")))  # "**/**" is "**"
    fitting = {
        begins + name: looks
        for name, looks in _below(store, begins, most=MOST_LISTED).items()
        if _matches(tuple((begins + name).split("/")), wanted)
    }
    common = os.path.commonprefix(list(fitting))  # noqa: RUF071 - only whole parts of it are used
    prefix = common[: common.rfind("/") + 1]
    return prefix, {name.removeprefix(prefix): looks for name, looks in fitting.items()}


def _matches(parts: tuple[str, ...], pattern: tuple[str, ...]) -> bool:
    """Return True if the `parts` of a path match those of `pattern`, as `glob` matches the paths of files.

    A wildcard stays within one part and does not stand for the "." that a part begins with; "**" is any number of parts.

    >>> [_matches(tuple(name.split("/")), ("a", "*.csv")) for name in ("a/b.csv", "a/b/c.csv", "a/.b.csv")]
    [True, False, False]
    >>> [_matches(tuple(name.split("/")), ("a", "**", "c.csv")) for name in ("a/c.csv", "a/b/b/c.csv", "a/.b/c.csv")]
    [True, True, False]
    """
    if not pattern:
        return not parts
    first, rest = pattern[0], pattern[1:]
    if first == "**" and _matches(parts, rest):
        return True
    if not parts or (parts[0].startswith(".") and not first.startswith(".")):
        return False
    return fnmatchcase(parts[0], first) and _matches(parts[1:], pattern if first == "**" else rest)


def _below(store: ObjectStore, prefix: str, *, most: int | None = None) -> dict[str, _Looks]:
    """Return the objects whose names begin with `prefix`, by the rest of their names; HF201 for more than `most`."""
    import obstore

    # A store lists by whole parts of a path; a prefix that ends within a part is found among its siblings.
    directory = prefix[: prefix.rfind("/") + 1]
    found: dict[str, _Looks] = {}
    for page in obstore.list(store, prefix=(prefix if most is None else directory) or None):
        for meta in page:
            if meta["path"].startswith(prefix) and not meta["path"].endswith("/"):
                found[meta["path"].removeprefix(prefix)] = _looks(meta)
        if most is not None and len(found) > most:
            what = f"begins more than {most:,} names: write more before the first wildcard"
            raise refused(prefix, what)
    return found


def _exists(store: ObjectStore, key: str) -> bool:
    import obstore
    from obstore.exceptions import NotFoundError

    try:
        obstore.head(store, key)
    except (NotFoundError, FileNotFoundError):
        return False
    return True


def _looks(meta: Mapping[str, Any]) -> _Looks:
    return int(meta["size"]), meta.get("e_tag"), meta.get("version")


def _opened(url: str) -> tuple[ObjectStore, str, str]:
    """Return the bucket, the key or prefix in it, and the bucket's URL with a slash at its end."""
    try:
        from obstore.store import from_url
    except ImportError as error:
        raise missing_extra("s3", f"the source {shown(url)}", state="nothing was loaded") from error
    parts = urlsplit(shown(url))
    base = f"{parts.scheme}://{parts.netloc}/"
    options: Any = {"allow_http": True} if parts.scheme == "s3" and is_s3_unencrypted() else {}
    try:
        return (
            from_url(
                base,
                retry_config=_RETRIES,
                client_options=options,
            ),
            unquote(parts.path).lstrip("/"),
            base,
        )
    except Exception as error:
        raise refused(shown(url), f"cannot be used as a URL ({first_line(error)})") from error


def _failed(name: str, error: Exception) -> HoldfastError:
    from obstore import exceptions

    if isinstance(error, (exceptions.NotFoundError, FileNotFoundError)) or "NoSuchBucket" in str(error):
        return absent(name)
    if isinstance(error, (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError)):
        return refused(name, "may not be read with the credentials of the environment")
    return unanswered(name, f"did not answer ({first_line(error)[:300]})")
