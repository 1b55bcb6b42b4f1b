"""Child process that reads a query's rows: the request is JSON on stdin, the reply an Arrow stream on stdout.

It imports nothing of Holdfast, so that it starts fast. It reports a failure by its exit status (`postgres_query.py` knows
them) and a message on stderr. The URL comes on stdin because every process can read arguments.
"""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pyarrow

REFUSED, UNAVAILABLE, TOO_LARGE, NOT_INSTALLED = 3, 4, 5, 6

_ROOM_BYTES = 1 << 28

# Classes of SQLSTATE (https://www.postgresql.org/docs/current/errcodes-appendix.html) that the same query meets again.
_OURS = ("0A", "21", "22", "23", "25", "26", "2F", "34", "38", "39", "42", "44")
_ENUMS = "select oid::int8, typname::text from pg_type where typtype = 'e'"


def main() -> int:
    """Read the request, write the rows, and return the exit status."""
    request = json.load(sys.stdin)
    try:
        import adbc_driver_postgresql.dbapi as postgresql
    except ImportError:
        return NOT_INSTALLED
    _limit_memory(request["limit_bytes"])
    try:
        with postgresql.connect(_with_timeout(request["url"])) as connection, connection.cursor() as cursor:
            table = _rows(cursor, request)
    except MemoryError:
        return TOO_LARGE
    except postgresql.Error as error:
        sys.stderr.write(str(error))
        if "out of memory" in str(error) or "cannot allocate memory" in str(error).lower():
            return TOO_LARGE
        state = error.sqlstate or ""
        return REFUSED if state.startswith(_OURS) else UNAVAILABLE
    if table is None:
        return TOO_LARGE
    with pyarrow.ipc.new_stream(sys.stdout.buffer, table.schema) as stream:
        stream.write_table(table)
    return 0


def _rows(cursor: Any, request: dict[str, Any]) -> Any:
    cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
    # The driver reads by COPY, which takes neither a parameter nor an EXECUTE.
    cursor.adbc_statement.set_options(**{"adbc.postgresql.use_copy": "false"})
    cursor.execute(f"SET LOCAL statement_timeout = {int(request['deadline_ms'])}")
    cursor.execute(_ENUMS)
    enums = {name for oid, name in cursor.fetchall() for name in (name, f"unnamed<oid:{oid}>")}
    # A parameter of PREPARE takes the type that the query compares it with, which a parameter of a driver does not.
    cursor.execute(f"PREPARE holdfast_batch AS {request['query']}")
    batch = request["batch"]  # an id: letters, digits, "_" and "-"
    cursor.execute("EXECUTE holdfast_batch" if batch is None else f"EXECUTE holdfast_batch('{batch}')")
    reader = cursor.fetch_record_batch()
    batches, size = [], 0
    for batch in reader:
        size += batch.nbytes
        if size > request["limit_bytes"]:
            return None
        batches.append(batch)
    return _named(pyarrow.Table.from_batches(batches, reader.schema), enums)


def _limit_memory(limit_bytes: int) -> None:
    """Bound this process: the client keeps a whole result before it gives its first row away."""
    pages = int(Path("/proc/self/statm").read_text().split()[0]) if Path("/proc/self/statm").exists() else 0
    most = pages * resource.getpagesize() + 2 * limit_bytes + _ROOM_BYTES
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    if pages and (soft == resource.RLIM_INFINITY or most < soft):
        resource.setrlimit(resource.RLIMIT_AS, (most, hard))


def _named(table: Any, enums: set[str]) -> Any:
    """Return the table with the PostgreSQL type of each column as the metadata "postgresql"."""
    fields = []
    for field in table.schema:
        kind = (field.metadata or {}).get(b"POSTGRESQL:type", b"").decode()
        fields.append(field.with_metadata({b"postgresql": b"enum" if kind in enums else kind.encode()}))
    return pyarrow.table(table.columns, schema=pyarrow.schema(fields))


def _with_timeout(url: str) -> str:
    parts = urlsplit(url)
    if "connect_timeout" in parse_qs(parts.query):
        return url
    return f"{url}{'&' if parts.query else '?'}connect_timeout=10"


if __name__ == "__main__":
    sys.exit(main())
