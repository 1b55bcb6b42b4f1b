"""Drift of a categorical or boolean column against its own history: shares, new words, missing words."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from holdfast.contract.profile.column_profile import WordProfile
from holdfast.records import Level, Violation

FEWEST_ROWS: Final = 20

_SURE: Final = 1e-6
"""The maximum probability of a word's absence by chance, for it to count as missing."""

_MAX_NAMED: Final = 5


def check_words(
    name: str, now: WordProfile, past: Sequence[WordProfile], *, is_slice: bool
) -> Iterator[Violation]:
    """Yield the violations of the column `name` of a batch. Shares are checked if no word is new or missing.

    Parameters
    ----------
    name
        The name of the column.
    now
        The profile of the column in the batch.
    past
        Those of earlier batches.
    is_slice
        True if the contract declares the column as a slice: then each new word is reported.
    """
    past = [shape for shape in past if shape.named >= FEWEST_ROWS]
    if now.named < FEWEST_ROWS or not past:
        return
    found = [*_find_new_words(name, now, past, is_slice=is_slice), *_find_missing_words(name, now, past)]
    yield from found or _check_mixture(name, now, past)


def variation_distance(one: Mapping[str, float], other: Mapping[str, float]) -> float:
    """Return the total variation distance of two sets of shares, 0 (equal) to 1 (no word in common).

    >>> variation_distance({"a": 0.5, "b": 0.5}, {"a": 1.0})
    0.5
    """
    return sum(abs(one.get(word, 0.0) - other.get(word, 0.0)) for word in one.keys() | other.keys()) / 2


def mean_shares(past: Sequence[WordProfile]) -> dict[str, float]:
    """Return the mean share of each word over batches, large and small ones weighted equally."""
    total: dict[str, float] = {}
    for shape in past:
        for word, share in shape.shares.items():
            total[word] = total.get(word, 0.0) + share
    return {word: share / len(past) for word, share in total.items()}


def _find_new_words(
    name: str, now: WordProfile, past: Sequence[WordProfile], *, is_slice: bool
) -> Iterator[Violation]:
    if any(shape.other for shape in past):
        return  # A word that seems new may be one of those that were not counted.
    known = {word for shape in past for word in shape.counts}
    new = {word: count for word, count in now.counts.items() if word not in known}
    if not new:
        return
    share = sum(new.values()) / now.named
    folded = {_fold_spelling(word) for word in known}
    respelt = [word for word in new if _fold_spelling(word) in folded]
    named = ", ".join(repr(word) for word in list(new)[:_MAX_NAMED]) + (
        " ..." if len(new) > _MAX_NAMED else ""
    )
    were = "were" if len(new) > 1 else "was"
    message = f"{name}: {named} {were} never seen in {len(past)} batches before, with {share:.1%} of the rows"
    if respelt and sum(new[word] for word in respelt) >= 0.01 * now.named:
        message = f"{message}: known words in another spelling?"
        yield Violation("new_slice", name, Level.ERROR, message, share, 0.01)
    elif (old := _find_renamed(new, now, past)) is not None:
        message = f"{message}; no row is {old!r}, which had about as many: renamed?"
        yield Violation("new_slice", name, Level.ERROR, message, share, 0.05)
    elif share >= 0.05 or is_slice:
        level = Level.ERROR if share >= 0.2 else Level.WARNING
        yield Violation("new_slice", name, level, message, share, 0.05)


def _find_renamed(new: Mapping[str, int], now: WordProfile, past: Sequence[WordProfile]) -> str | None:
    """Return a missing word that had about as many rows as the most frequent of the new ones."""
    usual = mean_shares(past)
    share = max(new.values()) / now.named
    gone = {word: abs(was - share) for word, was in usual.items() if word not in now.counts}
    nearest = min(gone, key=lambda word: gone[word], default=None)
    alike = nearest is not None and share >= 0.05 and 1 / 1.5 < usual[nearest] / share < 1.5
    return nearest if alike else None


def _fold_spelling(word: str) -> str:
    return "".join(word.split()).casefold()


def _find_missing_words(name: str, now: WordProfile, past: Sequence[WordProfile]) -> Iterator[Violation]:
    rows = now.named
    each = [shape.shares for shape in past]
    for word in sorted({word for shape in past for word in shape.counts} - now.counts.keys()):
        least = min(found.get(word, 0.0) for found in each)
        # Half of what it had on its poorest day: a day may be poorer than any before.
        if least > 0.0 and rows * math.log1p(-min(0.999999, least / 2)) < math.log(_SURE):
            message = (
                f"{name}: no row of {rows:,} is {word!r}, which made at least {least:.1%} of each of {len(past)} "
                f"batches before"
            )
            yield Violation("missing_slice", f"{name}={word}"[:127], Level.ERROR, message, 0.0, least)


def _check_mixture(name: str, now: WordProfile, past: Sequence[WordProfile]) -> Iterator[Violation]:
    usual = mean_shares(past)
    found = now.shares
    difference = variation_distance(found, usual)
    farthest = max(variation_distance(shape.shares, usual) for shape in past)
    # What chance alone makes of so few rows: half the sum of the standard errors of all shares.
    chance = sum(math.sqrt(share * (1 - share) / now.named) for share in usual.values()) / 2
    bound = max(0.15, 1.5 * farthest, 2 * chance)
    if difference <= bound:
        return
    moved = sorted(
        found.keys() | usual.keys(), key=lambda word: -abs(found.get(word, 0) - usual.get(word, 0))
    )
    shares = ", ".join(f"{word!r} {usual.get(word, 0):.1%} -> {found.get(word, 0):.1%}" for word in moved[:3])
    message = (
        f"{name}: the mixture differs by {difference:.2f} from the usual one (total variation), at most {farthest:.2f} in "
        f"{len(past)} batches before: {shares}"
    )
    gross = difference > max(0.4, 3 * farthest, 3 * chance)
    yield Violation("mix", name, Level.ERROR if gross else Level.WARNING, message, difference, bound)
