"""The state of a feed, as a table. No other place lists states.

A refused delivery leaves nothing behind, so the next good one simply loads. A batch that was admitted although it broke
an expectation makes the feed suspect: nothing trains on it until that batch is backed out or an operator accepts it (R5, R15).
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class State(StrEnum):
    """What may be done with the rows of a feed."""

    FLOWING = "flowing"  # every batch that is loaded met its expectations, or was accepted
    SUSPECT = "suspect"  # a loaded batch broke an expectation at level "error": nothing trains on the feed
    REFUSING = "refusing"  # the newest delivery was refused; what is loaded can be trusted, and grows old


class Event(StrEnum):
    """Events of a feed."""

    LOADED = "loaded"  # a batch was loaded and met its expectations
    LOADED_SUSPECT = "loaded_suspect"  # a batch was loaded and broke one at level "error"
    REFUSED = "refused"  # a delivery was refused
    CLEARED = "cleared"  # no loaded batch is suspect any more, or no refusal stands: backed out, or accepted by an operator


TRANSITIONS: Final[dict[tuple[State, Event], State]] = {
    (State.FLOWING, Event.LOADED): State.FLOWING,
    (State.FLOWING, Event.LOADED_SUSPECT): State.SUSPECT,
    (State.FLOWING, Event.REFUSED): State.REFUSING,
    (State.FLOWING, Event.CLEARED): State.FLOWING,
    (State.REFUSING, Event.LOADED): State.FLOWING,
    (State.REFUSING, Event.LOADED_SUSPECT): State.SUSPECT,
    (State.REFUSING, Event.REFUSED): State.REFUSING,
    (State.REFUSING, Event.CLEARED): State.FLOWING,
    (State.SUSPECT, Event.LOADED): State.SUSPECT,
    (State.SUSPECT, Event.LOADED_SUSPECT): State.SUSPECT,
    (State.SUSPECT, Event.REFUSED): State.SUSPECT,
    (State.SUSPECT, Event.CLEARED): State.FLOWING,
}
"""Every step; each pair has one, because no event of a feed can be rejected."""


def next_state(state: State, event: Event) -> State:
    """Return the state that `event` leads to from `state`.

    >>> next_state(State.FLOWING, Event.LOADED_SUSPECT)
    <State.SUSPECT: 'suspect'>
    """
    return TRANSITIONS[state, event]
