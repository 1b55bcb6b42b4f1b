"""The quota of labels of each sender: what one sends does not keep this server from the labels of others.

A source is a name that its sender chooses. So a sender is an address with a source: a caller that names the source of another
uses up none of its quota, unless both call from one address, such as that of a proxy.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from holdfast.errors import QuotaError
from holdfast.records import HOUR_US

SOURCES_OF_ADDRESS: Final = 100
"""Of so many sources of an address the labels are counted; its others within the hour share one quota."""
MAX_SENDERS: Final = 100_000
"""Of so many senders the labels are counted, about 20 MB; all others within the hour share one quota."""
_OTHERS: Final = ""


class SourceQuota:
    """Counts the labels that each sender stored in the current hour of the clock. Belongs to one thread.

    Parameters
    ----------
    per_hour
        Returns how many labels a sender may store within an hour.
    sources_of_address, max_senders
        How many senders are counted alone.
    """

    def __init__(
        self,
        per_hour: Callable[[], int],
        *,
        sources_of_address: int = SOURCES_OF_ADDRESS,
        max_senders: int = MAX_SENDERS,
    ) -> None:
        self._per_hour = per_hour
        self._sources_of_address = sources_of_address
        self._max_senders = max_senders
        self._hour = 0
        self._counts: dict[tuple[str, str], int] = {}
        self._sources: Counter[str] = Counter()

    def take(self, address: str, source: str, now_us: int) -> None:
        """Count one label that is to be stored. Raises `QuotaError` HF512 if the quota is used up; then it is not counted."""
        hour = now_us // HOUR_US
        if hour != self._hour:
            self._hour = hour
            self._counts.clear()
            self._sources.clear()
        sender = self._sender(address, source)
        count = self._counts.get(sender, 0)
        if count >= self._per_hour():
            until = datetime.fromtimestamp((hour + 1) * HOUR_US / 1e6, UTC)
            named = f"source {source!r} has" if sender[1] else "the sources that are not counted alone have"
            raise QuotaError(
                "HF512",
                f"{named} sent {count:,} labels from this address within this hour, which is the quota "
                f"(`labels_per_hour`); send this label again after {until:%H:%M} UTC",
            )
        if sender not in self._counts and sender[1]:
            self._sources[address] += 1
        self._counts[sender] = count + 1

    def _sender(self, address: str, source: str) -> tuple[str, str]:
        if (address, source) in self._counts:
            return address, source
        if self._sources[address] >= self._sources_of_address:
            source = _OTHERS
        if (address, source) in self._counts or len(self._counts) < self._max_senders:
            return address, source
        return _OTHERS, _OTHERS
