"""Rows of `request_counts`: requests, results and latency of each version by minute."""

from __future__ import annotations

import json
from collections.abc import Iterable

from sqlalchemy import Connection, func, insert, select, update

from holdfast.monitor import UsageRow, merge
from holdfast.records import canonical_json
from holdfast.store.db.schema import request_counts


def add(connection: Connection, model: str, counted: Iterable[UsageRow]) -> None:
    """Add counts to their minutes, in the caller's transaction."""
    for row in counted:
        here = (
            (request_counts.c.model == model)
            & (request_counts.c.version == row.version)
            & (request_counts.c.arm == row.arm)
            & (request_counts.c.result == row.result)
            & (request_counts.c.minute_start_us == row.minute_start_us)
        )
        known = connection.execute(
            select(request_counts.c.latency_buckets_json).where(here).with_for_update()
        ).scalar_one_or_none()
        if known is None:
            connection.execute(
                insert(request_counts).values(
                    model=model,
                    version=row.version,
                    arm=row.arm,
                    result=row.result,
                    minute_start_us=row.minute_start_us,
                    requests=row.requests,
                    rows=row.rows,
                    latency_sum_us=row.latency_sum_us,
                    latency_buckets_json=_to_text(dict(row.latency)),
                )
            )
            continue
        connection.execute(
            update(request_counts)
            .where(here)
            .values(
                requests=request_counts.c.requests + row.requests,
                rows=request_counts.c.rows + row.rows,
                latency_sum_us=request_counts.c.latency_sum_us + row.latency_sum_us,
                latency_buckets_json=_to_text(merge((_from_text(known), row.latency))),
            )
        )


def since(connection: Connection, model: str, since_us: int) -> tuple[UsageRow, ...]:
    """Return the minutes of `model` from `since_us` on, oldest first."""
    query = (
        select(request_counts)
        .where(request_counts.c.model == model, request_counts.c.minute_start_us >= since_us)
        .order_by(
            request_counts.c.minute_start_us,
            request_counts.c.version,
            request_counts.c.arm,
            request_counts.c.result,
        )
    )
    return tuple(
        UsageRow(
            version=row.version,
            arm=row.arm,
            result=row.result,
            minute_start_us=row.minute_start_us,
            requests=row.requests,
            rows=row.rows,
            latency_sum_us=row.latency_sum_us,
            latency=_from_text(row.latency_buckets_json),
        )
        for row in connection.execute(query)
    )


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


def requests_between(connection: Connection, model: str, from_us: int, to_us: int) -> int:
    """Return the number of requests of `model` in the minutes from `from_us` to before `to_us`, answered or not."""
    query = select(func.coalesce(func.sum(request_counts.c.requests), 0)).where(
        request_counts.c.model == model,
        request_counts.c.minute_start_us >= from_us,
        request_counts.c.minute_start_us < to_us,
    )
    return int(connection.execute(query).scalar_one())


def requests_by_version(connection: Connection, model: str) -> dict[str, int]:
    """Return the number of requests of each version of `model` since the ledger began, answered or not."""
    query = (
        select(request_counts.c.version, func.sum(request_counts.c.requests))
        .where(request_counts.c.model == model)
        .group_by(request_counts.c.version)
    )
    return {version: int(requests) for version, requests in connection.execute(query) if version}


def predicted_rows(connection: Connection, model: str) -> dict[str, int]:
    """Return the number of rows that each version of `model` predicted since the ledger began."""
    query = (
        select(request_counts.c.version, func.sum(request_counts.c.rows))
        .where(request_counts.c.model == model)
        .group_by(request_counts.c.version)
    )
    return {version: int(rows) for version, rows in connection.execute(query) if version}


def _to_text(latency: dict[int, int]) -> str:
    return canonical_json({str(bucket): count for bucket, count in latency.items()})


def _from_text(text: str) -> dict[int, int]:
    return {int(bucket): int(count) for bucket, count in json.loads(text).items()}
