"""Rows of `serving_configs`: limits of servers, and which of them the plans of a model name."""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection, select

from holdfast.errors import NotFoundError
from holdfast.rollout.model.serving_config import ConnectionLimits
from holdfast.store.db import schema
from holdfast.store.db.statements import inserting
from holdfast.store.rollout import traffic_plans

_CONFIGS: Final = schema.serving_configs


def register(connection: Connection, limits: ConnectionLimits, *, now_us: int) -> str:
    """Store `limits` once, in the caller's transaction; return their id."""
    values = {"serving_config": limits.id, "config_json": limits.to_json(), "registered_at_us": now_us}
    connection.execute(inserting(connection, _CONFIGS).values(values).on_conflict_do_nothing())
    return limits.id


def get(connection: Connection, config: str) -> ConnectionLimits:
    """Return the limits of that id. Raises `NotFoundError` HF303 when they were never registered."""
    return ConnectionLimits.from_json(document(connection, config))


def document(connection: Connection, config: str) -> str:
    """Return the JSON of that id, which another release may have written. Raises `NotFoundError` HF303 as `get`."""
    query = select(_CONFIGS.c.config_json).where(_CONFIGS.c.serving_config == config)
    found = connection.execute(query).scalar_one_or_none()
    if found is None:
        raise NotFoundError("HF303", f"there is no serving config {config!r}", state="nothing was changed")
    return str(found)


def in_force(connection: Connection, model: str) -> tuple[tuple[int, str], ...]:
    """Return the two newest serving configs in plans of `model`, each with the first plan of its last period."""
    return traffic_plans.in_force(connection, model, "serving_config")
