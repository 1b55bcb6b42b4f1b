"""What a sender delivered, from wherever it lies: a file, a directory or prefix of files, a PostgreSQL query.

A source is taken into memory once, so that what was digested is what is loaded, even if somebody writes to it meanwhile.
What changes while it is read is refused. No source is waited for longer than a deadline, and none larger than a limit is read.
"""

from holdfast.store.sources.delivery import DEADLINE_SECONDS, LIMIT_BYTES, Bundle, File, Kind, Rows, Source
from holdfast.store.sources.opener import Bounded, Spec, deliveries, open_source
from holdfast.store.sources.parser import parse, read

__all__ = [
    "DEADLINE_SECONDS",
    "LIMIT_BYTES",
    "Bounded",
    "Bundle",
    "File",
    "Kind",
    "Rows",
    "Source",
    "Spec",
    "deliveries",
    "open_source",
    "parse",
    "read",
]
