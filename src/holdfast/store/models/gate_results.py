"""Rows of `gate_results`: every verdict of every gate on every version, with its numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Final

from sqlalchemy import Connection, func, insert, select

from holdfast.qualify import GateResult
from holdfast.store.db import rows, schema

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
    of_gates = (_RESULTS.c.version == version, _RESULTS.c.gate != REPLAY)
    last = select(func.max(_RESULTS.c.evaluated_at_us)).where(*of_gates).scalar_subquery()
    query = select(_RESULTS).where(*of_gates, _RESULTS.c.evaluated_at_us == last)
    return rows.read(connection, query.order_by(_RESULTS.c.gate_result_id), GateResult)


def newest_replay(connection: Connection, version: str) -> GateResult | None:
    """Return the result of the newest replay of recorded requests with `version`; None before the first.

    `observed` is how many requests got a response, `bound` how many were wanted.
    """
    query = select(_RESULTS).where(_RESULTS.c.version == version, _RESULTS.c.gate == REPLAY)
    return rows.first(connection, query.order_by(_RESULTS.c.gate_result_id.desc()), GateResult)
