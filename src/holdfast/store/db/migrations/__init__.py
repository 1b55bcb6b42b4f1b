"""The ledger's way from any earlier release to this one: Alembic revisions, one file each, run by
`store/db/migrate.py`.
"""
