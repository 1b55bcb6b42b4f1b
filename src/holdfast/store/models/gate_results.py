"""Rows of `gate_results`: every verdict of every gate on every version, with its numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Final

from sqlalchemy import Connection, insert, select

from holdfast.qualify import GateResult
from holdfast.records import Verdict
from holdfast.store.db import schema

_RESULTS: Final = schema.gate_results

REPLAY: Final = "replay"
"""The gate of recorded requests: evaluated separately, repeatedly, and no part of qualification."""


def append(connection: Connection, version: str, results: Sequence[GateResult], *, now_us: int) -> None:
    """Add the results of one evaluation of `version` to the caller's transaction; none is overwritten."""
    if results:
        connection.execute(
            insert(_RESULTS),
            [asdict(result) | {"version": version, "evaluated_at_us": now_us} for result in results],
        )


def newest(connection: Connection, version: str) -> list[GateResult]:
    """Return the results of the newest evaluation of `version`, in the order of its gates; empty before the first."""
    fields = [_RESULTS.c[name] for name in GateResult.__slots__]
    last = (
        select(_RESULTS.c.evaluated_at_us)
        .where(_RESULTS.c.version == version, _RESULTS.c.gate != REPLAY)
        .order_by(_RESULTS.c.evaluated_at_us.desc())
        .limit(1)
    )
    query = (
        select(*fields)
        .where(
            _RESULTS.c.version == version,
            _RESULTS.c.gate != REPLAY,
            _RESULTS.c.evaluated_at_us == last.scalar_subquery(),
        )
        .order_by(_RESULTS.c.gate_result_id)
    )
    found = [dict(row) for row in connection.execute(query).mappings()]
    return [GateResult(**row | {"verdict": Verdict(row["verdict"])}) for row in found]


def newest_replay(connection: Connection, version: str) -> GateResult | None:
    """Return the result of the newest replay of recorded requests with `version`; None before the first.

    `observed` is how many requests got a response, `bound` how many were wanted.
    """
    fields = [_RESULTS.c[name] for name in GateResult.__slots__]
    query = (
        select(*fields)
        .where(_RESULTS.c.version == version, _RESULTS.c.gate == REPLAY)
        .order_by(_RESULTS.c.gate_result_id.desc())
        .limit(1)
    )
    row = connection.execute(query).mappings().first()
    return None if row is None else GateResult(**{**row, "verdict": Verdict(row["verdict"])})
