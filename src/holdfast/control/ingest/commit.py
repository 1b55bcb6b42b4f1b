"""Step 5 of a load: one transaction makes an admitted batch exist, all of it or nothing.

Before it the batch is files that nothing names. There is no state in between to repair.
"""

from __future__ import annotations

from holdfast.control.ingest import contract_changes, declarations, failed_loads, lookups
from holdfast.control.ingest.admit import AdmittedBatch, describe_reasons
from holdfast.control.ingest.outcome import LoadResult, Retry, RetryReason, already_loaded, loaded
from holdfast.errors import ConflictError, IntegrityError, UnavailableError
from holdfast.feeds import AlreadyLoaded, Feed, admission
from holdfast.feeds.admission import History
from holdfast.feeds.measurements import DeliveryFacts
from holdfast.feeds.state_machine import Event
from holdfast.formatting import counted
from holdfast.records import BatchId, Level
from holdfast.store import Store
from holdfast.store.catalog import batches, online_features
from holdfast.store.db import events
from holdfast.store.db.ledger import ConstraintError, LedgerError, Transaction
from holdfast.store.durability.failpoints import failpoint
from holdfast.store.feeds import admissions, loaded_rows, violations, withheld_loads
from holdfast.store.feeds.admissions import HistoryQuery
from holdfast.store.files import staging

WITHDRAWN = "violation.withdrawn"
"""The kind of the event that withdraws a violation."""


def commit(
    store: Store, batch: AdmittedBatch, *, now_us: int, begun_at_us: int | None = None
) -> LoadResult | Retry:
    """Commit `batch` at `now_us`, microseconds since 1970 UTC, and return what is true afterwards.

    `begun_at_us` is when its load began, likewise; None if it is not known.

    However often and from however many processes the same content is committed, one commit wins and the others return
    "already_loaded". After a failure of the database the ledger is read to learn what became of the commit.

    Raises
    ------
    ConflictError
        HF203 when the id is live with other content, or the content under another id; HF304 when the batch was loaded
        and backed out since it was validated.
    IntegrityError
        HF301 when a staged file has not the size that was written; HF309 when the batch breaks a rule of the ledger.
    UnavailableError
        HF205 when the reply to the commit was lost and the ledger cannot be reached: the batch is there completely or
        not at all. HF302 when it is not there.
    """
    try:
        return _commit(store, batch, now_us, begun_at_us)
    except ConstraintError as error:  # PostgreSQL: another transaction committed the id while ours was open
        return _after_conflict(store, batch, error)
    except (LedgerError, UnavailableError, OSError) as error:
        return _after_lost_reply(store, batch, error)


def _commit(store: Store, batch: AdmittedBatch, now_us: int, begun_at_us: int | None) -> LoadResult | Retry:
    staged, identity, manifest = batch.staged, batch.staged.batch, batch.staged.manifest
    change, found = batch.judgement.change, batch.judgement.violations
    suspect = [each for each in found if each.level is Level.ERROR]
    declared = declarations.fields_of_feed(batch.feed)
    with store.ledger.write() as connection:
        failpoint("commit.begun")
        # The binding looks. `validate` and `admit` looked before the writers' lock was held, to do no work in vain; only
        # what is seen under the lock stays true until the commit.
        known = batches.decide_load(connection, identity, manifest.digest)
        if isinstance(known, AlreadyLoaded):
            return already_loaded(identity, known.load)
        if known.epoch != manifest.epoch:
            raise ConflictError(
                "HF304",
                f"batch {identity} was loaded and backed out while this load was under way",
                state="nothing was loaded",
                next_command="the same command again",
            )
        if _has_changed(connection, batch):
            return Retry(RetryReason.OVERTAKEN)
        if not staging.all_exist(store.root, staged.files):
            return Retry(RetryReason.SWEPT)
        version = batches.new_version(connection, f"load {identity}", now_us)
        batches.insert(connection, manifest, staged.files, version, begun_at_us=begun_at_us)
        events.append(
            connection,
            at_us=now_us,
            kind="batch.published",
            subject=str(identity),
            explanation=_explanation(batch),
        )
        admissions.insert(connection, identity, manifest.epoch, batch.admission())
        violations.add(connection, identity, manifest.epoch, found, now_us=now_us)
        is_other_contract = admissions.move_feed(
            connection,
            identity.feed,
            Event.LOADED_SUSPECT if suspect else Event.LOADED,
            contract_hash=manifest.contract_hash,
            reason=f"batch {identity.batch}: {admission.describe_loaded(found)}",
            now_us=now_us,
        )
        _keep_online_values(connection, batch, version)
        loaded_rows.insert_references(connection, identity, manifest.epoch, staged.referred)
        withdraw_filled(connection, batch.feed, identity, now_us)
        if is_other_contract or change is not None:
            contract_changes.record(connection, batch.feed.contract, change, now_us=now_us)
        failed_loads.record_recovery(connection, identity, now_us=now_us)
        declarations.record_feed(connection, batch.feed, declared, table_version=version, now_us=now_us)
        failpoint("commit.before_commit")
    failpoint("commit.after_commit")
    return loaded(manifest, staged.facts, version, found, batch.judgement.drift)


