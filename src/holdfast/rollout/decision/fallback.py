"""Choose the version that serves in place of one that must not. This module alone holds the rule.

The preferred version serves if it is clean and may answer. Else the newest qualified version that was promoted and may
answer; else the newest qualified version that may; else a heuristic that may, best the one that servers have loaded. A
version that was withdrawn is never chosen, nor one whose newest push showed harm (R118). Where none is left, the preferred
version is a last resort: the caller lets it serve only if it answers now.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from holdfast.rollout.model.withdrawal import Standing


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
    standing
        What decides whether it may answer.
    is_promoted
        True if its newest rollout that had traffic promoted it.
    is_harmful
        True if its newest push is labelled bad or escaped, in shadow and replay too.
    """

    version: str
    is_heuristic: bool
    state: str
    standing: Standing = field(default_factory=Standing)
    is_promoted: bool = False
    is_harmful: bool = False


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
        The version that serves if it is clean and may answer, such as the champion of a rollout that ends.
    warm
        The heuristic that servers have loaded.
    tainted
        Versions that must not serve.
    unfit
        Candidates that cannot serve although they are clean: their file is damaged, or they are being rolled out.

    >>> known = [Candidate("v3", False, "qualified"), Candidate("v2", False, "qualified", is_promoted=True)]
    >>> fallback(known, "v4", None, tainted={"v4"})
    Choice(version='v2', is_last_resort=False)
    >>> fallback(known, "v4", None, tainted={"v2", "v3", "v4"})
    Choice(version='v4', is_last_resort=True)
    """
    clean = None if preferred in tainted else preferred
    known = next((each for each in versions if each.version == clean), None)
    if clean is not None and (known is None or known.standing.may_serve):
        return Choice(clean)
    able = [
        each
        for each in versions
        if not each.is_heuristic
        and each.state == "qualified"
        and each.version not in tainted
        and each.version not in unfit
        and not each.is_harmful
        and each.standing.may_serve
    ]
    for each in (*(each for each in able if each.is_promoted), *able):
        return Choice(each.version)
    found = heuristic(versions, warm, tainted)
    if found is not None:
        return Choice(found)
    return Choice(preferred, is_last_resort=preferred is not None)


def heuristic(versions: Sequence[Candidate], warm: str | None, tainted: Collection[str]) -> str | None:
    """Return the heuristic that serves when no model can: `warm` if it may, else the newest that may.

    None of `tainted` may, and none that was withdrawn.
    """
    barred = {*tainted, *(each.version for each in versions if not each.standing.may_serve)}
    if warm is not None and warm not in barred:
        return warm
    for each in versions:
        if each.is_heuristic and each.state != "refused" and each.version not in barred:
            return each.version
    return None
