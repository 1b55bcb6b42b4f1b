"""The quota of labels of each source: what one sender sends does not keep this server from the labels of others."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from holdfast.errors import QuotaError
from holdfast.records import HOUR_US

LABELS_OF_SOURCE: Final = 1_000_000
"""Labels that a server takes from one source within an hour of the clock."""
MAX_SOURCES: Final = 10_000
"""Of so many sources the labels are counted; all others within the hour share one quota."""
_OTHERS: Final = ""


class SourceQuota:
    """Counts the labels that each source sent in the current hour. Belongs to one thread."""

    def __init__(self, of_source: int = LABELS_OF_SOURCE, max_sources: int = MAX_SOURCES) -> None:
        self._of_source = of_source
        self._max_sources = max_sources
        self._hour = 0
        self._counts: dict[str, int] = {}

    def take(self, source: str, now_us: int) -> None:
        """Count one label of `source`. Raises `QuotaError` HF512 if its quota is used up; then it is not counted."""
        hour = now_us // HOUR_US
        if hour != self._hour:
            self._hour = hour
            self._counts.clear()
        if source not in self._counts and len(self._counts) >= self._max_sources:
            source = _OTHERS
        count = self._counts.get(source, 0)
        if count >= self._of_source:
            until = datetime.fromtimestamp((hour + 1) * HOUR_US / 1e6, UTC)
            named = f"source {source!r} has" if source else "the sources that are not counted alone have"
            raise QuotaError(
                "HF512",
                f"{named} sent {count:,} labels within this hour, which is the quota; "
                f"send this label again after {until:%H:%M} UTC",
            )
        self._counts[source] = count + 1
