"""Contract changes: decide if a delivery may have another contract than its feed's newest batch (R92, R93).

A compatible change is loaded and reported; one that asks others to follow is loaded with a warning; a breaking one is
refused with HF210, unless an operator accepted it (`holdfast contract accept`). A change by which loaded rows would be
misread cannot be accepted: miles and kilometres in one column are refused for as long as the miles are there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from holdfast.contract import Contract
from holdfast.contract.evolution.compatibility import (
    Boundary,
    Change,
    Compatibility,
    Difference,
    Evolution,
    describe_changes,
    worst,
)
from holdfast.contract.evolution.diff import compare
from holdfast.declaration import Model
from holdfast.errors import NotFoundError, RefusedError
from holdfast.feeds import Feed
from holdfast.records import Level, Violation
from holdfast.store import Store
from holdfast.store.db import events
from holdfast.store.db.ledger import Transaction
from holdfast.store.feeds import contracts
from holdfast.store.files import blobs
from holdfast.store.models import versions
from holdfast.train.artifact import read_metadata

CHECK: Final = "contract"
"""The check of a violation of a feed's history by its contract."""

CHANGED: Final = "contract.changed"
"""The kind of the event that reports the first load under another contract."""


_SHOWN: Final = 5
_CURED_BY_KEEPING: Final = (Difference.ADDED_REQUIRED, Difference.REMOVED_REQUIRED)
"""Changes that are compatible when the column may be missing."""


@dataclass(frozen=True, slots=True)
class ContractChange:
    """The contract of a feed is not that of its newest batch.

    `evolution` is None if the ledger does not have the old contract.
    """

    feed: str
    """Name of the feed or of the model that the contract belongs to."""
    before: str
    after: str
    evolution: Evolution | None
    accepted: bool

    @property
    def violations(self) -> tuple[Violation, ...]:
        """Return a warning for each change that asks others to follow, or that an operator accepted as breaking.

        They are kept with the batch.
        """
        if self.evolution is None:
            text = f"contract {self.after[:12]} follows {self.before[:12]}, which the ledger does not have to compare with"
            return (Violation(CHECK, "", Level.WARNING, text),)
        found = [
            change
            for change in self.evolution.changes
            if change.at(Boundary.ROWS) is not Compatibility.COMPATIBLE
        ]
        return tuple(
            Violation(
                CHECK,
                change.column,
                Level.WARNING,
                f"{change.difference}, accepted by an operator" if self.accepted else str(change),
            )
            for change in found
        )

    @property
    def explanation(self) -> str:
        """Return a description of what changed."""
        text = f"contract {self.before[:12]} -> {self.after[:12]}"
        if self.evolution is None:
            return f"{text}; the old one is not in the ledger"
        accepted = ", accepted" if self.accepted else ""
        return f"{text}, {self.evolution.at(Boundary.ROWS)}{accepted}: {describe_changes(self.evolution.changes)}"


def check(connection: Transaction, feed: Feed) -> ContractChange | None:
    """Compare the contract of `feed` with that of its newest batch; None if equal or nothing was loaded yet.

    Raises `RefusedError` HF210 when the change breaks what is loaded, or what senders deliver, and no operator accepted it.
    Raises it also when live rows would be read wrongly, accepted or not.
    """
    before = contracts.newest_of(connection, feed.name)
    if before is None or before == feed.contract.hash:
        return None
    refuse_misreading(connection, feed, state="nothing was loaded")
    old = contracts.find(connection, before)
    evolution = None if old is None else compare(old, feed.contract)
    accepted = contracts.is_accepted(connection, feed.name, before, feed.contract.hash)
    if evolution is not None and evolution.at(Boundary.ROWS) is Compatibility.BREAKING and not accepted:
        raise _refused(feed, evolution)
    return ContractChange(feed.name, before, feed.contract.hash, evolution, accepted)


def has_changed(
    connection: Transaction, feed: str, contract_hash: str, change: ContractChange | None
) -> bool:
    """Return True if `feed` was loaded under another contract since `check` returned `change`.

    Called in the transaction that commits the delivery under `contract_hash`, because two loads may be checked at once.
    """
    newest = contracts.newest_of(connection, feed)
    return newest not in ((None, contract_hash) if change is None else (change.before,))


def record(
    connection: Transaction, contract: Contract, change: ContractChange | None, *, now_us: int
) -> None:
    """Insert the contract of a delivery, and the event of its change, in the transaction that commits it."""
    contracts.put(connection, contract, now_us=now_us)
    if change is not None:
        events.append(
            connection, at_us=now_us, kind=CHANGED, subject=change.feed, explanation=change.explanation
        )


