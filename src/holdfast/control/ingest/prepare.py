"""The first half of a load: from a sender's delivery to files that nobody can see yet.

read -> digest -> was it here before -> does the contract follow from the last one -> parse -> check by the contract and
against other feeds -> measure and profile -> Parquet files, synced. It writes nothing into the
ledger, so any process on any machine that sees the store's files may do it; `control.ingest.publish` does the rest, one
delivery after the other.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final

import polars as pl

from holdfast.contract import BatchCheck, Contract, compile_batch, to_text_rows
from holdfast.contract.profile.profile import Profile, profile_batch
from holdfast.control.ingest import contract_changes, duplicate_keys, references
from holdfast.control.ingest.duplicate_keys import Known
from holdfast.errors import HoldfastError, InputError, RefusedError
from holdfast.feeds import AlreadyLoaded, Feed, Load, Manifest, batch_id, content_digest, quarantine_table
from holdfast.feeds.measurements import DeliveryFacts, measure
from holdfast.feeds.schema_drift import RENAMED, changed_columns
from holdfast.records import BatchId, Level, Violation
from holdfast.store import Store, sources
from holdfast.store.catalog import batches
from holdfast.store.durability.failpoints import fault_point
from holdfast.store.feeds import contract_files
from holdfast.store.feeds.references import Referred
from holdfast.store.files.data_files import FileFacts
from holdfast.store.files.staging import Stage
from holdfast.store.sources import Spec, control_file

ROWS_PER_FILE: Final = 1_000_000
"""A larger batch becomes several files, which are written side by side."""


@dataclass(frozen=True, slots=True)
class Examined:
    """A delivery that was read and checked. `valid` is in the order of event time, and of the delivery where that is equal;
    `quarantined` has the rows as they were delivered, with their reasons, which `facts` count. `basis` is the table version at
    which its references and keys were looked up.
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
        """Which delivery it is."""
        return BatchId(self.manifest.feed, self.manifest.batch)


@dataclass(frozen=True, slots=True)
class Unfit:
    """A delivery that cannot be a batch of its feed, whatever its rows are: `violations` say why, and `error` is what its
    sender is told.
    """

    batch: BatchId
    contract_hash: str
    violations: tuple[Violation, ...]
    error: HoldfastError


@dataclass(frozen=True, slots=True)
class Prepared:
    """A delivery whose rows lie in synced files that no row of the ledger names.

    `valid` are the rows, or None after `sendable`: then whoever publishes reads back what he needs of them.
    `violations` are those that were found on the way; the rest is found when the delivery is held against its history.
    `basis` is that of `Examined`.
    """

    manifest: Manifest
    source: str
    files: tuple[FileFacts, ...]
    valid: pl.DataFrame | None
    facts: DeliveryFacts
    profile: Profile
    violations: tuple[Violation, ...] = ()
    basis: int = 0
    referred: tuple[Referred, ...] = ()

    @property
    def batch(self) -> BatchId:
        """Which delivery it is."""
        return BatchId(self.manifest.feed, self.manifest.batch)

    def sendable(self) -> Prepared:
        """The same without its rows: a few kilobytes, however large the delivery is."""
        return replace(self, valid=None)


def prepare(
    store: Store, feed: Feed, batch: str, source: Spec, stage: Stage, *, rows_expected: int | None = None
) -> Prepared | Unfit | Load:
    """Read, check and write the delivery at `source`, to be published as batch `batch` of `feed`.

    `stage` takes the files; they are orphans until they are published. Returns the `Load` when the very same content is
    loaded already, and then nothing was written. Raises as `examine` does.
    """
    found = examine(store, feed, batch, source, rows_expected=rows_expected)
    return write(stage, found, feed) if isinstance(found, Examined) else found


