"""Does a batch look like its feed? What a contract cannot say, because each value by itself is allowed, the feed's own
past can: units, signs, zones, spellings, columns in each other's place (R20-R25, R32, R33).

A batch is compared with the feed's own batches before it, and the bounds are how far those lay from each other, so that
a feed which varies much is given much room. Beyond them there is a least size of effect for each check, because with
many rows everything differs from everything.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, TypeVar

from holdfast.contract.profile.column_profile import (
    BooleanProfile,
    ColumnProfile,
    NumberProfile,
    TimestampProfile,
    WordProfile,
    is_same_kind,
)
from holdfast.contract.profile.profile import Profile
from holdfast.contract.schema.columns import Category, Integer, Number, Timestamp
from holdfast.contract.schema.contract import Contract
from holdfast.monitor.categorical_drift import distance, judge_words, pooled
from holdfast.monitor.numeric_drift import FEWEST_ROWS, judge_numbers, reference
from holdfast.monitor.timestamp_drift import judge_instants
from holdfast.records import Level, Violation

FEWEST_BATCHES: Final = 8
"""With fewer batches to compare with nothing is said: they do not show how much the feed varies."""

MOST_BATCHES: Final = 28
"""Older ones than this many are left out: seasons change, and four weeks hold every weekday four times."""

_Kind = TypeVar("_Kind", NumberProfile, WordProfile, BooleanProfile, TimestampProfile)


def judge(contract: Contract, profile: Profile, history: Sequence[Profile]) -> tuple[Violation, ...]:
    """What of a batch does not look like its feed, each with the column, the direction and the sizes.

    Parameters
    ----------
    contract
        The feed's contract.
    profile
        The batch's.
    history
        Profiles of the feed's earlier batches, the newest last. Those with another kind of column, or other bounds,
        are left out for that column.

    Level error is kept for what has a plain explanation or no ordinary one: on the real flights and weather of a
    year, blizzard included, no daily batch has one. Fewer than `FEWEST_BATCHES` earlier batches, or fewer than twenty
    values, say nothing. The checks are shift, constant, rounded, zeros, missing, swap, mix, new_slice, missing_slice,
    zone, grain and label. An old delivery under a new id is found by its rows, in `feeds.admission`.

    No p-value stands behind a bound: batches of a feed follow each other and are no sample. The bound is a multiple of
    the farthest of the earlier batches.
    """
    recent = history[-MOST_BATCHES:]
    if len(recent) < FEWEST_BATCHES or profile.rows < FEWEST_ROWS:
        return ()
    swaps = list(_swapped(contract, profile, recent))
    explained = {name for violation in swaps for name in violation.subject.split("+")}
    found = list(swaps)
    for column in contract.columns:
        past = _past(column.name, profile, recent)
        if len(past) < FEWEST_BATCHES or column.name not in profile.columns:
            continue
        now = profile.columns[column.name]
        found += _missing(column.name, now, past)
        if column.name in explained or column.name in _ids(contract):
            continue
        judged = _judge_column(contract, column.name, now, past)
        # Of an integer of few values the mixture says more than its quantiles.
        found += [each for each in judged if each.check != "shift" or column.name not in profile.values]
    for name, now in profile.values.items():
        past = [other.values[name] for other in recent if name in other.values]
        if len(past) >= FEWEST_BATCHES and name not in explained:
            found += judge_words(name, now, _same(now, past), is_slice=name in contract.slices)
    moved = {violation.subject for violation in found if violation.level is Level.ERROR}
    return (*found, *_inverted(contract, profile, recent, moved))


def _ids(contract: Contract) -> set[str]:
    """Columns of the key that are numbers: they name, and do not measure."""
    return {name for name in contract.key if isinstance(contract.column(name), Integer)}


def _past(name: str, profile: Profile, history: Sequence[Profile]) -> list[ColumnProfile]:
    now = profile.columns.get(name)
    return [
        other.columns[name]
        for other in history
        if name in other.columns and now is not None and is_same_kind(now, other.columns[name])
    ]


def _same(now: _Kind, past: Sequence[ColumnProfile]) -> list[_Kind]:
    return [shape for shape in past if isinstance(shape, type(now))]


def _judge_column(
    contract: Contract, name: str, now: ColumnProfile, past: Sequence[ColumnProfile]
) -> Iterator[Violation]:
    column = contract.column(name)
    match now:
        case NumberProfile() if isinstance(column, (Number, Integer)):
            yield from judge_numbers(name, column.unit, now, _same(now, past))
        case NumberProfile():
            # The lengths of texts: their mean may move with what people write, but not to one length or none.
            yield from (
                found
                for found in judge_numbers(name, "characters", now, _same(now, past))
                if found.check == "constant"
            )
        case WordProfile():
            yield from judge_words(name, now, _same(now, past), is_slice=name in contract.slices)
        case TimestampProfile() if isinstance(column, Timestamp):
            yield from judge_instants(name, column.tz, now, _same(now, past))
        case _:
            return


def _missing(name: str, now: ColumnProfile, past: Sequence[ColumnProfile]) -> Iterator[Violation]:
    share = now.missing / max(1, now.rows)
    most = max(shape.missing / max(1, shape.rows) for shape in past)
    if share <= max(0.2, min(3 * most, (1 + most) / 2), most + 0.2):
        return
    never = most == 0.0 and share >= 0.3
    words = f"{name}: {share:.1%} of {now.rows:,} rows have no value, at most {most:.1%} in {len(past)} batches before"
    level = Level.ERROR if never or (share >= 0.95 and most < 0.8) else Level.WARNING
    yield Violation("missing", name, level, words, share, most)


def _inverted(
    contract: Contract, profile: Profile, history: Sequence[Profile], moved: set[str]
) -> Iterator[Violation]:
    """A label that every column which went with it now goes against; columns that have `moved` are no witnesses."""
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
            continue  # It does not always go with the label, so it says nothing.
        turned.append((name, sign * now < -0.3 * usual, sign * usual, now))
    if turned and all(against for _, against, _, _ in turned):
        name, _, usual, now = turned[0]
        words = (
            f"{contract.label.name}: where it is true, {name} is {abs(now):,.4g} {'less' if now < 0 else 'more'} on average, "
            f"and in the batches before it was {abs(usual):,.4g} {'less' if usual < 0 else 'more'}: the label turned around?"
        )
        yield Violation("label", contract.label.name, Level.ERROR, words, now, usual)


def _swapped(contract: Contract, profile: Profile, history: Sequence[Profile]) -> Iterator[Violation]:
    """Two columns of one kind, each of which looks like the other's past and not like its own."""
    names = [column.name for column in contract.columns if isinstance(column, (Number, Integer, Category))]
    strange = [name for name in names if name not in _ids(contract) and _strange(profile, history, name)]
    for place, one in enumerate(strange):
        for other in strange[place + 1 :]:
            if _looks_like(profile, history, one, other) and _looks_like(profile, history, other, one):
                words = (
                    f"{one} looks as {other} did in {len(history)} batches before, and {other} as {one} did: "
                    f"the two columns swapped?"
                )
                yield Violation("swap", f"{one}+{other}", Level.ERROR, words)


