"""A database query as the source of a feed: its one parameter, the batch's id, selects the rows of a batch."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from holdfast.errors import InputError
from holdfast.field_types import checked
from holdfast.records import check_name


@dataclass(frozen=True, slots=True)
@checked()
class PostgresQuery:
    """The query that reads the rows of a feed's batches.

    Parameters
    ----------
    url
        Where the URL of the database is kept: "${env:WAREHOUSE_URL}", the bare name of that variable, or "${file:/path}".
        A URL without a password is accepted too: declarations are read by many.
    query
        One SELECT, in which $1 stands for the batch's id; PostgreSQL reads it as the type that it is compared with, so that
        "day = $1" compares dates.
    deadline_seconds
        Deadline for all rows of the query, over 0.

    Raises `InputError` HF106 when the query has no $1, the deadline is no such number or the URL holds a password.

    >>> PostgresQuery("${env:WAREHOUSE_URL}", "select * from flights where day = $1").of("2013-01-05").batch
    '2013-01-05'
    """

    url: str = field(repr=False)
    query: str
    deadline_seconds: float = 300.0

    def __post_init__(self) -> None:
        if "$1" not in self.query:
            raise InputError(
                "HF106",
                "a PostgresQuery needs $1, which stands for the batch's id: else every batch would have the same rows",
            )
        if not (math.isfinite(self.deadline_seconds) and self.deadline_seconds > 0):
            raise InputError(
                "HF106", f"a deadline is a number of seconds over 0, not {self.deadline_seconds!r}"
            )
        before_host, at, _ = self.url.partition("://")[2].rpartition("@")
        if (at and ":" in before_host) or "password=" in self.url:
            raise InputError(
                "HF106",
                "a declaration holds no password: keep the URL in a variable and write ${env:ITS_NAME}",
            )

    def of(self, batch: str) -> BatchQuery:
        """Return the query for the rows of `batch`; `InputError` HF106 on an id that cannot be used."""
        return BatchQuery(self.url, self.query, check_name(batch, "batch"), self.deadline_seconds)


@dataclass(frozen=True, slots=True)
class BatchQuery:
    """A query for the rows of one batch.

    Without $1 it runs as it is. `deadline_seconds` None takes the deadline of the settings.
    """

    url: str = field(repr=False)
    query: str
    batch: str
    deadline_seconds: float | None = None
