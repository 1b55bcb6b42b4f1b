"""What a sender delivered, from wherever it lies: a file, a directory or prefix of files, a PostgreSQL query.

A source is taken into memory once, so that what was digested is what is loaded, even if somebody writes to it meanwhile.
What changes while it is read is refused. No source is waited for longer than a deadline, and none larger than a limit is read.
"""

from holdfast.store.sources.opening import Bounded, Spec, deliveries, open_source
from holdfast.store.sources.parsing import parse, read
from holdfast.store.sources.source import DEADLINE_SECONDS, LIMIT_BYTES, Bundle, File, Kind, Rows, Source

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
