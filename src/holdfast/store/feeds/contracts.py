"""Rows of `contracts`, and their copies as files: every contract that judged a row, to compare any two years later.

A data file's footer names its contract by hash, and the copies resolve that hash even when the ledger is lost. A copy's name is
the SHA-256 of its bytes. Copies are never removed: a contract is small, and the rows of a removed file may come back from a
backup.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, bindparam, func, select

from holdfast.contract import Contract
from holdfast.errors import NotFoundError
from holdfast.records import check_name, sha256_hex
from holdfast.store.db import events, rows, schema
from holdfast.store.db.statements import LIVE, Prepared, inserting, total
from holdfast.store.durability import fsync

ACCEPTED: Final = "contract.accepted"
"""The kind of the event by which an operator accepts a change of contract."""

_CONTRACTS: Final = schema.contracts
_BATCHES: Final = schema.batches
_SHORTEST: Final = 6
_NEWEST: Final = Prepared(
    select(_BATCHES.c.contract_hash)
    .where(_BATCHES.c.feed == bindparam("of_feed"), LIVE)
    .order_by(_BATCHES.c.table_version.desc())
    .limit(1)
)


CONTRACTS_DIRECTORY: Final = "contracts"
"""Where the copies lie, under the store's root: `contracts/<hash>.json`."""
_SYNCED: Final[set[Path]] = set()


@dataclass(frozen=True, slots=True)
class ContractRow:
    """One contract; `first_used_at_us` is when it first judged a row, microseconds since 1970 UTC."""

    contract_hash: str
    contract_json: str
    first_used_at_us: int


@dataclass(frozen=True, slots=True)
class ContractUse:
    """The live batches and rows of `feed` that a contract admitted."""

    feed: str
    contract_hash: str
    batches: int
    rows_loaded: int


def put(connection: Connection, contract: Contract, *, now_us: int) -> None:
    """Insert `contract` in the caller's transaction; an existing row stays as it is."""
    values = {"contract_hash": contract.hash, "contract_json": contract.to_json(), "first_used_at_us": now_us}
    connection.execute(inserting(connection, _CONTRACTS).values(values).on_conflict_do_nothing())


def find(connection: Connection, contract_hash: str) -> Contract | None:
    """Return the contract of that full hash; None if it is not kept."""
    query = select(_CONTRACTS.c.contract_json).where(_CONTRACTS.c.contract_hash == contract_hash)
    found = connection.execute(query).scalar_one_or_none()
    return None if found is None else Contract.from_json(found)


def get(connection: Connection, beginning: str) -> Contract:
    """Return the contract whose hash begins with `beginning`, of at least six hexadecimal digits.

    Raises `NotFoundError` HF303 when there is none, or more than one.
    """
    query = select(_CONTRACTS.c.contract_json).where(
        _CONTRACTS.c.contract_hash.startswith(beginning, autoescape=True)
    )
    found = connection.execute(query.limit(2)).scalars().all() if len(beginning) >= _SHORTEST else []
    if len(found) != 1:
        what = "more than one contract has" if found else "no contract in the ledger has"
        raise NotFoundError(
            "HF303",
            f"{what} a hash that begins with {beginning!r} ({_SHORTEST} digits at least)",
            next_command="holdfast contract history",
        )
    return Contract.from_json(found[0])


def everything(connection: Connection) -> list[ContractRow]:
    """Return all contracts, the oldest first."""
    query = select(_CONTRACTS).order_by(_CONTRACTS.c.first_used_at_us, _CONTRACTS.c.contract_hash)
    return rows.read(connection, query, ContractRow)


def newest_of(connection: Connection, feed: str) -> str | None:
    """Return the hash of the contract of the newest live batch of `feed`, the last of `uses`; None if none is live."""
    found: str | None = _NEWEST.value(connection, {"of_feed": feed})
    return found


def uses(connection: Connection, feed: str | None = None) -> list[ContractUse]:
    """Return which contracts admitted the live batches of `feed` (None: every feed), in the order of first use."""
    of = (_BATCHES.c.feed, _BATCHES.c.contract_hash)
    query = (
        select(*of, func.count(), total(_BATCHES.c.rows_loaded))
        .where(LIVE)
        .group_by(*of)
        .order_by(_BATCHES.c.feed, func.min(_BATCHES.c.table_version), _BATCHES.c.contract_hash)
    )
    if feed is not None:
        query = query.where(_BATCHES.c.feed == feed)
    return [ContractUse(*row) for row in connection.execute(query)]


def live_batches(connection: Connection, feed: str, contract_hash: str, *, limit: int) -> list[str]:
    """Return the oldest live batches of `feed` that were loaded under that contract, at most `limit`."""
    query = (
        select(_BATCHES.c.batch)
        .where(_BATCHES.c.feed == feed, _BATCHES.c.contract_hash == contract_hash, LIVE)
        .order_by(_BATCHES.c.table_version)
        .limit(limit)
    )
    return list(connection.execute(query).scalars())


def accept(
    connection: Connection,
    subject: str,
    old_hash: str,
    new_hash: str,
    *,
    explanation: str,
    actor: str,
    now_us: int,
) -> None:
    """Record that `actor` accepts the change of the contract of `subject`, a feed or a model, between the two.

    Parameters
    ----------
    subject
        Name of a feed or of a model.
    old_hash, new_hash
        The contracts between which it changes.
    explanation
        The differences, and the reason of the operator.
    actor
        Name of the operator.
    now_us
        Microseconds since 1970 UTC.
    """
    events.append(
        connection,
        at_us=now_us,
        kind=ACCEPTED,
        subject=_subject(subject, old_hash, new_hash),
        explanation=explanation,
        actor=actor,
    )


def is_accepted(connection: Connection, subject: str, old_hash: str, new_hash: str) -> bool:
    """Return True if an operator accepted that change."""
    named = _subject(subject, old_hash, new_hash)
    return bool(events.newest(connection, subject=named, kind=ACCEPTED, limit=1))


def _subject(subject: str, old_hash: str, new_hash: str) -> str:
    """Return a change of contract as the subject of an event, within its 127 characters."""
    return f"{check_name(subject, 'feed or model')}/{old_hash[:16]}/{new_hash[:16]}"


def copy_path(root: Path, contract_hash: str) -> Path:
    """Return the path of the copy of that contract, whether it exists or not."""
    return root / CONTRACTS_DIRECTORY / f"{contract_hash}.json"


def keep_copy(root: Path, contract_hash: str, contract: str) -> None:
    """Keep `contract` (canonical JSON whose SHA-256 is `contract_hash`); it is durable on return.

    An existing copy is left alone, but each process syncs its name once: its writer may have been killed before it
    did.
    """
    path = copy_path(root, contract_hash)
    if not path.exists():
        fsync.make_directory(path.parent)
        fsync.replace(path, contract.encode())
    elif path not in _SYNCED:
        fsync.sync(path.parent)
    _SYNCED.add(path)


def read_copy(root: Path, contract_hash: str) -> str:
    """Return the contract of that hash as canonical JSON; `IntegrityError` HF301 if its copy is damaged."""
    named = f"the copy of contract {contract_hash[:12]}"
    try:
        data = copy_path(root, contract_hash).read_bytes()
    except OSError as error:
        raise fsync.damaged(named, "is missing") from error
    if sha256_hex(data) != contract_hash:
        raise fsync.damaged(named, "was altered: its SHA-256 is not its name")
    return data.decode()
