"""Brings a ledger's tables to this release's schema."""

from __future__ import annotations

from sqlalchemy import Engine

from holdfast.store.schema import METADATA


def upgrade(engine: Engine) -> None:
    """Create what is missing."""
    METADATA.create_all(engine)
