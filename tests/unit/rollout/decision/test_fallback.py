"""Which version serves in place of another: the rule against a literal search, and what it never chooses."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from holdfast.rollout.decision.fallback import Candidate, Choice, fallback, heuristic
from holdfast.rollout.model.state_machine import WITHOUT_TRAFFIC, State
from holdfast.rollout.model.withdrawal import standing_of
from tests.support.profile import examples

NAMES = ("v5", "v4", "v3", "v2", "v1")
WITH_TRAFFIC = sorted(set(State) - WITHOUT_TRAFFIC)


@st.composite
def candidates(draw: st.DrawFn, name: str) -> Candidate:
    last = draw(st.none() | st.sampled_from(WITH_TRAFFIC))
    return Candidate(
        name,
        is_heuristic=draw(st.booleans()),
        state=draw(st.sampled_from(["registered", "qualified", "qualified", "refused"])),
        standing=standing_of(None if last is None else (3, last), is_withdrawn=draw(st.integers(0, 3)) == 0),
        is_promoted=last is State.PROMOTED,
        is_harmful=draw(st.integers(0, 3)) == 0,
    )


@st.composite
def models(draw: st.DrawFn) -> list[Candidate]:
    return [draw(candidates(name)) for name in NAMES[draw(st.integers(0, 4)) :]]


SETS = st.sets(st.sampled_from([*NAMES, "h0"]))
ANY = st.none() | st.sampled_from([*NAMES, "h0"])


def searched(
    versions: list[Candidate], preferred: str | None, warm: str | None, tainted: set[str], unfit: set[str]
) -> str | None:
    """The rule as it was first written: in passes, then the heuristics."""
    taken = {each.version for each in versions if each.standing.withdrawn is not None}
    promoted = {each.version for each in versions if each.is_promoted}
    harmful = {each.version for each in versions if each.is_harmful}
    known = [each for each in versions if each.version not in tainted]
    able = [
        each
        for each in known
        if not each.is_heuristic and each.state == "qualified" and each.version not in unfit | harmful | taken
    ]
    if preferred is not None and preferred not in tainted | taken:
        return preferred
    for each in able:
        if each.version in promoted:
            return each.version
    for each in able:
        return each.version
    if warm is not None and warm not in tainted | taken:
        return warm
    for each in known:
        if each.is_heuristic and each.state != "refused" and each.version not in taken:
            return each.version
    return None


@given(models(), ANY, ANY, SETS, SETS)
@examples(400)
def test_the_rule_finds_what_a_search_finds(
    versions: list[Candidate], preferred: str | None, warm: str | None, tainted: set[str], unfit: set[str]
) -> None:
    choice = fallback(versions, preferred, warm, tainted, unfit)
    found = searched(versions, preferred, warm, tainted, unfit)
    assert choice == (Choice(found) if found else Choice(preferred, is_last_resort=preferred is not None))


@given(models(), ANY, ANY, SETS, SETS)
@examples(100)
def test_a_tainted_version_serves_only_as_a_last_resort(
    versions: list[Candidate], preferred: str | None, warm: str | None, tainted: set[str], unfit: set[str]
) -> None:
    choice = fallback(versions, preferred, warm, tainted, unfit)
    assert choice.version not in tainted or choice.is_last_resort
    if choice.is_last_resort:
        assert choice.version == preferred
        assert heuristic(versions, warm, tainted) is None
    if choice.version is None:
        assert preferred is None


@given(models(), ANY, ANY, SETS)
@examples(200)
def test_a_version_that_was_withdrawn_is_never_chosen(
    versions: list[Candidate], preferred: str | None, warm: str | None, tainted: set[str]
) -> None:
    """R118: with or without harm, as a model or as a heuristic."""
    choice = fallback(versions, preferred, warm, tainted)
    assert (
        choice.version not in {each.version for each in versions if not each.standing.may_serve}
        or choice.is_last_resort
    )


@given(models(), ANY, SETS)
@examples(100)
def test_damaged_files_are_passed_over_one_by_one(
    versions: list[Candidate], warm: str | None, damaged: set[str]
) -> None:
    """Requested again with each damaged version that it chose, it finds what it finds when all are known at once."""
    unfit: set[str] = set()
    while (found := fallback(versions, None, warm, set(), unfit).version) in damaged - unfit:
        unfit.add(found)
    assert found == fallback(versions, None, warm, set(), damaged).version