def _strange(profile: Profile, history: Sequence[Profile], name: str) -> bool:
    """Whether a column is far from its own past."""
    past = _past(name, profile, history)
    match profile.columns.get(name):
        case NumberProfile() as now if len(past) >= FEWEST_BATCHES and now.count >= FEWEST_ROWS:
            own = reference(_same(now, past))
            return own is not None and own.distance(now.compared_quantiles) > max(1.0, 1.3 * own.farthest)
        case WordProfile() as now if len(past) >= FEWEST_BATCHES and now.named >= FEWEST_ROWS:
            return distance(now.shares, pooled(_same(now, past))) > 0.5
        case _:
            return False


def _looks_like(profile: Profile, history: Sequence[Profile], one: str, other: str) -> bool:
    """Whether the column `one` of the batch is near to what `other` was."""
    theirs = [past.columns[other] for past in history if other in past.columns]
    match profile.columns[one]:
        case NumberProfile() as now:
            foreign = reference(_same(now, theirs))
            return foreign is not None and foreign.distance(now.compared_quantiles) <= max(
                0.25, 1.1 * foreign.farthest
            )
        case WordProfile() as now:
            words = _same(now, theirs)
            usual = pooled(words)
            farthest = max((distance(shape.shares, usual) for shape in words), default=0.0)
            return bool(words) and distance(now.shares, usual) <= max(0.2, 1.5 * farthest)
        case _:
            return False
