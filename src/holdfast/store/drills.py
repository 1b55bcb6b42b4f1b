"""Rows of `drills`: what was exercised, when, and until when that is believed."""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection, func, select

from holdfast.records import Verdict
from holdfast.store import schema

_DRILLS: Final = schema.drills


def last_passed_us(connection: Connection, model: str, kind: str) -> int | None:
    """When a drill of this kind of `model` last passed, microseconds since 1970 UTC; None when none has."""
    query = select(func.max(_DRILLS.c.ended_us)).where(
        _DRILLS.c.model == model, _DRILLS.c.kind == kind, _DRILLS.c.verdict == Verdict.PASS
    )
    return connection.execute(query).scalar_one_or_none()
