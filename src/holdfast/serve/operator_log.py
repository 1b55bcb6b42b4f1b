"""A line for the operator on standard error, which may be full, closed or gone without harm to what is served."""

from __future__ import annotations

import sys


def tell(what: str) -> None:
    """Write `what` to standard error. Never raises: nobody stops serving because nobody can listen."""
    try:
        sys.stderr.write(f"holdfast: {what}\n")
        sys.stderr.flush()
    except (OSError, ValueError, AttributeError):  # full or gone; closed; never there
        return