def examine(
    store: Store, feed: Feed, batch: str, source: Spec, *, rows_expected: int | None = None
) -> Examined | Unfit | Load:
    """Read the delivery at `source` and check every row of it; the `Load` when its content is there already.

    `rows_expected` is how many rows its sender says he sent; None takes it from the control file beside it, if there is
    one. Raises `InputError` HF201 (source) and `ConflictError` HF203 (the id was loaded with other content, or
    the content with another id).
    """
    identity = batch_id(feed.name, batch)
    delivery = sources.open_source(source)
    if rows_expected is None:
        rows_expected = control_file.rows_said(source)
    fault_point("ingest.read")
    digest = content_digest(delivery.pieces())
    try:
        with store.ledger.read() as connection:
            # Before the question whether it is loaded: else its own rows could be taken for another's.
            basis = batches.current_version(connection)
            known = batches.answer(connection, identity, digest)
            if isinstance(known, AlreadyLoaded):
                return known.load
            contract_changes.check(connection, feed)
        typed = sources.parse(delivery, feed.contract, missing_words=feed.missing_words)
        verdict = _check(feed.contract)(typed)
    except RefusedError as error:
        broken = Violation(contract_changes.CHECK, "", Level.CRITICAL, error.what)
        return Unfit(identity, feed.contract.hash, (broken,), error)
    except InputError as error:
        if error.code != "HF202":
            raise
        told = changed_columns(feed.contract, control_file.columns(delivery)) or (
            Violation("schema", "", Level.CRITICAL, error.what),
        )
        return Unfit(identity, feed.contract.hash, told, _with_renames(error, told))
    fault_point("ingest.checked")
    resolved = references.resolve(store, feed, verdict)
    valid = _in_event_order(resolved.valid, feed.contract.event_time)
    facts = measure(
        feed.contract,
        feed.expects,
        valid,
        resolved.quarantined,
        resolved.reasons,
        rows_expected=rows_expected,
    )
    loaded = duplicate_keys.known_rows(store, feed, valid, basis)
    if loaded is not None:
        if loaded.rows == valid.height:
            return _repetition(identity, feed, loaded)
        resolved = duplicate_keys.apart(feed, resolved, valid, loaded)
        valid, facts = resolved.valid, duplicate_keys.less(facts, feed, resolved, loaded)
    return Examined(
        manifest=Manifest.of(identity, known.epoch, digest, feed.contract.hash, feed.contract.key),
        source=delivery.name,
        valid=valid,
        quarantined=resolved.quarantined,
        facts=facts,
        profile=profile_batch(feed.contract, valid),
        violations=resolved.violations,
        basis=basis,
        referred=resolved.referred,
    )


def _repetition(identity: BatchId, feed: Feed, known: Known) -> Unfit:
    """The refusal of a delivery of which every valid row is loaded already."""
    key = "+".join(feed.contract.key)
    words = f"its {known.rows:,} rows are those of {known.whose}, by their {key}"
    whose = known.batches[0] if len(known.batches) == 1 else ""
    broken = Violation("repeat", whose, Level.CRITICAL, words, known.rows)
    error = RefusedError(
        "HF207",
        f"batch {identity} is refused: {words}",
        state="nothing was loaded; what is loaded is unchanged and the id is free",
        next_command=f"holdfast backout {feed.name} {whose or '<batch>'} first, if these rows are better",
    )
    return Unfit(identity, feed.contract.hash, (broken,), error)


def write(stage: Stage, examined: Examined, feed: Feed) -> Prepared:
    """Write the rows of a delivery as files of the feed's table and of its quarantine, and sync them and their names.
    Of a delivery without a valid row nothing is written, because nothing of it will be published.
    """
    valid, quarantined = examined.valid, examined.quarantined
    parts = -(-valid.height // ROWS_PER_FILE)
    manifest = examined.manifest.counted(
        rows_loaded=valid.height,
        rows_quarantined=quarantined.height,
        event_time_min_us=examined.facts.event_time_min_us,
        event_time_max_us=examined.facts.event_time_max_us,
        source=examined.source,
        files=parts + (not quarantined.is_empty()),
    )
    return Prepared(
        manifest=manifest,
        source=examined.source,
        files=_write(stage, feed, examined, manifest, parts) if parts else (),
        valid=valid,
        facts=examined.facts,
        profile=examined.profile,
        violations=examined.violations,
        basis=examined.basis,
        referred=examined.referred,
    )


def _write(
    stage: Stage, feed: Feed, examined: Examined, manifest: Manifest, parts: int
) -> tuple[FileFacts, ...]:
    valid, footer = examined.valid, manifest.as_dict()
    size = -(-valid.height // parts)
    slices = [valid.slice(start, size) for start in range(0, valid.height, size)]
    contract_files.keep(stage.root, feed.contract.hash, feed.contract.to_json())
    written = stage.write_parts(feed.name, slices, footer, event_time=feed.contract.event_time)
    if not examined.quarantined.is_empty():
        written.append(stage.write(quarantine_table(feed.name), to_text_rows(examined.quarantined), footer))
    stage.seal()
    return tuple(written)


def _with_renames(error: InputError, told: tuple[Violation, ...]) -> InputError:
    """The error with the likely new names of columns, which say more than what is missing and what is new."""
    renamed = [each.explanation for each in told if RENAMED in each.explanation]
    what = f"{error.what} ({'; '.join(renamed)})" if renamed else error.what
    return InputError(error.code, what, state=error.state, next_command=error.next_command)


@lru_cache(maxsize=64)
def _check(contract: Contract) -> BatchCheck:
    return compile_batch(contract)


def _in_event_order(frame: pl.DataFrame, event_time: str) -> pl.DataFrame:
    return frame if frame[event_time].is_sorted() else frame.sort(event_time, maintain_order=True)
