"""Drift of a batch against its feed's own history: units, signs, zones, spellings, swapped columns (R20-R25, R32, R33).

It finds what a contract cannot, because each single value is valid. A batch is compared with the feed's earlier
batches, and the bounds follow from how far those differ from each other. Each check also has a minimum effect size,
because with many rows every difference is significant.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Final, TypeVar

from holdfast.contract.profile.column_profile import (
    BooleanProfile,
    ColumnProfile,
    LabelSums,
    NumberProfile,
    TimestampProfile,
    WordProfile,
    is_same_kind,
)
from holdfast.contract.profile.profile import Profile
from holdfast.contract.schema.columns import Category, Integer, Number, Timestamp
from holdfast.contract.schema.contract import Contract
from holdfast.formatting import percent
from holdfast.monitor.categorical_drift import (
    check_booleans,
    check_first_labels,
    check_words,
    mean_shares,
    variation_distance,
)
from holdfast.monitor.chance import FEWEST_BATCHES, FEWEST_ROWS
from holdfast.monitor.numeric_drift import check_numbers, is_beyond_chance, make_reference
from holdfast.monitor.timestamp_drift import check_timestamps
from holdfast.records import Level, Violation

MOST_BATCHES: Final = 28
"""The maximum number of earlier batches: seasons change, and four weeks hold every weekday four times."""

JUDGED: Final = "judged"
"""States that a batch was, or will be, compared with the earlier ones."""

FEWEST_LABELS: Final = 200
"""The share of true of a label feed is compared with that of at least so many earlier labels."""

_FAR_DIFFERENCE: Final = 5.0
"""A label is inverted only if the difference of means moved by so many standard errors."""

_Kind = TypeVar("_Kind", NumberProfile, WordProfile, BooleanProfile, TimestampProfile)


def check_profile(contract: Contract, profile: Profile, history: Sequence[Profile]) -> tuple[Violation, ...]:
    """Return the violations of a batch against its feed's history, each with column, direction and sizes.

    Parameters
    ----------
    contract
        The feed's contract.
    profile
        The batch's.
    history
        Profiles of the feed's earlier batches, the newest last. Those with another kind of column, or other bounds,
        are left out for that column.

    Level error is for what has a plain explanation or no ordinary one: on the real flights and weather of a
    year, blizzard included, no daily batch has one. Fewer than `FEWEST_BATCHES` earlier batches, or fewer than twenty
    values, give no violation, except a warning of labels whose share of true moved by more than half.

    The checks are shift, constant, rounded, zeros, missing, swap, mix, new_slice, missing_slice,
    zone, grain and label. An old delivery under a new id is found by its rows, in `feeds.admission`.

    No p-value stands behind a bound: batches of a feed follow each other and are no sample. The bound is a multiple of
    the farthest of the earlier batches. It is never less than what so few rows differ by chance. `python -m
    benchmarks.drift_rates` counts the false suspects of columns whose law never changes.
    """
    recent = [_with_words(contract, each) for each in history[-MOST_BATCHES:]]
    first = tuple(_check_first_labels(contract, profile, recent))
    if why_not_judged(profile.rows, len(recent)):
        return first
    swaps = list(_find_swaps(contract, profile, recent))
    explained = {name for violation in swaps for name in violation.subject.split("+")}
    found = list(swaps)
    for column in contract.columns:
        past = _past_columns(column.name, profile, recent)
        if len(past) < FEWEST_BATCHES or column.name not in profile.columns:
            continue
        now = profile.columns[column.name]
        if column != contract.late_label:  # its absence is declared
            found += _check_missing(column.name, now, past)
        past = [shape for shape in past if _has_enough(shape)]
        if column.name in explained or column.name in _id_columns(contract):
            continue
        if not _has_enough(now) or len(past) < FEWEST_BATCHES:
            continue
        violations = _check_column(contract, column.name, now, past)
        # For an integer with few values the check of its shares is sharper than that of its quantiles.
        found += [each for each in violations if each.check != "shift" or column.name not in profile.values]
    for name, now in profile.values.items():
        counted = [other.values[name] for other in recent if name in other.values]
        counted = [shape for shape in counted if _has_enough(shape)]
        if _has_enough(now) and len(counted) >= FEWEST_BATCHES and name not in explained:
            found += check_words(name, now, counted, is_slice=name in contract.slices)
    moved = {violation.subject for violation in found if violation.level is Level.ERROR}
    return (*first, *found, *_check_label(contract, profile, recent, moved))


def check_label_share(
    contract: Contract, profile: Profile, history: Sequence[Profile]
) -> tuple[Violation, ...]:
    """Return a warning if the share of true labels in a batch of a label feed is grossly another than before.

    It needs no more of the past than `FEWEST_LABELS` labels, in any number of batches: labels that are all inverted show
    at once. It is a warning because a batch of corrections alone may have such a share. Parameters are as in
    `check_profile`.
    """
    found: list[Violation] = []
    for name, now in profile.columns.items():
        if name not in contract.names or not isinstance(now, BooleanProfile) or not _has_enough(now):
            continue
        past = [
            shape for shape in _same_kind(now, _past_columns(name, profile, history)) if _has_enough(shape)
        ]
        if sum(shape.true + shape.false for shape in past) >= FEWEST_LABELS:
            gross = (each for each in check_booleans(name, now, past) if each.level is Level.ERROR)
            found += (replace(each, level=Level.WARNING) for each in gross)
    return tuple(found)


def why_not_judged(rows: int, batches: int) -> str:
    """Return why a batch of `rows` after `batches` earlier ones is not compared with them; "" if it is.

    >>> why_not_judged(1156, 2), why_not_judged(12, 30), why_not_judged(1156, 8)
    ('2 of 8 batches', '12 of 20 rows', '')
    """
    if batches < FEWEST_BATCHES:
        return f"{batches} of {FEWEST_BATCHES} batches"
    return f"{rows} of {FEWEST_ROWS} rows" if rows < FEWEST_ROWS else ""


def _with_words(contract: Contract, past: Profile) -> Profile:
    """Return the profile of an earlier batch with each alias counted as its word: the batch may be older than the alias."""
    columns = dict(past.columns)
    for name, words in contract.aliases.items():
        shape = columns.get(name)
        if isinstance(shape, WordProfile) and not words.keys().isdisjoint(shape.counts):
            counts = Counter[str]()
            for word, count in shape.counts.items():
                counts[words.get(word, word)] += count
            columns[name] = replace(shape, counts=counts)
    return replace(past, columns=columns)


def _id_columns(contract: Contract) -> set[str]:
    """Return the numeric columns of the key, which are ids and not measurements."""
    return {name for name in contract.key if isinstance(contract.column(name), Integer)}


def _past_columns(name: str, profile: Profile, history: Sequence[Profile]) -> list[ColumnProfile]:
    now = profile.columns.get(name)
    return [
        other.columns[name]
        for other in history
        if name in other.columns and now is not None and is_same_kind(now, other.columns[name])
    ]


def _has_enough(shape: ColumnProfile) -> bool:
    """Return True if a batch has enough values of a column to compare it."""
    return shape.rows - shape.missing >= FEWEST_ROWS


def _same_kind(now: _Kind, past: Sequence[ColumnProfile]) -> list[_Kind]:
    return [shape for shape in past if isinstance(shape, type(now))]


def _check_column(
    contract: Contract, name: str, now: ColumnProfile, past: Sequence[ColumnProfile]
) -> Iterator[Violation]:
    column = contract.column(name)
    match now:
        case NumberProfile() if isinstance(column, (Number, Integer)):
            yield from check_numbers(name, column.unit, now, _same_kind(now, past))
        case NumberProfile():
            # The lengths of texts: their mean may move with what people write, but not to one length or none.
            yield from (
                found
                for found in check_numbers(name, "characters", now, _same_kind(now, past))
                if found.check == "constant"
            )
        case WordProfile():
            yield from check_words(name, now, _same_kind(now, past), is_slice=name in contract.slices)
        case BooleanProfile():
            yield from check_booleans(name, now, _same_kind(now, past))
        case TimestampProfile() if isinstance(column, Timestamp):
            yield from check_timestamps(name, column.tz, now, _same_kind(now, past))
        case _:
            return


def _check_missing(name: str, now: ColumnProfile, past: Sequence[ColumnProfile]) -> Iterator[Violation]:
    share = now.missing / max(1, now.rows)
    most = max(shape.missing / max(1, shape.rows) for shape in past)
    if share <= max(0.2, min(3 * most, (1 + most) / 2), most + 0.2):
        return
    never = most == 0.0 and share >= 0.3
    message = (
        f"{name}: {percent(share, 1)} of {now.rows:,} rows have no value, at most {percent(most, 1)} in {len(past)} "
        "batches before"
    )
    level = Level.ERROR if never or (share >= 0.95 and most < 0.8) else Level.WARNING
    yield Violation("missing", name, level, message, share, most)


def _check_first_labels(
    contract: Contract, profile: Profile, history: Sequence[Profile]
) -> Iterator[Violation]:
    """Check the share of true labels as long as fewer batches with labels are known than the other checks need."""
    label = contract.label or contract.late_label
    now = None if label is None else profile.columns.get(label.name)
    if label is None or not isinstance(now, BooleanProfile) or not _has_enough(now):
        return
    past = [shape for shape in _past_columns(label.name, profile, history) if _has_enough(shape)]
    if 0 < len(past) < FEWEST_BATCHES:
        yield from check_first_labels(label.name, now, _same_kind(now, past))


def _check_label(
    contract: Contract, profile: Profile, history: Sequence[Profile], moved: set[str]
) -> Iterator[Violation]:
    """Check for an inverted label: every column that correlated with it now correlates inversely.

    Columns that have `moved` are ignored.
    """
    if contract.label is None:
        return
    turned = []
    for name, parts in profile.by_label.items():
        now, past = parts.difference, [other.by_label.get(name) for other in history]
        before = [each.difference for each in past if each is not None]
        known = [value for value in before if value is not None]
        if name in moved or now is None or len(known) < FEWEST_BATCHES:
            continue
        sign = 1.0 if sum(known) > 0 else -1.0
        weakest, usual = (
            min(sign * value for value in known),
            sorted(sign * value for value in known)[len(known) // 2],
        )
        if weakest <= 0.3 * usual:
            continue  # It does not always correlate with the label, so it is no evidence.
        chance = _FAR_DIFFERENCE * _difference_error(profile.columns.get(name), parts)
        turned.append((name, sign * now < min(-0.3 * usual, usual - chance), sign * usual, now))
    if turned and all(against for _, against, _, _ in turned):
        name, _, usual, now = turned[0]
        message = (
            f"{contract.label.name}: where it is true, {name} is {abs(now):,.4g} {'less' if now < 0 else 'more'} on average, "
            f"and in the batches before it was {abs(usual):,.4g} {'less' if usual < 0 else 'more'}: the label turned around?"
        )
        yield Violation("label", contract.label.name, Level.ERROR, message, now, usual)


def _difference_error(shape: ColumnProfile | None, parts: LabelSums) -> float:
    """Return the standard error of the difference between the means of true and false labels."""
    deviation = shape.deviation if isinstance(shape, NumberProfile) else 0.0
    return deviation * math.sqrt(1.0 / parts.true_count + 1.0 / parts.false_count)


def _find_swaps(contract: Contract, profile: Profile, history: Sequence[Profile]) -> Iterator[Violation]:
    """Yield pairs of columns of one type, each of which is like the other's past and unlike its own."""
    names = [column.name for column in contract.columns if isinstance(column, (Number, Integer, Category))]
    strange = [
        name
        for name in names
        if name not in _id_columns(contract) and _is_unlike_own_past(profile, history, name)
    ]
    for one, other in combinations(strange, 2):
        if _is_like_other(profile, history, one, other) and _is_like_other(profile, history, other, one):
            message = (
                f"{one} looks as {other} did in {len(history)} batches before, and {other} as {one} did: "
                f"the two columns swapped?"
            )
            yield Violation("swap", f"{one}+{other}", Level.ERROR, message)


