"""Choose the version that serves in place of one that must not. This module alone holds the rule.

The preferred version serves if it is clean and was not rolled back. Else the newest qualified version that was promoted and
not rolled back; else the preferred version, if it was rolled back without harm; else the newest qualified version that was
not rolled back; else a heuristic, best the one that servers have loaded. A version whose newest push showed harm is never
chosen (R118). Where none is left, the preferred version serves as a last resort.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

from holdfast.rollout.model.state_machine import State

WITHOUT_TRAFFIC: Final = frozenset({State.PENDING, State.SHADOWING, State.CANCELLED})
"""States of a rollout that never had traffic."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A version of a model, as the rule sees it.

    Parameters
    ----------
    version
        Its name.
    is_heuristic
        True for a heuristic, which no rollout moves.
    state
        "registered", "qualified" or "refused".
    last
        The state of its newest rollout that had traffic; None without one.
    is_withdrawn
        True if what that rollout promoted was rolled back by a plan alone.
    is_harmful
        True if its newest push is labelled bad or escaped, in shadow and replay too.
    """

    version: str
    is_heuristic: bool
    state: str
    last: State | None = None
    is_withdrawn: bool = False
    is_harmful: bool = False

    @property
    def is_promoted(self) -> bool:
        """Return True if it was promoted and not rolled back since."""
        return self.last is State.PROMOTED and not self.is_withdrawn

    @property
    def is_rolled_back(self) -> bool:
        """Return True if it was rolled back and not pushed again since."""
        return self.last in (State.ROLLING_BACK, State.ROLLED_BACK) or (
            self.last is not None and self.is_withdrawn
        )


@dataclass(frozen=True, slots=True)
class Choice:
    """The version that serves, None if there is none; a last resort is not clean."""

    version: str | None
    is_last_resort: bool = False


def fallback(
    versions: Sequence[Candidate],
    preferred: str | None,
    warm: str | None,
    tainted: Collection[str],
    unfit: Collection[str] = (),
) -> Choice:
    """Return the version that serves.

    Parameters
    ----------
    versions
        Every version of the model, the newest first.
    preferred
        The version that serves if it is clean and was not rolled back, such as the champion of a rollout that ends.
    warm
        The heuristic that servers have loaded.
    tainted
        Versions that must not serve.
    unfit
        Candidates that cannot serve although they are clean: their file is damaged, or they are being rolled out.

    >>> known = [Candidate("v3", False, "qualified"), Candidate("v2", False, "qualified", State.PROMOTED)]
    >>> fallback(known, "v4", None, tainted={"v4"})
    Choice(version='v2', is_last_resort=False)
    >>> fallback(known, "v4", None, tainted={"v2", "v3", "v4"})
    Choice(version='v4', is_last_resort=True)
    """
    clean = None if preferred in tainted else preferred
    known = next((each for each in versions if each.version == clean), None)
    if clean is not None and (known is None or not known.is_rolled_back):
        return Choice(clean)
    able = [
        each
        for each in versions
        if not each.is_heuristic
        and each.state == "qualified"
        and each.version not in tainted
        and each.version not in unfit
        and not each.is_harmful
    ]
    for each in (
        *(each for each in able if each.is_promoted),
        *([known] if known is not None and not known.is_harmful else []),
        *(each for each in able if not each.is_rolled_back),
    ):
        return Choice(each.version)
    found = heuristic(versions, warm, tainted)
    if found is not None:
        return Choice(found)
    return Choice(preferred, is_last_resort=preferred is not None)


def heuristic(versions: Sequence[Candidate], warm: str | None, tainted: Collection[str]) -> str | None:
    """Return the heuristic that serves when no model can: `warm` if it is clean, else the newest clean one."""
    if warm is not None and warm not in tainted:
        return warm
    for each in versions:
        if each.is_heuristic and each.state != "refused" and each.version not in tainted:
            return each.version
    return None
