"""Read objects of a store such as S3: one, or all below a prefix.

Credentials come from the environment, never from the URL.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, TypeAlias
from urllib.parse import unquote, urlsplit

from holdfast.errors import HoldfastError, missing_extra
from holdfast.formatting import first_line
from holdfast.store.durability.failpoints import failpoint
from holdfast.store.sources.delivery import (
    Bundle,
    File,
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


def names(url: str) -> tuple[str, ...]:
    """Return the URL of each object of rows below the prefix `url`, in the order of their names."""
    store, prefix, base = _opened(url)
    try:
        found = sorted(_below(store, prefix))
    except Exception as error:
        raise _failed(shown(url), error) from error
    wanted = tuple(f"{base}{prefix}{name}" for name in found if is_data(name) and not is_unfinished(name))
    if not wanted:
        raise refused(shown(url), "holds no file of rows")
    return wanted


def read(url: str, limit_bytes: int) -> Bundle:
    """Read the delivery at `url`: every object below it if it ends in "/", or else the one object."""
    name = shown(url)
    store, key, _ = _opened(url)
    try:
        if not key.endswith("/") and key:
            return Bundle(name, (_one(store, key, name, limit_bytes),), alone=True, limit_bytes=limit_bytes)
        return _prefix(store, key, name, limit_bytes)
    except HoldfastError:
        raise
    except Exception as error:
        raise _failed(name, error) from error


def _prefix(store: ObjectStore, prefix: str, name: str, limit_bytes: int) -> Bundle:
    found = _below(store, prefix)
    wanted = all_finished(found, name)
    if sum(found[each][0] for each in wanted) > limit_bytes:
        raise too_large(name, limit_bytes)
    files = []
    for each in wanted:
        files.append(as_file(each, _get(store, prefix + each, found[each], name), f"{name}: {each}"))
    failpoint("source.read")
    if _below(store, prefix) != found:
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


def _below(store: ObjectStore, prefix: str) -> dict[str, _Looks]:
    import obstore

    return {
        meta["path"].removeprefix(prefix): _looks(meta)
        for page in obstore.list(store, prefix=prefix or None)
        for meta in page
        if meta["path"].startswith(prefix) and not meta["path"].endswith("/")
    }


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
    try:
        return (
            from_url(base, retry_config=_RETRIES),
            unquote(parts.path).lstrip("/"),
            base,
        )
    except Exception as error:
        raise refused(shown(url), f"cannot be used as a URL ({first_line(error)})") from error


def _failed(name: str, error: Exception) -> HoldfastError:
    from obstore import exceptions

    if isinstance(error, (exceptions.NotFoundError, FileNotFoundError)) or "NoSuchBucket" in str(error):
        return refused(name, "does not exist")
    if isinstance(error, (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError)):
        return refused(name, "may not be read with the credentials of the environment")
    return unanswered(name, f"did not answer ({first_line(error)[:300]})")
