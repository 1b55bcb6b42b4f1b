"""Drift of a categorical or boolean column against its own history: shares, new words, missing words."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from holdfast.contract.profile.column_profile import BooleanProfile, WordProfile
from holdfast.formatting import counted, percent
from holdfast.monitor.chance import SURE, is_absence_chance, most_difference, surprise
from holdfast.records import Level, Violation

_MAX_NAMED: Final = 5

_SURE_RENAMED: Final = 1e-4
"""As `SURE`, for a missing word that a new one of about as many rows replaces: a second coincidence."""

_GROSS_DIFFERENCE: Final = 0.5
"""A share of labels that moved by more is reported before the feed has shown how much its batches differ."""

_VARIES: Final = 3.0
"""The surprise from which a past batch counts for how much the share of true varies."""

_SHARE_LIMITS: Final = {
    Level.ERROR: (10.0, 3.0, -math.log(SURE)),
    Level.WARNING: (3.0, 1.5, 8.0),
}
"""For the share of true: the least ratio of the odds, the multiple of the farthest past one, and the least surprise."""


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
    found = [*_find_new_words(name, now, past, is_slice=is_slice), *_find_missing_words(name, now, past)]
    yield from found or _check_mixture(name, now, past)


def check_booleans(name: str, now: BooleanProfile, past: Sequence[BooleanProfile]) -> Iterator[Violation]:
    """Yield the violations of a column that is true or false, the label among them: one value only, or another share.

    The share is compared by its odds, so that a rare value that gets ten times as frequent is found as well.
    """
    rows = now.true + now.false
    usual = sum(shape.true for shape in past) / sum(shape.true + shape.false for shape in past)
    known = f"in {len(past)} batches before"
    if rows in (now.true, now.false):
        others = [shape.false if now.true else shape.true for shape in past]
        share = 1.0 - usual if now.true else usual
        if min(others) > 0 and not is_absence_chance(share, rows):
            value, other = ("true", "false") if now.true else ("false", "true")
            message = (
                f"{name}: all {rows:,} values are {value}; {percent(share, 1)} were {other} {known}: "
                "a default for values?"
            )
            yield Violation("constant", name, Level.ERROR, message, now.share, usual)
            return
    distance = _odds_distance(now, usual)
    # What chance alone makes of a past batch does not show how much the feed varies.
    farthest = max(
        (_odds_distance(shape, usual) for shape in past if _surprise(shape, usual) > _VARIES), default=0.0
    )
    for level, (times, spreads, rarity) in _SHARE_LIMITS.items():
        if distance > max(math.log(times), spreads * farthest) and _surprise(now, usual) > rarity:
            message = (
                f"{name}: {percent(now.share, 1)} of {rows:,} values are true, and {percent(usual, 1)} were {known} "
                f"({percent(min(shape.share for shape in past), 1)} to "
                f"{percent(max(shape.share for shape in past), 1)} of a batch)"
            )
            yield Violation("mix", name, level, message, now.share, usual)
            return


def check_first_labels(name: str, now: BooleanProfile, past: Sequence[BooleanProfile]) -> Iterator[Violation]:
    """Yield a warning if the share of true labels moved by more than half of all rows, and chance does not explain it.

    It needs one earlier batch. A few do not show how much the feed varies, so a smaller difference has no bound.

    >>> first = BooleanProfile(true=1100, false=8900, missing=0)
    >>> [each.level.value for each in check_first_labels("late", BooleanProfile(264, 36, 0), [first])]
    ['warning']
    >>> list(check_first_labels("late", BooleanProfile(180, 120, 0), [first]))
    []
    """
    rows, others = now.true + now.false, sum(shape.true + shape.false for shape in past)
    usual = sum(shape.true for shape in past) / others
    bound = _GROSS_DIFFERENCE + most_difference(rows, others)
    if abs(now.share - usual) > bound:
        message = (
            f"{name}: {percent(now.share, 1)} of {rows:,} values are true, and {percent(usual, 1)} of {others:,} were in "
            f"{counted(len(past), 'batch')} before: labels inverted, or another selection of rows?"
        )
        yield Violation("mix", name, Level.WARNING, message, now.share, usual)


def _odds_distance(shape: BooleanProfile, usual: float) -> float:
    """Return the distance of the log odds of true from that of so many rows of the usual share; half a row keeps it finite."""
    rows = shape.true + shape.false
    expected = usual * rows
    found = (shape.true + 0.5) / (shape.false + 0.5)
    return abs(math.log(found / ((expected + 0.5) / (rows - expected + 0.5))))


def _surprise(now: BooleanProfile, usual: float) -> float:
    return surprise(now.true, now.true + now.false, usual)


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
    # A word that seems new may be one of those that were not counted: it is new if it was at most far less frequent.
    uncounted = any(shape.other for shape in past)
    most = max(_most_uncounted(shape) / max(1, shape.named) for shape in past)
    known = {word for shape in past for word in shape.counts}
    new = {word: count for word, count in now.counts.items() if word not in known}
    folded = {_fold_spelling(word) for word in known}
    # Where words were spelt in several ways before, another way is no news.
    respelt = [word for word in new if _fold_spelling(word) in folded] if len(folded) == len(known) else []
    # All of the words in capitals are none of those that were not counted.
    if uncounted and sum(new[word] for word in respelt) < 0.2 * now.named:
        respelt, new = [], {word: count for word, count in new.items() if _is_beyond(count, now.named, most)}
    if not new:
        return
    share = sum(new.values()) / now.named
    named = ", ".join(repr(word) for word in list(new)[:_MAX_NAMED]) + (
        " ..." if len(new) > _MAX_NAMED else ""
    )
    were = "were" if len(new) > 1 else "was"
    never = (
        f"in no batch of {len(past)} more than {percent(most, 1)} of the rows"
        if uncounted
        else (f"never seen in {len(past)} batches before")
    )
    message = f"{name}: {named} {were} {never}, with {percent(share, 1)} of the rows"
    if respelt and sum(new[word] for word in respelt) >= 0.01 * now.named:
        message = f"{message}: known words in another spelling?"
        yield Violation("new_slice", name, Level.ERROR, message, share, 0.01)
    elif (old := _find_renamed(new, now, past)) is not None:
        no_row = "hardly a row is" if now.other else "no row is"
        message = f"{message}; {no_row} {old!r}, which had about as many: renamed?"
        yield Violation("new_slice", name, Level.ERROR, message, share, 0.05)
    elif share >= 0.05 or is_slice:
        level = Level.ERROR if share >= max(0.2, 3.0 * _share_of_single(past)) else Level.WARNING
        yield Violation("new_slice", name, level, message, share, 0.05)


def _most_uncounted(shape: WordProfile) -> int:
    """Return how many rows a word can have had that is not counted by name: not more than the rarest that is."""
    return min(shape.counts.values(), default=0) if shape.other else 0


def _is_beyond(count: int, rows: int, most: float) -> bool:
    """Return True if `count` of `rows` is a twentieth of them, and more than a share of at most `most` gives by chance."""
    return count >= 0.05 * rows and surprise(count, rows, most) > -math.log(SURE)


def _share_of_single(past: Sequence[WordProfile]) -> float:
    """Return the largest share that words of one batch alone had of it: what is new in a batch of an open vocabulary."""
    batches = Counter(word for shape in past for word in shape.counts)
    return max(
        sum(count for word, count in shape.counts.items() if batches[word] == 1) / max(1, shape.named)
        for shape in past
    )


def _find_renamed(new: Mapping[str, int], now: WordProfile, past: Sequence[WordProfile]) -> str | None:
    """Return a missing word that had about as many rows as the most frequent of the new ones."""
    usual = mean_shares(past)
    share = max(new.values()) / now.named
    known = {word for shape in past for word in shape.counts}
    gone = {word: abs(usual[word] - share) for word in sorted(known - now.counts.keys())}
    nearest = min(gone, key=lambda word: gone[word], default=None)
    alike = nearest is not None and share >= 0.05 and 1 / 1.5 < usual[nearest] / share < 1.5
    if nearest is None or not alike or is_absence_chance(usual[nearest], now.named, sure=_SURE_RENAMED):
        return None
    return nearest


def _fold_spelling(word: str) -> str:
    return "".join(word.split()).casefold()


def _find_missing_words(name: str, now: WordProfile, past: Sequence[WordProfile]) -> Iterator[Violation]:
    rows, uncounted = now.named, _most_uncounted(now)
    each = [shape.shares for shape in past]
    for word in sorted({word for shape in past for word in shape.counts} - now.counts.keys()):
        least = min(found.get(word, 0.0) for found in each)
        # Half of what it had on its poorest day: a day may be poorer than any before. Of a word that is not counted by
        # name no more is known than that it is rarer than those that are.
        is_fewer = uncounted < least / 2 * rows and surprise(uncounted, rows, least / 2) > -math.log(SURE)
        if least > 0.0 and (is_fewer if uncounted else not is_absence_chance(least / 2, rows)):
            no_row = f"at most {uncounted:,} rows of {rows:,} are" if uncounted else f"no row of {rows:,} is"
            message = (
                f"{name}: {no_row} {word!r}, which made at least {percent(least, 1)} of each of {len(past)} "
                "batches before"
            )
            subject = f"{name}={word if word.isprintable() else repr(word)[1:-1]}"
            yield Violation("missing_slice", subject, Level.ERROR, message, uncounted / rows, least)


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
    shares = ", ".join(
        f"{word!r} {percent(usual.get(word, 0), 1)} -> {percent(found.get(word, 0), 1)}" for word in moved[:3]
    )
    message = (
        f"{name}: the mixture differs by {difference:.2f} from the usual one (total variation), at most {farthest:.2f} in "
        f"{len(past)} batches before: {shares}"
    )
    gross = difference > max(0.4, 3 * farthest, 3 * chance)
    yield Violation("mix", name, Level.ERROR if gross else Level.WARNING, message, difference, bound)
