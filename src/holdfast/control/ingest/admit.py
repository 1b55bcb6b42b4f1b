"""Step 4 of a load: decide whether a staged batch is admitted, by contract, expectations and history."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from holdfast.contract.profile.profile import Profile
from holdfast.control.ingest import contract_changes, lookups, online_features
from holdfast.control.ingest.contract_changes import ContractChange
from holdfast.control.ingest.online_features import Computed
from holdfast.control.ingest.outcome import LoadResult, RefusalError, Retry, RetryReason, already_loaded
from holdfast.control.ingest.stage import StagedBatch
from holdfast.control.ingest.validate import ValidatedBatch
from holdfast.errors import RefusedError
from holdfast.features.aggregate import Aggregate
from holdfast.feeds import AlreadyLoaded, Feed, admission
from holdfast.feeds.csv_form import CHECK as FORM
from holdfast.feeds.measurements import DeliveryFacts
from holdfast.formatting import counted
from holdfast.monitor import drift
from holdfast.records import Level, Violation
from holdfast.store import Store
from holdfast.store.catalog import batches
from holdfast.store.db.ledger import Transaction
from holdfast.store.feeds import admissions
from holdfast.store.feeds.admissions import Admission, HistoryQuery

MOST_BATCHES: Final = 60
"""Number of earlier batches that a delivery's size is compared with: eight weeks of days, and a few more."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """A delivery held against its feed's contract and history.

    Parameters
    ----------
    violations
        Every expectation that it does not meet, and every change of contract that asks others to follow.
    change
        The change of contract since the feed's newest batch, None without one.
    basis
        The table version at which the history was read, None if the feed expects nothing of it.
    drift
        As in `LoadResult`.
    """

    violations: tuple[Violation, ...]
    change: ContractChange | None
    basis: int | None
    drift: str = ""

    @property
    def level(self) -> Level | None:
        """The worst level of the violations, None without any."""
        return admission.worst(self.violations)

    def refusal(self, delivered: ValidatedBatch | StagedBatch) -> RefusalError:
        """Return the refusal of a delivery that breaks an expectation of level "critical"."""
        critical = [each for each in self.violations if each.level is Level.CRITICAL]
        error = RefusedError(
            "HF207",
            f"batch {delivered.batch} is refused: {admission.describe(critical)}",
            state="nothing was loaded; what is loaded is unchanged and the id is free",
            next_command=(
                "correct the delivery or the feed's expectations, then "
                f"holdfast check {delivered.batch.feed} <file>"
            ),
        )
        return RefusalError(delivered.batch, delivered.manifest.contract_hash, self.violations, error)


@dataclass(frozen=True, slots=True)
class AdmittedBatch:
    """A staged batch that may be committed, with everything that `commit` writes besides its files.

    `checked_version` is the table version up to which the references and keys of `staged` are known to hold.
    """

    feed: Feed
    staged: StagedBatch
    judgement: Judgement
    online: Computed
    checked_version: int

    @property
    def basis(self) -> int | None:
        """The table version that the judgement and the online values were computed at; None if any will do."""
        return min(
            (each for each in (self.judgement.basis, self.online.basis) if each is not None), default=None
        )

    def admission(self) -> Admission:
        """Return what the ledger keeps of the delivery, for the next ones to be held against."""
        facts, group = self.staged.facts, self.feed.membership
        return Admission(
            rows_expected=facts.rows_expected,
            profile_json=self.staged.profile.to_json(),
            rows_digest=facts.rows_digest,
            values_digest=facts.values_digest,
            sequence=facts.sequence,
            group_name=self.feed.group or "",
            event_time=self.feed.contract.event_time,
            group_period_us=None if group is None else group.period_us,
            group_zone=None if group is None else group.zone,
        )


def admit(
    store: Store, feed: Feed, staged: StagedBatch, aggregates: Sequence[Aggregate], *, now_us: int
) -> AdmittedBatch | LoadResult | Retry:
    """Judge `staged` by what is loaded now, and compute the online values that its rows change.

    Parameters
    ----------
    aggregates
        Those over `feed` that are declared now.
    now_us
        The time of the load, microseconds since 1970 UTC.

    Returns the load if the same content was loaded meanwhile, and `Retry` if rows that it was validated against have
    changed. Raises `RefusalError` when an expectation of level "critical" is not met or no row is valid,
    `RefusedError` HF210 when the contract was changed so that it breaks what is loaded, and `ConflictError` HF203.
    """
    with store.ledger.read() as connection:
        judgement = judge(connection, feed, staged, now_us=now_us)
        # After the judgement: this very delivery, if another process loaded it meanwhile, is a repetition there.
        known = batches.decide_load(connection, staged.batch, staged.manifest.digest)
        version = batches.current_version(connection)
    if isinstance(known, AlreadyLoaded):
        return already_loaded(staged.batch, known.load)
    valid = staged.rows(store.root, feed)
    if lookups.outdated(store, feed, staged.facts, valid, staged.basis, version):
        return Retry(RetryReason.OUTDATED)
    if not staged.facts.rows_loaded:
        raise no_valid_row(staged)
    if judgement.level is Level.CRITICAL:
        raise judgement.refusal(staged)
    online = online_features.compute(store, feed, aggregates, valid)
    return AdmittedBatch(feed, staged.without_rows(), judgement, online, version)


def judge(
    connection: Transaction, feed: Feed, delivered: ValidatedBatch | StagedBatch, *, now_us: int
) -> Judgement:
    """Judge a delivery by its feed's contract, expectations and history; look up only what the feed expects.

    Raises `RefusedError` HF210 when the contract was changed so that it breaks what is loaded.
    """
    facts, expects = delivered.facts, feed.expects
    query = HistoryQuery(
        rows_digest=facts.rows_digest,
        values_digest=facts.values_digest,
        batches=MOST_BATCHES if expects.rows is not None and expects.rows.deviation is not None else 0,
        low_us=facts.event_time_min_us if expects.interval is not None else None,
        number=None if facts.sequence is None else facts.sequence.low,
    )
    is_compared = expects.drift or feed.labels_for is not None
    depends = bool(query.batches or query.number is not None or is_compared or query.low_us is not None)
    basis = batches.current_version(connection) if depends else None
    change = contract_changes.check(connection, feed)
    history = admissions.history(connection, feed.name, query)
    found = [
        *delivered.violations,
        *(() if change is None else change.violations),
        *admission.judge(feed, facts, history, now_us=now_us),
    ]
    drift_judged = ""
    if is_compared:
        past = [_profile(each) for each in admissions.profiles(connection, feed.name, drift.MOST_BATCHES)]
        why = drift.why_not_judged(delivered.profile.rows, len(past))
        if expects.drift:
            found += drift.check_profile(feed.contract, delivered.profile, past)
            drift_judged = f"not judged, {why}" if why else drift.JUDGED
        if feed.labels_for is not None and (why or not expects.drift):
            found += drift.check_label_share(feed.contract, delivered.profile, past)
    return Judgement(tuple(found), change, basis, drift_judged)


def describe_reasons(facts: DeliveryFacts) -> str:
    """Return how many rows are quarantined for which reason, as the end of a sentence; empty without any."""
    return f"; {facts.rows_dropped} in quarantine: {_listed(facts)}" if facts.reasons else ""


def _listed(facts: DeliveryFacts) -> str:
    counted = sorted(facts.reasons.items(), key=lambda reason: -reason[1])
    listed = ", ".join(f"{count} {reason}{_such_as(facts, reason)}" for reason, count in counted[:5])
    more = f" and {len(counted) - 5} more reasons" if len(counted) > 5 else ""
    return f"{listed}{more}"


def _such_as(facts: DeliveryFacts, reason: str) -> str:
    values = facts.offending.get(reason, ())
    return f" (such as {' and '.join(values)})" if values else ""


def no_valid_row(staged: ValidatedBatch | StagedBatch) -> RefusalError:
    """Return the refusal of a batch without a valid row. Its id stays free: a corrected delivery may use it."""
    rows = staged.facts.rows_dropped
    what = (
        f"none of the {counted(rows, 'row')} of batch {staged.batch} is valid: {_listed(staged.facts)}"
        if rows
        else f"batch {staged.batch} has no row"
    )
    what += "".join(f"; {each.explanation}" for each in staged.violations if each.check == FORM)
    error = RefusedError(
        "HF204",
        what,
        state="nothing was loaded and no row is in quarantine; the rows are in the source, the id is free",
        next_command=f"holdfast check {staged.batch.feed} <file>",
    )
    broken = Violation("rows", "", Level.CRITICAL, what, 0.0)
    return RefusalError(staged.batch, staged.manifest.contract_hash, (broken,), error)


@lru_cache(maxsize=4_096)
def _profile(text: str) -> Profile:
    return Profile.from_json(text)
