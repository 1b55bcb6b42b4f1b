"""Creates a ledger, or migrates it to the current schema, in one transaction of the first process that opens it.

A new ledger gets the tables of `schema`. Only an older ledger runs revisions: those of Alembic in `migrations/versions`; no
Alembic file is needed. Neither creating nor opening a current ledger loads Alembic.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from sqlalchemy import (
    Column,
    Connection,
    Engine,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    insert,
    inspect,
    select,
)
from sqlalchemy.schema import SetColumnComment, SetTableComment

from holdfast.errors import IntegrityError
from holdfast.store.db.schema import METADATA

HEAD: Final = "0001"
"""The revision of `schema.METADATA`: the newest file in `migrations/versions`."""

_SCRIPTS: Final = Path(__file__).parent / "migrations"
_REVISION: Final = Table(
    "alembic_version",
    MetaData(),
    Column("version_num", String(32), nullable=False),
    PrimaryKeyConstraint("version_num", name="alembic_version_pkc"),
)


def upgrade(engine: Engine) -> None:
    """Create the ledger if the database is empty, else run every revision that it lacks.

    Raises `IntegrityError` HF310 if the database belongs to another program or was made by a newer Holdfast; nothing is
    changed.
    """
    with engine.connect() as connection:
        if revision(connection) == HEAD:
            return
    with engine.connect().execution_options(holdfast_writes=True) as connection, connection.begin():
        found = revision(connection)  # another process may have created or migrated it meanwhile
        if found is None:
            _create(connection)
        elif found != HEAD:
            _migrate(connection, found)


def is_new(engine: Engine) -> bool:
    """Return True if the database is empty."""
    with engine.connect() as connection:
        return revision(connection) is None


def revision(connection: Connection) -> str | None:
    """Return the ledger's revision, None for an empty database; `IntegrityError` HF310 if it is no ledger."""
    inspector = inspect(connection)
    if inspector.has_table(_REVISION.name):
        found: str | None = connection.execute(select(_REVISION.c.version_num)).scalar_one_or_none()
        return found
    tables = inspector.get_table_names()
    if tables:
        raise IntegrityError(
            "HF310",
            f"the database is not a ledger of Holdfast: it has a table {tables[0]!r} and no revision",
            state="nothing was changed",
            next_command="name another database in HOLDFAST_LEDGER",
        )
    return None


def _create(connection: Connection) -> None:
    METADATA.create_all(connection, checkfirst=False)
    _REVISION.create(connection, checkfirst=True)
    connection.execute(insert(_REVISION).values(version_num=HEAD))


def _migrate(connection: Connection, found: str) -> None:
    from alembic.migration import MigrationContext
    from alembic.operations import Operations
    from alembic.script import ScriptDirectory

    scripts = ScriptDirectory(str(_SCRIPTS))
    line = list(reversed(list(scripts.walk_revisions("base", HEAD))))
    known = [script.revision for script in line]
    if found not in known:
        raise IntegrityError(
            "HF310",
            f"the ledger is at revision {found} and this release ends at {known[-1]}: a newer Holdfast created it",
            state="nothing was changed",
            next_command="pip install --upgrade holdfast",
        )
    context = MigrationContext.configure(connection)
    for script in line[known.index(found) + 1 :]:
        with Operations.context(context):
            script.module.upgrade()
        context.stamp(scripts, script.revision)
    _write_comments(connection)


def _write_comments(connection: Connection) -> None:
    if connection.dialect.supports_comments:
        for each in METADATA.sorted_tables:
            connection.execute(SetTableComment(each))
            for part in each.columns:
                connection.execute(SetColumnComment(part))