def _keep_online_values(connection: Transaction, batch: AdmittedBatch, version: int) -> None:
    """Write the values that the batch changes; if it is withheld, record that instead: servers read none of its rows (R15)."""
    online, manifest = batch.online, batch.staged.manifest
    load = (manifest.feed, manifest.batch, manifest.epoch)
    if online.basis is not None and load in withheld_loads.find(connection, manifest.feed):
        withheld_loads.add(connection, [load])
        online_features.register(connection, online.complete, version)
        return
    online_features.upsert(connection, online.values, version)
    online_features.register(connection, online.definitions, version)


def _has_changed(connection: Transaction, batch: AdmittedBatch) -> bool:
    """Return True if what `batch` was admitted by may hold no longer: `admit` must judge it again."""
    feed, facts = batch.feed, batch.staged.facts
    same = admissions.history(connection, feed.name, HistoryQuery(facts.rows_digest, facts.values_digest))
    return (
        (same.same_rows, same.same_values) != (None, None)
        or contract_changes.has_changed(connection, feed.name, feed.contract.hash, batch.judgement.change)
        or lookups.may_be_outdated(connection, feed, facts, batch.checked_version)
        or (batch.basis is not None and batches.has_feed_changed(connection, feed.name, batch.basis))
        or (
            batch.online.basis is not None
            and withheld_loads.find(connection, feed.name) != batch.online.withheld
        )
    )


def _explanation(batch: AdmittedBatch) -> str:
    facts, manifest = batch.staged.facts, batch.staged.manifest
    suspect = [each.explanation for each in batch.judgement.violations if each.level is Level.ERROR]
    ending = f"; suspect: {'; '.join(suspect)}" if suspect else ""
    return (
        f"{counted(facts.rows_loaded, 'row')} loaded from {manifest.source}{describe_reasons(facts)}{ending}"
    )


def _after_conflict(store: Store, batch: AdmittedBatch, error: ConstraintError) -> LoadResult | Retry:
    """Return what is true after a race was lost: the same as if the other load had been there before.

    Without another load the batch itself broke a constraint, and committing again would break it again.
    """
    identity = batch.staged.batch
    with store.ledger.read() as connection:
        known = batches.decide_load(connection, identity, batch.staged.manifest.digest)
        has_changed = _has_changed(connection, batch)
    if isinstance(known, AlreadyLoaded):
        return already_loaded(identity, known.load)
    if has_changed:
        return Retry(RetryReason.OVERTAKEN)
    raise IntegrityError(
        "HF309", f"the ledger refuses batch {identity}: {error.orig}", state="nothing was loaded"
    ) from error


def _after_lost_reply(store: Store, batch: AdmittedBatch, error: Exception) -> LoadResult:
    """Return the load if the commit that seemed to fail did happen: the ledger then names exactly its files."""
    identity = batch.staged.batch
    try:
        # As a writer: a commit that is still under way somewhere holds the writers' lock until it is over.
        with store.ledger.write() as connection:
            version = batches.version_of(connection, batch.staged.files)
    except (LedgerError, UnavailableError, OSError) as second:
        raise UnavailableError(
            "HF205",
            f"whether batch {identity} was loaded is unknown: the answer was lost ({error})",
            state="the batch is loaded completely or not at all",
            next_command="the same command again: it loads the batch only if it is not there",
        ) from second
    if version is None:
        raise UnavailableError(
            "HF302",
            f"the ledger did not take batch {identity}: {error}",
            state="nothing was loaded",
            next_command="the same command again",
        ) from error
    judged = batch.judgement
    return loaded(batch.staged.manifest, batch.staged.facts, version, judged.violations, judged.drift)


def withdraw_filled(connection: Transaction, feed: Feed, batch: BatchId, now_us: int) -> None:
    """Withdraw the violations of other batches of `feed` that reported as missing what `batch` now fills.

    Runs in the transaction that loads `batch`, and judges each violation by the batches that are loaded now. The feed flows
    again when no batch of it is suspect any more.
    """
    if feed.expects.interval is None and feed.expects.sequence is None:
        return
    filled = False
    for place in violations.open_gaps(connection, feed.name, batch.batch):
        counted = place.sequence
        facts = DeliveryFacts(0, 0, place.event_time_min_us, place.event_time_min_us, "", sequence=counted)
        query = HistoryQuery(
            "", low_us=place.event_time_min_us, number=None if counted is None else counted.low
        )
        history: History = admissions.history(connection, feed.name, query)
        if any(each.check == place.check_name for each in admission.in_place(feed, facts, history)):
            continue
        violations.withdraw(connection, place.violation_id, now_us=now_us)
        explanation = (
            f"batch {batch.batch} came and nothing is missing any more; withdrawn: {place.explanation}"
        )
        subject = str(BatchId(feed.name, place.batch))
        events.append(connection, at_us=now_us, kind=WITHDRAWN, subject=subject, explanation=explanation)
        filled = True
    if filled:
        reason = f"batch {batch.batch} filled what was missing"
        admissions.settle_feed(connection, feed.name, reason=reason, now_us=now_us)
