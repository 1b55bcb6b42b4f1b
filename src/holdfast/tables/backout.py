"""Backing out: what it is to remove a batch, as a list of steps that is shown and executed alike."""

from __future__ import annotations

from enum import StrEnum


class State(StrEnum):
    """Where a back-out is."""

    UNDER_WAY = "under_way"  # begun; whoever runs it next carries it on
    DONE = "done"  # every step is done
