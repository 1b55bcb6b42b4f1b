"""The operator's log of a server, on standard error: lines of text, or one JSON object to a line."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any, Final

from holdfast.formatting import visible

_TEXT: Final = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class OperatorHandler(logging.StreamHandler):  # type: ignore[type-arg]  # the stub's stream is whatever sys.stderr is
    """Write to standard error. Serving goes on when that is full, closed or absent: the line is dropped."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  (the name is logging's)
        """Drop `record`; by default logging would write to the same stream that just failed."""


class TextFormatter(logging.Formatter):
    """Format a record as a line of text, and a traceback as lines behind a bar: no text from outside begins a line."""

    def __init__(self) -> None:
        super().__init__(_TEXT)

    def format(self, record: logging.LogRecord) -> str:
        r"""Return the lines.

        >>> record = logging.LogRecord("holdfast.serve", logging.WARNING, "", 1, "town %s", ("\nall is well",), None)
        >>> record.created = record.msecs = 0.0
        >>> TextFormatter().format(record).partition(" ")[2].partition(" ")[2]
        'WARNING holdfast.serve: town \\x0aall is well'
        """
        shown = logging.makeLogRecord(record.__dict__ | {"msg": visible(record.getMessage()), "args": None})
        shown.exc_text = None  # another handler may have formatted it otherwise
        return super().format(shown)

    def formatException(self, ei: Any) -> str:  # noqa: N802  (the name is logging's)
        """Return the traceback, each line behind a bar."""
        return "\n".join(f"  | {visible(line)}" for line in super().formatException(ei).split("\n"))


class JsonFormatter(logging.Formatter):
    """Format a record as one JSON object: timestamp, level, logger, message and, if there is one, the traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """Return one line.

        >>> record = logging.LogRecord("holdfast.serve", logging.WARNING, "", 1, "plan %d", (7,), None)
        >>> record.created = 0.0
        >>> JsonFormatter().format(record)
        '{"timestamp": "1970-01-01T00:00:00+00:00", "level": "warning", "logger": "holdfast.serve", "message": "plan 7"}'
        """
        line = {
            "timestamp": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line)


def configure(log_format: str = "text", level: str = "info") -> None:
    """Send what Holdfast logs to standard error, as text or json, from `level` on."""
    handler = OperatorHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    logger = logging.getLogger("holdfast")
    logger.handlers = [handler]
    logger.setLevel(level.upper())