def _is_unlike_own_past(profile: Profile, history: Sequence[Profile], name: str) -> bool:
    """Return True if a column is far from its own past."""
    past = _past_columns(name, profile, history)
    match profile.columns.get(name):
        case NumberProfile() as now if len(past) >= FEWEST_BATCHES and now.count >= FEWEST_ROWS:
            numbers = _same_kind(now, past)
            own = make_reference(numbers)
            far = own is not None and own.distance(now.compared_quantiles) > max(1.0, 1.3 * own.farthest)
            return far and is_beyond_chance(now, numbers)
        case WordProfile() as now if len(past) >= FEWEST_BATCHES and now.named >= FEWEST_ROWS:
            words = _same_kind(now, past)
            usual = mean_shares(words)
            farthest = max(variation_distance(shape.shares, usual) for shape in words)
            return variation_distance(now.shares, usual) > max(0.5, 1.3 * farthest)
        case _:
            return False


def _is_like_other(profile: Profile, history: Sequence[Profile], one: str, other: str) -> bool:
    """Return True if the column `one` of the batch is near to the past of `other`."""
    theirs = [past.columns[other] for past in history if other in past.columns]
    match profile.columns[one]:
        case NumberProfile() as now:
            numbers = _same_kind(now, theirs)
            foreign = make_reference(numbers) if numbers else None
            return foreign is not None and foreign.distance(now.compared_quantiles) <= max(
                0.25, 1.1 * foreign.farthest
            )
        case WordProfile() as now:
            words = _same_kind(now, theirs)
            usual = mean_shares(words)
            farthest = max((variation_distance(shape.shares, usual) for shape in words), default=0.0)
            return bool(words) and variation_distance(now.shares, usual) <= max(0.2, 1.5 * farthest)
        case _:
            return False
