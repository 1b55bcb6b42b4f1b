"""Add the time to the response of requests, and why requests were refused. Of earlier requests neither is known."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"

_COMMENTS = {
    "latency_sum_us": "Sum of their processor times.",
    "latency_buckets_json": "Processor times: counts by bucket of LATENCY_EDGES_SECONDS, canonical JSON.",
}
_ADDED = {
    "response_buckets_json": "Times to the response, likewise; null for requests of before.",
    "reasons_json": "Refused requests by rule of the contract, the commonest, canonical JSON.",
}


def upgrade() -> None:
    """Add the columns, and state what the others measure."""
    for name, comment in _ADDED.items():
        op.add_column("request_counts", sa.Column(name, sa.Text, comment=comment))
    if op.get_bind().dialect.name != "sqlite":
        for name, comment in _COMMENTS.items():
            op.alter_column("request_counts", name, comment=comment)
