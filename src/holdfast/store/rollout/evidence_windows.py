"""Rows of `evidence_windows`: the open windows of each rollout.

They change in the transaction that moves the read positions of logs, so a request is in one window or in the evidence, once,
and another control loop goes on with them.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, delete, insert, or_, select

from holdfast.rollout.evidence.windows import (
    OpenWindow,
    Window,
    requests_from_json,
    requests_to_json,
)
from holdfast.store.db.schema import evidence_windows, rollouts

_ROW = evidence_windows.c


def of_rollout(connection: Connection, rollout: int) -> tuple[OpenWindow, ...]:
    """Return the open windows of `rollout`, the oldest first."""
    query = (
        select(evidence_windows)
        .where(_ROW.rollout_id == rollout)
        .order_by(_ROW.minute_start_us, _ROW.share_ppm)
    )
    return tuple(
        OpenWindow(
            Window(row.minute_start_us, row.share_ppm, requests_from_json(row.requests_json)),
            row.opened_at_us,
            row.closes_at_us,
        )
        for row in connection.execute(query)
    )


def due(connection: Connection, model: str, now_us: int) -> tuple[int, ...]:
    """Return the rollouts of `model` with a window that closes at `now_us` (`OpenWindow.is_due`)."""
    query = (
        select(_ROW.rollout_id)
        .distinct()
        .join(rollouts, rollouts.c.rollout_id == _ROW.rollout_id)
        .where(rollouts.c.model == model, or_(_ROW.closes_at_us <= now_us, _ROW.opened_at_us > now_us))
        .order_by(_ROW.rollout_id)
    )
    return tuple(connection.scalars(query))


def put(
    connection: Connection, rollout: int, before: Sequence[OpenWindow], after: Sequence[OpenWindow]
) -> None:
    """Replace the open windows of `rollout`, which were `before`, in the caller's transaction. Writes what changed."""
    known, kept = ({_key(each): each for each in some} for some in (before, after))
    for key, each in known.items():
        if kept.get(key) != each:
            minute_start_us, share_ppm = key
            connection.execute(
                delete(evidence_windows).where(
                    _ROW.rollout_id == rollout,
                    _ROW.minute_start_us == minute_start_us,
                    _ROW.share_ppm == share_ppm,
                )
            )
    for key, each in kept.items():
        if known.get(key) != each:
            connection.execute(insert(evidence_windows).values(_values(rollout, each)))


def _key(opened: OpenWindow) -> tuple[int, int]:
    return opened.window.minute_start_us, opened.window.share_ppm


def _values(rollout: int, opened: OpenWindow) -> dict[str, object]:
    window = opened.window
    return {
        "rollout_id": rollout,
        "minute_start_us": window.minute_start_us,
        "share_ppm": window.share_ppm,
        "opened_at_us": opened.opened_at_us,
        "closes_at_us": opened.closes_at_us,
        "units": opened.units,
        "requests_json": requests_to_json(window.requests),
    }
