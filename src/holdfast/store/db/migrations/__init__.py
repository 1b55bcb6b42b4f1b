"""The ledger's migrations: Alembic revisions, one file each, run by `store/db/ledger.py`."""
