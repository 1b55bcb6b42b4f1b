"""Ids and frozen records that cross stages: the glossary in code.

A record that only one stage uses belongs to that stage.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final, Literal, TypeAlias

from holdfast.errors import InputError

NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}\Z")
"""What a feed, model, column or batch may be called. Names never become paths or markup."""

EVERYTHING_PPM: Final = 1_000_000
"""All of the traffic, in parts per million."""

MINUTE_US: Final = 60_000_000
HOUR_US: Final = 3_600_000_000
DAY_US: Final = 86_400_000_000
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

Corrections: TypeAlias = Literal["latest", "first"]
"""Which of several labels of one row or prediction counts: the latest that was known, or the first for ever."""

Progress = Callable[[int, int], None]
"""Called with how much of long work is done, and of how much."""

_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|s|min|h|d)\Z")
_UNIT_SECONDS: Final = {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


def microseconds(timestamp: datetime) -> int:
    """Return the microseconds from 1970-01-01T00:00:00Z to `timestamp`, exactly.

    >>> microseconds(datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=UTC))
    -1
    """
    return (timestamp - EPOCH) // timedelta(microseconds=1)


class Verdict(StrEnum):
    """The four results of every evaluation. No data is `INCONCLUSIVE`, never `PASS`."""

    PASS = "pass"  # noqa: S105 - a verdict, not a password
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"
    ERROR = "error"


class Level(StrEnum):
    """How severe a violation is, and what follows from it."""

    WARNING = "warning"  # loaded and reported
    ERROR = "error"  # loaded and reported; nothing trains on the feed until the batch is backed out or an operator accepts it
    CRITICAL = "critical"  # refused before anything of it is visible


@dataclass(frozen=True, slots=True)
class Violation:
    """An expectation that a delivery did not meet.

    `check` names the expectation ("volume", "gap", "schema", "shift"), `subject` the column, slice or rule that it is
    about ("" for the whole delivery); `observed` and `bound` are in the unit that `explanation` names.
    """

    check: str
    subject: str
    level: Level
    explanation: str
    observed: float | None = None
    bound: float | None = None


class Severity(StrEnum):
    """How urgent a problem is."""

    CRITICAL = "critical"  # callers suffer now, or nothing protects them
    ERROR = "error"  # predictions or training data are wrong, or will be soon
    WARNING = "warning"  # a user should look at it within days


PROBLEMS: Final[Mapping[str, Severity]] = MappingProxyType(
    {
        "tainted_champion": Severity.CRITICAL,
        "data_incident": Severity.CRITICAL,
        "servers_not_as_declared": Severity.CRITICAL,
        "control_loop_silent": Severity.CRITICAL,
        "no_requests": Severity.CRITICAL,
        "requests_failed": Severity.CRITICAL,
        "requests_refused": Severity.ERROR,
        "objective_missed": Severity.ERROR,
        "feed_suspect": Severity.ERROR,
        "feed_refusing": Severity.ERROR,
        "feed_overdue": Severity.ERROR,
        "server_conflict": Severity.ERROR,
        "no_version": Severity.WARNING,
        "server_lost": Severity.WARNING,
        "rollout_stalled": Severity.WARNING,
        "training_failed": Severity.WARNING,
        "gate_failed": Severity.WARNING,
        "rate_changed": Severity.WARNING,
        "label_shifted": Severity.WARNING,
        "unseen_slice": Severity.WARNING,
        "feed_warned": Severity.WARNING,
        "drill_expired": Severity.WARNING,
    }
)
"""Every kind of problem that health reports, with its severity; the most harmful first."""


class DeclarationKind(StrEnum):
    """What a recorded declaration is of."""

    FEED = "feed"
    MODEL = "model"


class Arm(StrEnum):
    """The side of a rollout that served a request."""

    CHAMPION = "champion"
    CHALLENGER = "challenger"
    FALLBACK = "fallback"


@dataclass(frozen=True, slots=True)
class BatchId:
    """One delivery of one feed: the feed's name and the sender's id for the delivery."""

    feed: str
    batch: str

    def __str__(self) -> str:
        return f"{self.feed}/{self.batch}"


@dataclass(frozen=True, slots=True)
class TrafficPlan:
    """Which versions of a model serve, and with which share. A server follows the newest plan that it could verify.

    Parameters
    ----------
    plan_id
        Rises with every plan, and a server never goes back to a smaller one. 0 until it is committed.
    share_ppm
        The challenger's share of the units in parts per million, 0 to 1,000,000.
    previous
        The version that a rollback of a finished promotion returns to.
    fallback
        The heuristic that serves when no model can.
    rollout_id
        The rollout that made the plan.
    shadow, shadow_ppm
        The version that gets copies of so many units, in parts per million; callers never see its predictions.
    serving_config, runtime
        What servers should run; None leaves both unchanged.
    pushes
        The version that the rollout is of. It is read from the rollout, and belongs to no comparison of plans.
    """

    model: str
    plan_id: int
    champion: str
    challenger: str | None = None
    share_ppm: int = 0
    previous: str | None = None
    fallback: str | None = None
    rollout_id: int | None = None
    shadow: str | None = None
    shadow_ppm: int = 0
    serving_config: str | None = None
    runtime: str | None = None
    pushes: str | None = field(default=None, compare=False)

    @property
    def intended(self) -> str:
        """Return the version that new traffic goes to: the challenger once it has all of it.

        >>> TrafficPlan("m", 4, "v1", "v2", 1_000_000, None, None, 1).intended
        'v2'
        """
        if self.challenger is not None and self.share_ppm >= EVERYTHING_PPM:
            return self.challenger
        return self.champion

    def versions(self) -> tuple[str, ...]:
        """Return every version that must be warm under this plan, the champion first, each once."""
        named = (self.champion, self.challenger, self.previous, self.fallback, self.shadow)
        return tuple(dict.fromkeys(version for version in named if version is not None))


def to_plain(value: object) -> object:
    """Return a dataclass as a dictionary and a duration in seconds; to be given as `default` to `json.dumps`.

    Raises `TypeError` for any other value.

    >>> json.dumps([BatchId("flights", "d1"), timedelta(minutes=1)], default=to_plain)
    '[{"feed": "flights", "batch": "d1"}, 60.0]'
    """
    if is_dataclass(value):
        return {field.name: getattr(value, field.name) for field in fields(value)}
    if isinstance(value, timedelta):
        return value.total_seconds()
    raise TypeError(f"{type(value).__name__} is no JSON value")


def canonical_json(value: object) -> str:
    """Return `value` as JSON with sorted keys and no spaces, so that equal values have equal hashes.

    It may be or contain dataclasses and durations; see `to_plain`.

    >>> canonical_json({"b": 1, "a": [1.5, None]})
    '{"a":[1.5,null],"b":1}'
    """
    return json.dumps(
        value, default=to_plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )


def sha256_hex(data: bytes | str) -> str:
    """Return the SHA-256 of `data` (text as UTF-8) as 64 hexadecimal digits."""
    return hashlib.sha256(data.encode() if isinstance(data, str) else data).hexdigest()


SLICE_CHARACTERS: Final = 255
"""The longest text that names a slice; of a longer value `shortened` makes one."""


def shortened(text: str, longest: int) -> str:
    """Return `text` if it is short enough, else its begin with a digest, so that no two long texts become one.

    >>> len(shortened("x" * 300, 255)), shortened("x" * 300, 255) == shortened("x" * 301, 255)
    (255, False)
    """
    return text if len(text) <= longest else f"{text[: longest - 17]}-{sha256_hex(text)[:16]}"


BATCH_COLUMN: Final = "_batch"
SOURCE_COLUMN: Final = "_source"
METADATA_COLUMNS: Final = (BATCH_COLUMN, SOURCE_COLUMN)
"""Columns that a row gets from its load. No column of a contract has such a name, because it begins with a letter or digit."""


def check_column_name(name: str) -> str:
    """Return `name` if it may name a column of a contract or is a metadata column. Raises `InputError` HF109 otherwise."""
    return name if name in METADATA_COLUMNS else check_name(name, "column")


def check_name(name: str, what: str) -> str:
    """Return `name` if it may name a `what`. Raises `InputError` HF109 otherwise.

    >>> check_name("flight-delay", "model")
    'flight-delay'
    """
    if not NAME.match(name):
        raise InputError(
            "HF109",
            f"{name!r} cannot name a {what}: use 1 to 63 of a-z, 0-9, '_' and '-', beginning with a letter or digit",
        )
    return name


def duration(text: str | timedelta, of: str = "") -> timedelta:
    """Return the duration of a number with a unit: ms, s, min, h or d. `of` names the parameter in the error.

    >>> duration("90min")
    datetime.timedelta(seconds=5400)
    """
    if isinstance(text, timedelta):
        return text
    given = f"{of}={text!r}" if of else repr(text)
    found = _DURATION.match(str(text))  # a bare number is what people write by mistake
    if found is None:
        raise InputError(
            "HF109", f"{given} is not a duration: write a number and ms, s, min, h or d, as in '15min'"
        )
    try:
        return timedelta(seconds=float(found[1]) * _UNIT_SECONDS[found[2]])
    except OverflowError as error:
        raise InputError("HF109", f"{given[:60]} is a longer duration than can be counted") from error


def checked_json(content: dict[str, Any]) -> bytes:
    """Return `content` as canonical JSON with its SHA-256.

    >>> from_checked_json(checked_json({"rows": 3}))
    {'rows': 3}
    """
    return canonical_json({"sha256": sha256_hex(canonical_json(content)), "content": content}).encode()


def from_checked_json(data: bytes) -> dict[str, Any]:
    """Return the content of a file that `checked_json` made; `ValueError` if it is damaged."""
    try:
        content: dict[str, Any] = json.loads(data)["content"]
        intact = checked_json(content) == data
    except (KeyError, TypeError) as error:
        raise ValueError("it is no JSON with a SHA-256") from error
    if not intact:
        raise ValueError("its SHA-256 is not that of its content")
    return content
