"""Steps 1 and 2 of a load: read a delivery, and check it by its contract, its references and the keys that are loaded.

Reads the ledger and writes nothing, so any process on any machine that sees the store may do it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import polars as pl

from holdfast.contract import Contract
from holdfast.contract.batch.compiler import BatchCheck, BatchVerdict, compile_batch
from holdfast.contract.profile.profile import Profile, profile_batch
from holdfast.control.ingest import column_advice, contract_changes, label_matches, lookups
from holdfast.control.ingest.lookups import Known
from holdfast.control.ingest.outcome import LoadResult, RefusalError, already_loaded, nothing_new
from holdfast.errors import InputError, RefusedError
from holdfast.feeds import AlreadyLoaded, Feed, Manifest, batch_id, content_digest
from holdfast.feeds.admission import REPEATED
from holdfast.feeds.csv_form import foreign_forms
from holdfast.feeds.measurements import DeliveryFacts, measure
from holdfast.records import BatchId, Level, Violation
from holdfast.store import Store, sources
from holdfast.store.catalog import batches
from holdfast.store.durability.failpoints import failpoint
from holdfast.store.feeds.loaded_rows import Referred
from holdfast.store.sources import Source, Spec, opener
from holdfast.store.sources.parser import is_text


@dataclass(frozen=True, slots=True)
class ValidatedBatch:
    """A delivery with a verdict on every row.

    Parameters
    ----------
    source
        Where it came from, as the ledger keeps it.
    valid
        The accepted rows in the order of event time, and of the delivery where that is equal.
    quarantined
        The rejected rows as delivered, with their reasons; `facts` counts them.
    violations
        Expectations that the rows alone break; `admit` adds those that depend on the feed's history.
    basis
        The table version at which references and keys were looked up.
    referred
        The loads that hold the values which the rows refer to.
    """

    manifest: Manifest
    source: str
    valid: pl.DataFrame
    quarantined: pl.DataFrame
    facts: DeliveryFacts
    profile: Profile
    violations: tuple[Violation, ...] = ()
    basis: int = 0
    referred: tuple[Referred, ...] = ()

    @property
    def batch(self) -> BatchId:
        """The id of the delivery."""
        return BatchId(self.manifest.feed, self.manifest.batch)


def validate(store: Store, feed: Feed, delivery: Delivery) -> ValidatedBatch | LoadResult:
    """Check every row of `delivery`; return the load if the same content is loaded already, or labels that are all known.

    Raises `RefusalError` when the delivery cannot be a batch of `feed`, whatever its rows are, `InputError` HF201
    when it cannot be read, and `ConflictError` HF203 when the id is loaded with other content or the content with
    another id.
    """
    with store.ledger.read() as connection:
        # Read first, so that every later change counts as one: else the rows of this very delivery, loaded by another
        # process meanwhile, would pass for duplicates.
        basis = batches.current_version(connection)
        # A cheap look before the work; `commit` takes the binding one, inside its transaction.
        known = batches.decide_load(connection, delivery.batch, delivery.digest)
        if isinstance(known, AlreadyLoaded):
            return already_loaded(delivery.batch, known.load)
        try:
            contract_changes.check(connection, feed)
        except RefusedError as error:
            broken = Violation(contract_changes.CHECK, "", Level.CRITICAL, error.what)
            raise RefusalError(delivery.batch, feed.contract.hash, (broken,), error) from error
    verdict = _check_rows(feed, delivery)
    failpoint("ingest.checked")
    forms = (
        foreign_forms(
            feed.contract,
            feed.csv,
            verdict.valid.height + verdict.quarantined.height,
            verdict.quarantined,
            verdict.counts,
        )
        if is_text(delivery.source)
        else ()
    )
    resolved = lookups.resolve(store, feed, verdict)
    valid = _in_event_order(resolved.valid, feed.contract.event_time)
    facts = measure(
        feed.contract,
        feed.expects,
        valid,
        resolved.quarantined,
        resolved.reasons,
        rows_expected=delivery.rows_expected,
        aliases=verdict.aliases,
    )
    duplicates = lookups.known_rows(store, feed, valid, basis)
    if duplicates is not None:
        if duplicates.repeated.all() and resolved.quarantined.is_empty():
            reasons = {f"{'+'.join(feed.contract.key)}|{REPEATED}": valid.height}
            return nothing_new(delivery.batch, delivery.digest, reasons, basis)
        if duplicates.rows == valid.height:
            raise _repetition(delivery.batch, feed, duplicates)
        resolved = lookups.quarantine(feed, resolved, valid, duplicates)
        valid, facts = resolved.valid, lookups.reduce_facts(facts, feed, resolved, duplicates)
    facts = replace(facts, matches=label_matches.count(store, feed, valid, basis))
    return ValidatedBatch(
        manifest=Manifest.of(
            delivery.batch, known.epoch, delivery.digest, feed.contract.hash, feed.contract.key
        ),
        source=delivery.source.name,
        valid=valid,
        quarantined=resolved.quarantined,
        facts=facts,
        profile=profile_batch(feed.contract, valid),
        violations=(*resolved.violations, *forms),
        basis=basis,
        referred=resolved.referred,
    )


def _check_rows(feed: Feed, delivery: Delivery) -> BatchVerdict:
    try:
        typed = sources.parse(
            delivery.source,
            feed.contract,
            missing_words=feed.missing_words,
            csv=feed.csv,
            headers=feed.headers,
        )
        return _compiled(feed.contract)(typed)
    except InputError as error:
        refusal = column_advice.refusal(error, feed, delivery.batch, delivery.source)
        if refusal is None:
            raise
        raise refusal from error


def _repetition(batch: BatchId, feed: Feed, known: Known) -> RefusalError:
    """Return the refusal of a delivery of which every valid row is loaded already."""
    key = "+".join(feed.contract.key)
    words = f"its {known.rows:,} rows are those of {known.whose}, by their {key}"
    if known.changed:
        words += f"; {known.changed:,} of them have other values"
    whose = known.batches[0] if len(known.batches) == 1 else ""
    broken = Violation("duplicates", whose, Level.CRITICAL, words, known.rows)
    error = RefusedError(
        "HF207",
        f"batch {batch} is refused: {words}",
        state="nothing was loaded; what is loaded is unchanged and the id is free",
        next_command=f"holdfast backout {feed.name} {whose or '<batch>'} first, if these rows are better",
    )
    return RefusalError(batch, feed.contract.hash, (broken,), error)


@lru_cache(maxsize=64)
def _compiled(contract: Contract) -> BatchCheck:
    return compile_batch(contract)


def _in_event_order(frame: pl.DataFrame, event_time: str) -> pl.DataFrame:
    return frame if frame[event_time].is_sorted() else frame.sort(event_time, maintain_order=True)


@dataclass(frozen=True, slots=True)
class DeliverySpec:
    """A delivery to load: the sender's batch id, the location, and the number of rows that the sender declares."""

    batch: str
    source: Spec
    rows_expected: int | None = None


@dataclass(frozen=True, slots=True)
class Delivery:
    """A delivery in memory; `digest` is the SHA-256 of its content, `rows_expected` the sender's number of rows."""

    batch: BatchId
    source: Source
    digest: str
    rows_expected: int | None


def read(feed: Feed, spec: DeliverySpec) -> Delivery:
    """Read the delivery at `spec` for `feed`.

    Without `spec.rows_expected` the number of rows is that of the control file, if there is one. Raises as
    `sources.open_source` does, and `InputError` HF101 on a batch id that cannot be used.
    """
    identity = batch_id(feed.name, spec.batch)
    source = sources.open_source(spec.source)
    rows_expected = opener.rows_declared(spec.source) if spec.rows_expected is None else spec.rows_expected
    failpoint("ingest.read")
    return Delivery(identity, source, content_digest(source.pieces()), rows_expected)
