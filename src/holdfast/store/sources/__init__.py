"""Sources: what a sender delivered as a file, a directory or prefix of files, or a PostgreSQL query.

A source is read into memory once, so that what was digested is what is loaded, even if another process writes to it
meanwhile. A source that changes while it is read is refused. Each read has a deadline and a size limit.
"""

from holdfast.store.sources.delivery import (
    DEADLINE_SECONDS,
    LIMIT_BYTES,
    AbsentError,
    Bundle,
    File,
    Kind,
    Rows,
    Source,
)
from holdfast.store.sources.opener import Bounded, Spec, deliveries, name_of, open_source
from holdfast.store.sources.parser import parse

__all__ = [
    "DEADLINE_SECONDS",
    "LIMIT_BYTES",
    "AbsentError",
    "Bounded",
    "Bundle",
    "File",
    "Kind",
    "Rows",
    "Source",
    "Spec",
    "deliveries",
    "name_of",
    "open_source",
    "parse",
]
