"""The rules for labels: in the ledger, and in a file of each server, which needs them without the ledger.

Every server of a ledger tags its ids by the ledger's one secret, so that each verifies the ids of all. The file is
`<root>/serve/<model>/labels.json`, for the declared users alone. A ledger that was rebuilt gets its secret back from it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec
from sqlalchemy import Connection, or_, select

from holdfast.errors import IntegrityError, UnavailableError
from holdfast.feedback import SECRET_BYTES, LabelRules
from holdfast.records import Corrections, sha256_hex
from holdfast.store.db import rows
from holdfast.store.db.schema import label_policies, secrets, servers
from holdfast.store.db.statements import inserting
from holdfast.store.durability import fsync
from holdfast.store.serving.aborts import SERVERS_DIRECTORY

_PURPOSE: Final = "prediction ids"
_FILE: Final = "labels.json"


class _Stored(msgspec.Struct, frozen=True):
    corrections: Corrections
    secret_hex: str
    untagged: dict[str, int | None]


class _Checksummed(msgspec.Struct, frozen=True):
    sha256: str
    rules: msgspec.Raw


def read(connection: Connection, model: str) -> LabelRules:
    """Return the rules for labels of `model`. The secret is empty before the first server has announced itself."""
    secret = connection.execute(select(secrets.c.secret_hex).where(secrets.c.purpose == _PURPOSE))
    policy = connection.execute(select(label_policies.c.corrections).where(label_policies.c.model == model))
    segment = servers.c.tagged_from_segment
    untagged = connection.execute(
        select(servers.c.server, segment).where(or_(segment.is_(None), segment > 1))
    )
    return LabelRules(
        corrections=policy.scalar_one_or_none() or "first",
        secret=bytes.fromhex(secret.scalar_one_or_none() or ""),
        untagged={row.server: row.tagged_from_segment for row in untagged},
    )


def has_secret(connection: Connection) -> bool:
    """Return True if the ledger has a secret."""
    query = select(secrets.c.purpose).where(secrets.c.purpose == _PURPOSE)
    return connection.execute(query).first() is not None


def ensure_secret(connection: Connection, proposed: bytes, *, now_us: int) -> None:
    """Store `proposed` as the ledger's secret, in the caller's transaction, unless it has one."""
    assert len(proposed) == SECRET_BYTES
    connection.execute(
        inserting(connection, secrets)
        .values(purpose=_PURPOSE, secret_hex=proposed.hex(), created_at_us=now_us)
        .on_conflict_do_nothing()
    )


def declare_corrections(connection: Connection, model: str, corrections: Corrections, *, now_us: int) -> None:
    """Store which of several labels of one prediction counts, in the caller's transaction."""
    rows.put(
        connection, label_policies, {"model": model, "corrections": corrections, "declared_at_us": now_us}
    )


def save(directory: Path, rules: LabelRules) -> None:
    """Write the rules to a server's directory, for the declared users alone. Raises `OSError` if it cannot be written."""
    encoded = msgspec.json.encode(_Stored(rules.corrections, rules.secret.hex(), dict(rules.untagged)))
    fsync.make_directory(directory)
    checksummed = msgspec.json.encode(_Checksummed(sha256_hex(encoded), msgspec.Raw(encoded)))
    fsync.replace(directory / _FILE, checksummed)


def load(directory: Path) -> LabelRules | None:
    """Return the rules of a server's directory; None if there are none. Raises `IntegrityError` HF316 if they were altered."""
    path = directory / _FILE
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        checksummed = msgspec.json.decode(data, type=_Checksummed)
        stored = msgspec.json.decode(checksummed.rules, type=_Stored)
        secret = bytes.fromhex(stored.secret_hex)
    except (msgspec.MsgspecError, ValueError) as error:
        raise _altered(path) from error
    if sha256_hex(bytes(checksummed.rules)) != checksummed.sha256 or len(secret) not in (0, SECRET_BYTES):
        raise _altered(path)
    return LabelRules(stored.corrections, secret, stored.untagged)


def kept_secret(root: Path) -> bytes:
    """Return the secret that a server under `root` keeps; empty if none has one.

    Raises `UnavailableError` HF316 if the only copies are those that this user may not read: a new secret would make the ids
    of all predictions so far invalid.
    """
    unreadable: OSError | None = None
    for path in sorted((root / SERVERS_DIRECTORY).glob(f"*/{_FILE}")):
        try:
            rules = load(path.parent)
        except IntegrityError:
            continue  # another one may be intact
        except OSError as error:
            unreadable = error
            continue
        if rules is not None and rules.secret:
            return rules.secret
    if unreadable is not None:
        raise UnavailableError(
            "HF316",
            f"{unreadable.filename} has the secret of prediction ids, and cannot be read: {unreadable.strerror}",
            state="the ledger has no secret yet, and none was made",
            next_command="as the owner of the file: HOLDFAST_ACCESS=group holdfast status",
        ) from unreadable
    return b""


def _altered(path: Path) -> IntegrityError:
    return IntegrityError(
        "HF316",
        f"{path} was altered",
        state="labels of predictions are not verified until the ledger answers",
        next_command="holdfast verify",
    )
