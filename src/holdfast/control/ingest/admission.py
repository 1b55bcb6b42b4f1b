"""Whether a prepared delivery is let in: its feed's contract and expectations, and the shape of its rows, held against what
is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from holdfast.contract.profile.profile import Profile
from holdfast.control.ingest import contract_changes, late_batches
from holdfast.control.ingest.contract_changes import ContractChange
from holdfast.control.ingest.prepare import Examined, Prepared, Unfit
from holdfast.errors import RefusedError
from holdfast.feeds import Feed, admission
from holdfast.feeds.measurements import DeliveryFacts
from holdfast.monitor import drift
from holdfast.records import BatchId, Level, Violation
from holdfast.store import Store
from holdfast.store.catalog import batches
from holdfast.store.db.ledger import Transaction
from holdfast.store.feeds import admissions, references
from holdfast.store.feeds.admissions import Admission, Asked
from holdfast.store.feeds.references import Referred

MOST_BATCHES: Final = 60
"""How many earlier batches a delivery's size is compared with: eight weeks of days, and a few more."""


@dataclass(frozen=True, slots=True)
class Judged:
    """What was found of a delivery. `basis` is the table version at which its history was read, None when it has none."""

    batch: BatchId
    epoch: int
    feed: Feed
    admission: Admission
    change: ContractChange | None
    basis: int | None
    referred: tuple[Referred, ...] = ()

    @property
    def violations(self) -> tuple[Violation, ...]:
        """Every expectation that the delivery does not meet."""
        return self.admission.violations

    def outdated(self, connection: Transaction) -> bool:
        """Whether the same delivery was loaded under another id since it was judged, or its feed's contract changed: to be
        asked in the transaction that publishes it.
        """
        digests = Asked(self.admission.rows_digest, self.admission.values_digest)
        same = admissions.history(connection, self.feed.name, digests)
        if (same.same_rows, same.same_values) != (None, None):
            return True
        return contract_changes.moved_on(connection, self.feed.name, self.feed.contract.hash, self.change)

    def keep(self, connection: Transaction, now_us: int) -> None:
        """Write what was found in the transaction that publishes the delivery."""
        another = admissions.admit(
            connection,
            self.batch,
            self.epoch,
            self.admission,
            contract_hash=self.feed.contract.hash,
            now_us=now_us,
        )
        references.keep(connection, self.batch, self.epoch, self.referred)
        late_batches.withdraw_filled(connection, self.feed, self.batch, now_us)
        if another or self.change is not None:
            contract_changes.record(connection, self.feed.contract, self.change, now_us=now_us)

    def unfit(self) -> Unfit:
        """The refusal of a delivery that broke an expectation of level "critical"."""
        critical = [each for each in self.violations if each.level is Level.CRITICAL]
        error = RefusedError(
            "HF207",
            f"batch {self.batch} is refused: {admissions.in_words(critical)}",
            state="nothing was loaded; what is loaded is unchanged and the id is free",
            next_command=f"correct the delivery or the feed's expectations, then holdfast check {self.batch.feed} <file>",
        )
        return Unfit(self.batch, self.feed.contract.hash, self.violations, error)


def judge(store: Store, feed: Feed, delivered: Prepared | Examined, *, now_us: int) -> Judged:
    """Hold a delivery against its feed's contract, expectations and history.

    Only what the feed expects is looked up. Raises `RefusedError` HF210 when the contract was changed so that it breaks
    what is loaded.
    """
    facts, expects = delivered.facts, feed.expects
    asked = Asked(
        rows_digest=facts.rows_digest,
        values_digest=facts.values_digest,
        batches=MOST_BATCHES if expects.rows is not None and expects.rows.deviation is not None else 0,
        low_us=facts.event_time_min_us if expects.interval is not None else None,
        number=None if facts.sequence is None else facts.sequence.low,
    )
    depends = bool(asked.batches or asked.number is not None or expects.drift or asked.low_us is not None)
    with store.ledger.read() as connection:
        basis = batches.current_version(connection) if depends else None
        change = contract_changes.check(connection, feed)
        history = admissions.history(connection, feed.name, asked)
        looks = admissions.profiles(connection, feed.name, drift.MOST_BATCHES) if expects.drift else []
    found = [
        *delivered.violations,
        *(() if change is None else change.violations),
        *admission.judge(feed, facts, history, now_us=now_us),
    ]
    if expects.drift:
        found += drift.judge(feed.contract, delivered.profile, [_profile(each) for each in looks])
    return Judged(
        delivered.batch,
        delivered.manifest.epoch,
        feed,
        _admission(feed, facts, delivered.profile, tuple(found)),
        change,
        basis,
        delivered.referred,
    )


def _admission(feed: Feed, facts: DeliveryFacts, profile: Profile, found: tuple[Violation, ...]) -> Admission:
    return Admission(
        rows_expected=facts.rows_expected,
        profile_json=profile.to_json(),
        rows_digest=facts.rows_digest,
        values_digest=facts.values_digest,
        sequence=facts.sequence,
        group_name=feed.group or "",
        event_time=feed.contract.event_time,
        violations=found,
    )


@lru_cache(maxsize=4_096)
def _profile(text: str) -> Profile:
    return Profile.from_json(text)
