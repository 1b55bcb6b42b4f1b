"""A column of words or of flags against its own history: another mixture, words that are new, words that are gone."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from holdfast.contract.profile.column_profile import WordProfile
from holdfast.records import Level, Violation

FEWEST_ROWS: Final = 20

_SURE: Final = 1e-6
"""How unlikely the silence of a word must be before it is called gone."""

_SHOWN: Final = 5


def judge_words(
    name: str, now: WordProfile, past: Sequence[WordProfile], *, is_slice: bool
) -> Iterator[Violation]:
    """What is wrong with the mixture of the column `name` of a batch. A word that is new, or gone, is told of by name;
    then the mixture says nothing more."""
    past = [shape for shape in past if shape.named >= FEWEST_ROWS]
    if now.named < FEWEST_ROWS or not past:
        return
    found = [*_new_words(name, now, past, is_slice=is_slice), *_gone_words(name, now, past)]
    yield from found or _mixed(name, now, past)


def distance(one: Mapping[str, float], other: Mapping[str, float]) -> float:
    """The total variation distance of two mixtures, 0 (equal) to 1 (no word in common).

    >>> distance({"a": 0.5, "b": 0.5}, {"a": 1.0})
    0.5
    """
    return sum(abs(one.get(word, 0.0) - other.get(word, 0.0)) for word in one.keys() | other.keys()) / 2


def pooled(past: Sequence[WordProfile]) -> dict[str, float]:
    """The mean share of each word over batches, so that a large one counts as much as a small one."""
    total: dict[str, float] = {}
    for shape in past:
        for word, share in shape.shares.items():
            total[word] = total.get(word, 0.0) + share
    return {word: share / len(past) for word, share in total.items()}


def _new_words(
    name: str, now: WordProfile, past: Sequence[WordProfile], *, is_slice: bool
) -> Iterator[Violation]:
    if any(shape.other for shape in past):
        return  # A word that seems new may have been among those that nobody counted.
    known = {word for shape in past for word in shape.counts}
    new = {word: count for word, count in now.counts.items() if word not in known}
    if not new:
        return
    share = sum(new.values()) / now.named
    folded = {_folded(word) for word in known}
    respelt = [word for word in new if _folded(word) in folded]
    shown = ", ".join(repr(word) for word in list(new)[:_SHOWN]) + (" ..." if len(new) > _SHOWN else "")
    were = "were" if len(new) > 1 else "was"
    told = f"{name}: {shown} {were} never seen in {len(past)} batches before, with {share:.1%} of the rows"
    if respelt and sum(new[word] for word in respelt) >= 0.01 * now.named:
        words = f"{told}: known words in another spelling?"
        yield Violation("new_slice", name, Level.ERROR, words, share, 0.01)
    elif (old := _renamed(new, now, past)) is not None:
        words = f"{told}; no row is {old!r}, which had about as many: renamed?"
        yield Violation("new_slice", name, Level.ERROR, words, share, 0.05)
    elif share >= 0.05 or is_slice:
        level = Level.ERROR if share >= 0.2 else Level.WARNING
        yield Violation("new_slice", name, level, told, share, 0.05)


def _renamed(new: Mapping[str, int], now: WordProfile, past: Sequence[WordProfile]) -> str | None:
    """A word that is gone and had about as many rows as the commonest of the new ones, which are not few."""
    usual = pooled(past)
    share = max(new.values()) / now.named
    gone = {word: abs(was - share) for word, was in usual.items() if word not in now.counts}
    nearest = min(gone, key=lambda word: gone[word], default=None)
    alike = nearest is not None and share >= 0.05 and 1 / 1.5 < usual[nearest] / share < 1.5
    return nearest if alike else None


def _folded(word: str) -> str:
    return "".join(word.split()).casefold()


def _gone_words(name: str, now: WordProfile, past: Sequence[WordProfile]) -> Iterator[Violation]:
    rows = now.named
    each = [shape.shares for shape in past]
    for word in sorted({word for shape in past for word in shape.counts} - now.counts.keys()):
        least = min(found.get(word, 0.0) for found in each)
        # Half of what it had on its poorest day: a day may be poorer than any before.
        if least > 0.0 and rows * math.log1p(-min(0.999999, least / 2)) < math.log(_SURE):
            words = (
                f"{name}: no row of {rows:,} is {word!r}, which made at least {least:.1%} of each of {len(past)} "
                f"batches before"
            )
            yield Violation("missing_slice", f"{name}={word}"[:127], Level.ERROR, words, 0.0, least)


def _mixed(name: str, now: WordProfile, past: Sequence[WordProfile]) -> Iterator[Violation]:
    usual = pooled(past)
    found = now.shares
    apart = distance(found, usual)
    farthest = max(distance(shape.shares, usual) for shape in past)
    # What chance alone makes of so few rows: half the sum of the standard errors of all shares.
    chance = sum(math.sqrt(share * (1 - share) / now.named) for share in usual.values()) / 2
    bound = max(0.15, 1.5 * farthest, 2 * chance)
    if apart <= bound:
        return
    moved = sorted(
        found.keys() | usual.keys(), key=lambda word: -abs(found.get(word, 0) - usual.get(word, 0))
    )
    told = ", ".join(f"{word!r} {usual.get(word, 0):.1%} -> {found.get(word, 0):.1%}" for word in moved[:3])
    words = (
        f"{name}: the mixture differs by {apart:.2f} from the usual one (total variation), at most {farthest:.2f} in "
        f"{len(past)} batches before: {told}"
    )
    gross = apart > max(0.4, 3 * farthest, 3 * chance)
    yield Violation("mix", name, Level.ERROR if gross else Level.WARNING, words, apart, bound)
