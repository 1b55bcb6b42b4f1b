"""Whether a version may answer that was withdrawn. The server, its abort endpoint, the control loop and the commands ask.

A version is withdrawn when it is aborted or rolled back. From then on it answers no caller, whatever plan, restart or
refusal follows; only a newer rollout of that version ends this (R118, R122).
"""

from __future__ import annotations

from dataclasses import dataclass

from holdfast.rollout.model.state_machine import State


def may_serve(*, pushed: int | None, withdrawn: int | None) -> bool:
    """Return True if a version may answer callers.

    Parameters
    ----------
    pushed
        The number of the newest rollout that gave the version traffic; None if none did.
    withdrawn
        The newest number of a rollout, of any version, that was known when the version was last withdrawn (0: none was);
        None if it never was.

    >>> may_serve(pushed=3, withdrawn=None), may_serve(pushed=None, withdrawn=None)
    (True, True)
    >>> may_serve(pushed=3, withdrawn=3), may_serve(pushed=None, withdrawn=0)
    (False, False)
    >>> may_serve(pushed=4, withdrawn=3)
    True
    """
    return withdrawn is None or (pushed is not None and pushed > withdrawn)


@dataclass(frozen=True, slots=True)
class Standing:
    """What decides whether a version may answer; see `may_serve` for the numbers."""

    pushed: int | None = None
    withdrawn: int | None = None

    @property
    def may_serve(self) -> bool:
        """Return True if the version may answer callers."""
        return may_serve(pushed=self.pushed, withdrawn=self.withdrawn)


def standing_of(last: tuple[int, State] | None, *, is_withdrawn: bool) -> Standing:
    """Return the standing of a version in the ledger.

    Parameters
    ----------
    last
        The number and state of its newest rollout that gave it traffic; None without one.
    is_withdrawn
        True if the version, or what that rollout promoted, was withdrawn by a plan alone.

    >>> standing_of((3, State.PROMOTED), is_withdrawn=False).may_serve
    True
    >>> standing_of((3, State.ROLLED_BACK), is_withdrawn=False).may_serve
    False
    """
    if last is None:
        return Standing(None, 0 if is_withdrawn else None)
    number, state = last
    is_back = state in (State.ROLLING_BACK, State.ROLLED_BACK)
    return Standing(number, number if is_back or is_withdrawn else None)