def accept(store: Store, feed: Feed, *, reason: str, actor: str, now_us: int) -> ContractChange:
    """Record that an operator accepts the change of `feed` to the declared contract.

    The next load is admitted; the event keeps every difference and `reason`. Raises `NotFoundError` HF410 when there is
    nothing to accept, and `RefusedError` HF210 while rows are live that would be read wrongly.

    Parameters
    ----------
    reason
        Why, in the words of the operator; kept with the event.
    actor
        Name of the operator.
    now_us
        Microseconds since 1970 UTC.
    """
    with store.ledger.write() as connection:
        before, after = contracts.newest_of(connection, feed.name), feed.contract
        if before is None or before == after.hash:
            why = (
                "has no loaded batch" if before is None else "was loaded under the contract that is declared"
            )
            raise NotFoundError(
                "HF410",
                f"feed {feed.name!r} {why}: there is no change to accept",
                state="nothing was changed",
                next_command="holdfast contract show",
            )
        refuse_misreading(connection, feed, state="nothing was changed")
        old = contracts.find(connection, before)
        evolution = None if old is None else compare(old, after)
        change = ContractChange(feed.name, before, after.hash, evolution, accepted=True)
        contracts.put(connection, after, now_us=now_us)
        text = f"{reason}; {change.explanation}"
        contracts.accept(
            connection, feed.name, before, after.hash, explanation=text, actor=actor, now_us=now_us
        )
    return change


def accept_for_callers(store: Store, model: Model, *, reason: str, actor: str, now_us: int) -> ContractChange:
    """Record that an operator accepts that callers of `model` must follow to its declared contract.

    Callers that stay with the contract of the champion will be refused; the signature gate of the next judgement counts it.

    Raises `NotFoundError` HF410 when there is no champion or no change, `RefusedError` HF210 when the change breaks callers
    that cannot follow: that is a new model.

    Parameters
    ----------
    reason
        Why, in the words of the operator; kept with the event.
    actor
        Name of the operator.
    now_us
        Microseconds since 1970 UTC.
    """
    with store.ledger.read() as connection:
        champion = versions.champion(connection, model.name)
    if champion is None or champion.contract_hash == model.contract.hash:
        raise NotFoundError(
            "HF410",
            f"model {model.name!r} has no champion with another contract: there is no change to accept",
            state="nothing was changed",
            next_command="holdfast contract show",
        )
    old = Contract.from_json(read_metadata(blobs.get(store.root, champion.digest)).contract_json)
    evolution = compare(old, model.contract)
    if worst(map(evolution.at, (Boundary.CALLERS, Boundary.MODELS))) is Compatibility.BREAKING:
        changes = describe_changes(evolution.of(Compatibility.BREAKING))
        raise RefusedError(
            "HF210",
            f"the contract of model {model.name!r} breaks its callers: {changes}",
            state="nothing was changed",
            next_command="revert the change in the declaration, or declare the model under a name of its own",
        )
    change = ContractChange(model.name, old.hash, model.contract.hash, evolution, accepted=True)
    text = f"{reason}; {change.explanation}"
    with store.ledger.write() as connection:
        for contract in (old, model.contract):
            contracts.put(connection, contract, now_us=now_us)
        contracts.accept(
            connection, model.name, old.hash, change.after, explanation=text, actor=actor, now_us=now_us
        )
    return change


def refuse_misreading(connection: Transaction, feed: Feed, *, state: str) -> None:
    """Raise `RefusedError` HF210 when live batches hold rows that `feed`'s contract would misread.

    Every contract under which they were loaded counts, not the newest alone: each still declares what its rows mean.
    """
    for use in contracts.uses(connection, feed.name):
        old = contracts.find(connection, use.contract_hash)
        wrong = () if old is None or old == feed.contract else compare(old, feed.contract).misreadings
        if not wrong:
            continue
        named = contracts.live_batches(connection, feed.name, use.contract_hash, limit=_SHOWN)
        more = f" and {use.batches - len(named)} more" if use.batches > len(named) else ""
        raise RefusedError(
            "HF210",
            f"the contract of feed {feed.name!r} would read {use.rows_loaded:,} live rows wrongly, those of "
            f"{', '.join(named)}{more} under contract {use.contract_hash[:12]}: {describe_changes(wrong)}",
            state=state,
            next_command=(
                f"{_cure(wrong)}; or, if the rows are wrong as they are, "
                f"holdfast backout {feed.name} {named[0]}{' (and the others)' if use.batches > 1 else ''}"
            ),
        )


def _refused(feed: Feed, evolution: Evolution) -> RefusedError:
    broken = [change for change in evolution.changes if change.at(Boundary.ROWS) is Compatibility.BREAKING]
    return RefusedError(
        "HF210",
        f"the contract of feed {feed.name!r} breaks what is loaded: {describe_changes(broken)}",
        state="nothing was loaded",
        next_command=(
            f"{_cure(broken)}, or accept the change: holdfast contract accept {feed.name} --reason WHY"
        ),
    )


def _cure(changes: Sequence[Change]) -> str:
    """Return what to change in the declaration so that none of `changes` breaks what is loaded."""
    named: dict[bool, list[str]] = {True: [], False: []}
    for change in changes:
        named[change.what in _CURED_BY_KEEPING].append(change.column)
    cures = []
    if named[True]:
        cures.append(f'declare {", ".join(named[True])} with missing="keep"')
    if named[False]:
        columns = [column for column in dict.fromkeys(named[False]) if column]
        cures.append(f"revert {', '.join(columns) or 'the change'} in the declaration")
    if any(change.misreads and change.what not in _CURED_BY_KEEPING for change in changes):
        cures.append("give what changed a column of its own name")
    if named[True] and named[False]:
        cures[:2] = [f"{cures[0]} and {cures[1]}"]
    return ", or ".join(cures)
