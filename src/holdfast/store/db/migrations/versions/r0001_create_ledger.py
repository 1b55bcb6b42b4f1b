"""The first revision: the ledger as `Ledger.open` creates it from `schema`.

A released revision never changes; the next one changes what it left.
"""

from __future__ import annotations

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Change nothing: no ledger is older."""
