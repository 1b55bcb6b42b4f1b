"""Migrates a ledger to the current schema, in one transaction of the first process that opens it.

The revisions are Alembic's and lie in `migrations/versions`; no Alembic file is needed. A current ledger costs two small
queries and does not load Alembic.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from sqlalchemy import Connection, Engine, Select, String, column, inspect, select, table
from sqlalchemy.schema import SetColumnComment, SetTableComment

from holdfast.errors import IntegrityError
from holdfast.store.db.schema import METADATA

if TYPE_CHECKING:
    from alembic.script import Script

HEAD: Final = "0001"
"""The revision of `schema.METADATA`: the newest file in `migrations/versions`."""

_VERSION_TABLE: Final = "alembic_version"
_REVISION: Final[Select[str]] = select(column("version_num", String)).select_from(table(_VERSION_TABLE))


def upgrade(engine: Engine, to: str = HEAD) -> None:
    """Run every revision that the ledger lacks, up to and with `to`.

    Raises `IntegrityError` HF310 if the database belongs to another program or was made by a newer Holdfast; nothing is
    changed.
    """
    with engine.connect() as connection:
        if revision(connection) == to:
            return
    with engine.connect().execution_options(holdfast_writes=True) as connection, connection.begin():
        _run(connection, revision(connection), to)  # another process may have migrated it meanwhile


def is_new(engine: Engine) -> bool:
    """Return True if the database is empty."""
    with engine.connect() as connection:
        return revision(connection) is None


def revision(connection: Connection) -> str | None:
    """Return the ledger's revision, None for an empty database; `IntegrityError` HF310 if it is no ledger."""
    inspector = inspect(connection)
    if inspector.has_table(_VERSION_TABLE):
        found = connection.execute(_REVISION).scalar_one_or_none()
        return None if found is None else str(found)
    tables = inspector.get_table_names()
    if tables:
        raise IntegrityError(
            "HF310",
            f"the database is not a ledger of Holdfast: it has a table {tables[0]!r} and no revision",
            state="nothing was changed",
            next_command="name another database in HOLDFAST_LEDGER",
        )
    return None


def _run(connection: Connection, found: str | None, to: str) -> None:
    from alembic.config import Config
    from alembic.migration import MigrationContext
    from alembic.operations import Operations
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    scripts = ScriptDirectory.from_config(config)
    line = list(reversed(list(scripts.walk_revisions("base", to))))
    context = MigrationContext.configure(connection)
    for script in _missing(line, found):
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


def _missing(line: list[Script], found: str | None) -> list[Script]:
    known = [script.revision for script in line]
    if found is None:
        return line
    if found not in known:
        raise IntegrityError(
            "HF310",
            f"the ledger is at revision {found} and this release ends at {known[-1]}: a newer Holdfast created it",
            state="nothing was changed",
            next_command="pip install --upgrade holdfast",
        )
    return line[known.index(found) + 1 :]
