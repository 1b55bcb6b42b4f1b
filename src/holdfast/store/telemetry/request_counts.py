"""Rows of `request_counts`: requests, results and latency of each version by minute."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec
from sqlalchemy import ColumnElement, Connection, and_, func, select

from holdfast.monitor.latency import Histogram, merge
from holdfast.monitor.usage import UsageRow
from holdfast.records import canonical_json
from holdfast.store.db import rows
from holdfast.store.db.schema import request_counts
from holdfast.store.db.statements import total

_from_text: Final = msgspec.json.Decoder(dict[int, int]).decode
_counts: Final = msgspec.json.Decoder(dict[str, int]).decode
_MOST_REASONS: Final = 20


def add(connection: Connection, model: str, counted: Iterable[UsageRow]) -> None:
    """Add counts to their minutes, in the caller's transaction."""
    for row in counted:
        key = {
            "model": model,
            "version": row.version,
            "arm": row.arm,
            "result": row.result,
            "minute_start_us": row.minute_start_us,
        }
        here = and_(*(request_counts.c[name] == value for name, value in key.items()))
        known = connection.execute(select(request_counts).where(here).with_for_update()).one_or_none()
        latency, response = row.latency, row.response
        reasons = dict(row.reasons)
        if known is not None:
            latency = merge((_from_text(known.latency_buckets_json), latency))
            response = merge((_from_text(known.response_buckets_json or "{}"), response))
            reasons = dict(Counter(_counts(known.reasons_json or "{}")) + Counter(reasons))
        counts = {
            "requests": row.requests + (known.requests if known else 0),
            "rows": row.rows + (known.rows if known else 0),
            "latency_sum_us": row.latency_sum_us + (known.latency_sum_us if known else 0),
            "latency_buckets_json": _to_text(latency),
            "response_buckets_json": _to_text(response),
            "reasons_json": canonical_json(_bounded(reasons)),
        }
        rows.put(connection, request_counts, key | counts)


def _to_text(histogram: Histogram) -> str:
    return canonical_json({str(bucket): count for bucket, count in histogram.items()})


def _bounded(reasons: dict[str, int]) -> dict[str, int]:
    """Return the commonest reasons: a contract may have thousands, and a minute is one row."""
    return dict(sorted(reasons.items(), key=lambda pair: (-pair[1], pair[0]))[:_MOST_REASONS])


def since(connection: Connection, model: str, since_us: int) -> tuple[UsageRow, ...]:
    """Return the minutes of `model` from `since_us` on, oldest first."""
    counts = request_counts.c
    query = (
        select(request_counts)
        .where(counts.model == model, counts.minute_start_us >= since_us)
        .order_by(counts.minute_start_us, counts.version, counts.arm, counts.result)
    )
    return tuple(
        rows.record(
            {
                **row,
                "latency": _from_text(row["latency_buckets_json"]),
                "response": _from_text(row["response_buckets_json"] or "{}"),
                "reasons": _counts(row["reasons_json"] or "{}"),
            },
            UsageRow,
        )
        for row in connection.execute(query).mappings()
    )


def latency_of(connection: Connection, model: str, version: str, since_us: int) -> Histogram:
    """Return the latencies of the requests that `version` of `model` answered in the minutes from `since_us` on."""
    counts = request_counts.c
    query = select(counts.latency_buckets_json).where(
        counts.model == model,
        counts.version == version,
        counts.result == "ok",
        counts.minute_start_us >= since_us,
    )
    return merge(_from_text(text) for text in connection.execute(query).scalars())


def minutes_with_requests(connection: Connection, model: str, since_us: int) -> list[int]:
    """Return the starts of the minutes from `since_us` on in which `model` got a request, in order."""
    minute = request_counts.c.minute_start_us
    query = (
        select(minute).where(request_counts.c.model == model, minute >= since_us).distinct().order_by(minute)
    )
    return list(connection.execute(query).scalars())


def last_minute_us(connection: Connection, model: str) -> int | None:
    """Return the newest minute with requests of `model`; None if there is none."""
    return connection.execute(
        select(func.max(request_counts.c.minute_start_us)).where(request_counts.c.model == model)
    ).scalar_one_or_none()


def first_minute_us(connection: Connection, model: str) -> int | None:
    """Return the first minute with requests of `model`; None if there is none."""
    return connection.execute(
        select(func.min(request_counts.c.minute_start_us)).where(request_counts.c.model == model)
    ).scalar_one_or_none()


def requests_between(
    connection: Connection, model: str, from_us: int, to_us: int, *, results: Sequence[str] | None = None
) -> int:
    """Return the number of requests of `model` in the minutes from `from_us` to before `to_us`.

    Counted are those with one of `results`; without it all, answered or not.
    """
    counts = request_counts.c
    query = select(total(counts.requests)).where(
        counts.model == model, counts.minute_start_us >= from_us, counts.minute_start_us < to_us
    )
    if results is not None:
        query = query.where(counts.result.in_(results))
    return connection.execute(query).scalar_one()


def requests_by_version(connection: Connection, model: str) -> dict[str, int]:
    """Return the number of requests of each version of `model` since the ledger began, answered or not."""
    return _by_version(connection, model, request_counts.c.requests)


def predicted_rows(connection: Connection, model: str, *, since_us: int) -> dict[str, int]:
    """Return the number of rows that each version of `model` predicted from the minute `since_us` on."""
    return _by_version(connection, model, request_counts.c.rows, request_counts.c.minute_start_us >= since_us)


def _by_version(
    connection: Connection, model: str, counted: ColumnElement[int], *where: ColumnElement[bool]
) -> dict[str, int]:
    query = (
        select(request_counts.c.version, total(counted))
        .where(request_counts.c.model == model, request_counts.c.version != "", *where)
        .group_by(request_counts.c.version)
    )
    return {str(version): int(count) for version, count in connection.execute(query)}
