"""Everything that is kept: the ledger, the Parquet files in its catalog, and the logs of servers.

No other package knows SQL or writes a file of the store.
"""

from __future__ import annotations

from holdfast.store.db.ledger import Store

__all__ = ["Store"]
