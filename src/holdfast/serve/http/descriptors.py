"""The limit on file descriptors of this process."""

from __future__ import annotations

import logging
import resource
from typing import Final

SPARE: Final = 512
"""Descriptors besides those of connections: the log, the ledger, models, threads."""

_log = logging.getLogger(__name__)


def raise_limit(connections: int) -> None:
    """Raise the soft limit so far that so many connections fit; warn when the hard limit is lower."""
    needed = connections + SPARE
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return
    reachable = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (reachable, hard))
    except (OSError, ValueError):  # a system may forbid it
        reachable = soft
    if reachable < needed:
        _log.warning(
            "%d connections need %d descriptors, and this process may have %d", connections, needed, reachable
        )
