"""Format counts, shares, durations and timestamps, the same in every message, command and page."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Final

from holdfast.records import DAY_US, EPOCH, HOUR_US, MINUTE_US

LONGEST_TEXT: Final = 4_000
"""The most characters of a text that is shown or logged."""

_MOST_DECIMALS: Final = 5
"""The most decimals of a share in percent."""

_UNSEEN: Final = re.compile(
    "["
    "\x00-\x1f\x7f-\x9f"  # control, among them tab, line feed and U+0085
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # change the direction of what follows
    "\u2028\u2029"  # separate lines and paragraphs
    "\u00ad\u200b\u2060-\u2064\ufeff\U000e0000-\U000e007f"  # have no width
    "\ud800-\udfff"  # no characters
    "]"
)


def visible(text: str, longest: int = LONGEST_TEXT) -> str:
    r"""Return a text from outside as a terminal, a log or an event may have it: on one line, and with nothing unseen.

    Characters that move the cursor, end the line, turn the direction or have no width are shown as escapes; the end of a
    text of more than `longest` characters is left out. The data of `--json` is not changed.

    >>> visible("a\x1b[2J\nb"), visible("\u202egpj.exe"), visible("xxxxx", 4)
    ('a\\x1b[2J\\x0ab', '\\u202egpj.exe', 'xxx…')
    """
    shown = _UNSEEN.sub(_escaped, text[: longest + 1])
    return shown if len(shown) <= longest else f"{shown[: longest - 1]}…"


def _escaped(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def counted(number: int, noun: str, one: str = "", several: str = "") -> str:
    """Return a number with its noun, in the plural of English nouns that end as it does, and with the verb if there is one.

    >>> counted(1, "feed"), counted(12_000, "label"), counted(2, "batch"), counted(0, "query")
    ('1 feed', '12,000 labels', '2 batches', '0 queries')
    >>> counted(1, "label", "waits", "wait"), counted(2, "label", "waits", "wait")
    ('1 label waits', '2 labels wait')
    """
    if one:
        return f"{counted(number, noun)} {one if number == 1 else several}"
    if number == 1:
        return f"1 {noun}"
    if noun.endswith(("s", "x", "ch", "sh")):
        return f"{number:,} {noun}es"
    if noun.endswith("y") and noun[-2:-1] not in "aeiou":
        return f"{number:,} {noun[:-1]}ies"
    return f"{number:,} {noun}s"


def with_article(noun: str) -> str:
    """Return a noun with its indefinite article, by its first letter.

    >>> with_article("Integer"), with_article("number")
    ('an Integer', 'a number')
    """
    return f"{'an' if noun[:1].lower() in tuple('aeiou') else 'a'} {noun}"


def percent(share: float, digits: int = 0) -> str:
    """Return a share in percent with so many decimals, or more: only nothing is 0 % and only all is 100 %.

    >>> percent(0.056), percent(0.99651), percent(0.0004), percent(1.0), percent(0.25, 1)
    ('6 %', '99.7 %', '0.04 %', '100 %', '25.0 %')
    >>> percent(1e-9), percent(1 - 1e-9)
    ('less than 0.00001 %', 'more than 99.99999 %')
    """
    if share in (0.0, 1.0):
        return f"{100 * share:.{digits}f} %"
    for decimals in range(digits, _MOST_DECIMALS + 1):
        text = f"{100 * share:.{decimals}f}"
        if float(text) not in (0.0, 100.0):
            return f"{text} %"
    return "less than 0.00001 %" if share < 0.5 else "more than 99.99999 %"


def share(share_ppm: int) -> str:
    """Return parts per million as percent, without trailing zeros.

    >>> share(50_000), share(1_000_000), share(2_500)
    ('5 %', '100 %', '0.25 %')
    """
    return f"{share_ppm / 10_000:g} %"


def hours(us: float) -> str:
    """Return a measured duration in hours to a tenth; in days from a week on, in minutes or seconds if it is short.

    `us` is in microseconds.

    >>> hours(5_400_000_000), hours(180_000_000), hours(0), hours(650_000_000_000)
    ('1.5 h', '3.0 min', '0.0 s', '7.5 d')
    """
    size, unit = _unit_of(us)
    return f"{us / size:.1f} {unit}"


def set_hours(us: float) -> str:
    """Return a configured duration without trailing zeros: in hours, in days from a week on, else in minutes or seconds.

    >>> set_hours(86_400_000_000), set_hours(1_800_000_000), set_hours(45_000_000), set_hours(42 * 86_400_000_000)
    ('24 h', '30 min', '45 s', '42 d')
    """
    size, unit = _unit_of(us)
    return f"{us / size:g} {unit}"


def _unit_of(us: float) -> tuple[int, str]:
    """Return the largest of hours, minutes and seconds that fits, in microseconds, with its name; days from a week on."""
    if us >= 7 * DAY_US:
        return DAY_US, "d"
    return next((each for each in ((HOUR_US, "h"), (MINUTE_US, "min")) if us >= each[0]), (1_000_000, "s"))


def span(seconds: float) -> str:
    """Return a duration in its largest unit that fits.

    >>> [span(seconds) for seconds in (0.4, 59, 150, 7200, 200_000)]
    ['0 s', '59 s', '2 min', '2 h', '2 d']
    """
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{int(seconds // length)} {unit}"
    return f"{int(max(seconds, 0))} s"


def ago(at_us: int | None, now_us: int) -> str:
    """Return how long ago a timestamp was, in one unit.

    >>> ago(0, 42_000_000), ago(0, 7_200_000_000), ago(None, 0)
    ('42 s ago', '2 h ago', 'never')
    """
    return "never" if at_us is None else f"{span((now_us - at_us) / 1e6)} ago"


def timestamp(at_us: int | None) -> str:
    """Return a timestamp in UTC to the second; a dash for None.

    >>> timestamp(1_357_000_000_000_000)
    '2013-01-01 00:26:40Z'
    """
    return "-" if at_us is None else f"{EPOCH + timedelta(microseconds=at_us):%Y-%m-%d %H:%M:%SZ}"


def first_line(error: Exception) -> str:
    """Return the first line of the message of an error, or its type if it has none.

    >>> first_line(ValueError("no number")), first_line(ValueError())
    ('no number', 'ValueError')
    """
    return (str(error).splitlines() or [type(error).__name__])[0]


def latency(seconds: float | None) -> str:
    """Return a latency with two significant digits.

    >>> latency(0.000891), latency(0.0123), latency(1.26), latency(None)
    ('0.89 ms', '12 ms', '1.3 s', '–')
    """
    if seconds is None:
        return "–"
    if seconds >= 0.9995:
        return f"{seconds:.2g} s"
    milliseconds = seconds * 1000
    return f"{milliseconds:.0f} ms" if milliseconds >= 9.95 else f"{milliseconds:.2g} ms"
