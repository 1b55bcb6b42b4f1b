"""What a load would do with a delivery, without doing it: the same reading, checking and judging, and nothing is written."""

from __future__ import annotations

from dataclasses import dataclass, field

import polars as pl

from holdfast.control.ingest.admission import judge
from holdfast.control.ingest.prepare import Unfit, examine
from holdfast.errors import HoldfastError, RefusedError
from holdfast.feeds import Feed, Load
from holdfast.feeds.admission import worst
from holdfast.records import Level, Violation
from holdfast.store import Store
from holdfast.store.sources import Spec


@dataclass(frozen=True, slots=True)
class Checked:
    """What would be loaded, kept apart and told. `refusal` is the error that a load would raise, None when it would load."""

    rows: int
    valid: int
    reasons: dict[str, int]
    violations: tuple[Violation, ...]
    quarantined: pl.DataFrame = field(default_factory=pl.DataFrame)
    already_loaded: bool = False
    refusal: HoldfastError | None = None

    @property
    def level(self) -> Level | None:
        """The worst level of what is wrong, None when nothing is."""
        return worst(self.violations)


def check(
    store: Store, feed: Feed, batch: str, source: Spec, *, now_us: int, rows_expected: int | None = None
) -> Checked:
    """What `ingest` with the same arguments would find now. Raises `InputError` HF201 (source) and `ConflictError` HF203
    (the id was loaded with other content, or the content with another id), as it would.
    """
    found = examine(store, feed, batch, source, rows_expected=rows_expected)
    match found:
        case Load():
            return Checked(found.rows_received, found.rows_loaded, {}, (), already_loaded=True)
        case Unfit():
            return Checked(0, 0, {}, found.violations, refusal=found.error)
    facts = found.facts
    judged = judge(store, feed, found, now_us=now_us)
    refusal: HoldfastError | None = None
    if not facts.rows_loaded:
        refusal = RefusedError(
            "HF204",
            f"batch {found.batch} has no valid row",
            state="nothing was loaded",
            next_command="holdfast contract show",
        )
    elif worst(judged.violations) is Level.CRITICAL:
        refusal = judged.unfit().error
    return Checked(
        rows=facts.rows_received,
        valid=facts.rows_loaded,
        reasons=dict(facts.reasons),
        violations=judged.violations,
        quarantined=found.quarantined,
        refusal=refusal,
    )
