"""State machine of a server as a member of its model, as a table. No other place lists states.

A server that left, whose log is complete, differs from one that is not heard from.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from holdfast.rollout.model.server_name import Stated

SILENT_US: Final = 20_000_000
"""How old the last heartbeat of a server may be before it is not heard from, microseconds: four heartbeats."""
LOST_US: Final = 600_000_000
"""How long a server is silent before it is lost, microseconds."""


class MemberState(StrEnum):
    """What a server is to its model."""

    PRESENT = "present"  # it states that it serves
    DRAINING = "draining"  # it states that it takes no new connection
    SILENT = "silent"  # neither a heartbeat nor a response came from it lately
    GONE = "gone"  # it has ended for certain: it stated so, or its lock is free
    LOST = "lost"  # it was silent for so long that it is no longer polled; what it logged may be lost


class Signal(StrEnum):
    """What one look shows of a server."""

    SERVES = "serves"  # it is heard from
    DRAINS = "drains"  # it is heard from, and leaves
    QUIET = "quiet"  # it is not heard from
    OVERDUE = "overdue"  # it has not been heard from for `LOST_US` since it was found silent
    ENDED = "ended"


LIVING: Final = frozenset({MemberState.PRESENT, MemberState.DRAINING, MemberState.SILENT})
"""The states of servers that are polled: by probes and for aborts."""

TRANSITIONS: Final[dict[tuple[MemberState, Signal], MemberState]] = {
    **{(state, Signal.SERVES): MemberState.PRESENT for state in MemberState},
    **{(state, Signal.DRAINS): MemberState.DRAINING for state in MemberState},
    **{(state, Signal.ENDED): MemberState.GONE for state in MemberState},
    (MemberState.PRESENT, Signal.QUIET): MemberState.SILENT,
    (MemberState.DRAINING, Signal.QUIET): MemberState.SILENT,
    (MemberState.SILENT, Signal.QUIET): MemberState.SILENT,
    (MemberState.SILENT, Signal.OVERDUE): MemberState.LOST,
    # One that has ended, or that is lost already, need not be heard from.
    (MemberState.GONE, Signal.QUIET): MemberState.GONE,
    (MemberState.LOST, Signal.QUIET): MemberState.LOST,
    (MemberState.LOST, Signal.OVERDUE): MemberState.LOST,
}
"""`OVERDUE` is a signal of servers that were found silent alone."""


def read_signal(
    state: MemberState,
    stated: Stated | None,
    *,
    heard_us: int | None,
    in_state_us: int,
    has_ended: bool,
    responds: bool,
) -> Signal:
    """Return what one look shows.

    Parameters
    ----------
    state
        The state of the server before.
    stated
        What its last heartbeat states; None of an earlier release, which writes none.
    heard_us
        The age of that heartbeat by the ledger's clock, microseconds; None without one.
    in_state_us
        How long the server has been in its state by the ledger's clock, microseconds.
    has_ended
        Whether its lock proves that its process has ended.
    responds
        Whether it responded to its last probe.

    >>> look = dict(heard_us=1_000_000, in_state_us=0, has_ended=False, responds=False)
    >>> read_signal(MemberState.PRESENT, Stated.SERVING, **look).value
    'serves'
    >>> read_signal(MemberState.SILENT, Stated.SERVING, **look | {"heard_us": 700_000_000, "in_state_us": LOST_US}).value
    'overdue'
    """
    if has_ended or stated is Stated.ENDED:
        return Signal.ENDED
    is_heard = responds or (heard_us is not None and heard_us < SILENT_US)
    if is_heard:
        return Signal.DRAINS if stated is Stated.DRAINING else Signal.SERVES
    if state in (MemberState.SILENT, MemberState.LOST) and in_state_us >= LOST_US:
        return Signal.OVERDUE
    return Signal.QUIET


def move(state: MemberState, signal: Signal) -> MemberState:
    """Return the state after `signal`. Raises `ValueError` for a pair that the table lacks: `read_signal` returns none."""
    after = TRANSITIONS.get((state, signal))
    if after is None:
        raise ValueError(f"a {state} server cannot be {signal}")
    return after
