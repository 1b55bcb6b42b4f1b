"""Format numbers and timestamps for the page, a dash for a missing one; see also `holdfast.formatting`."""

from __future__ import annotations

from holdfast import formatting


def timestamp(at_us: int | None) -> str:
    """Return a timestamp in UTC to the second.

    >>> timestamp(1_365_000_000_000_000)
    '2013-04-03 14:40:00 UTC'
    """
    return "never" if at_us is None else formatting.timestamp(at_us).replace("Z", " UTC")


def minute(at_us: int | None) -> str:
    """Return a minute in UTC: a day alone would be that before in the zone of many readers.

    >>> minute(1_365_000_000_000_000)
    '2013-04-03 14:40'
    """
    return "never" if at_us is None else formatting.timestamp(at_us)[:16]


def percent(share: float | None, digits: int = 1) -> str:
    """Return a share in percent; a dash if there is none.

    >>> percent(0.05), percent(0.9999, 0), percent(None)
    ('5.0 %', '99.99 %', '–')
    """
    return "–" if share is None else formatting.percent(share, digits)


def number(value: float | None, digits: int = 3) -> str:
    """Return a number with fixed digits; a dash if there is none.

    >>> number(0.71234), number(None)
    ('0.712', '–')
    """
    return "–" if value is None else f"{value:.{digits}f}"


def count(value: int | None) -> str:
    """Return a count with thousands separators.

    >>> count(12345)
    '12,345'
    """
    return "–" if value is None else f"{value:,}"


def size(size_bytes: int) -> str:
    """Return a size in a fitting unit.

    >>> size(900), size(1_258_291)
    ('900 B', '1.3 MB')
    """
    for unit, length in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size_bytes >= length:
            return f"{size_bytes / length:.1f} {unit}"
    return f"{size_bytes} B"


def rate(per_second: float) -> str:
    """Return a rate per second, or per minute if it is low.

    >>> rate(12.34), rate(0.05)
    ('12.3 per second', '3.0 per minute')
    """
    return f"{per_second:.1f} per second" if per_second >= 1 else f"{per_second * 60:.1f} per minute"
