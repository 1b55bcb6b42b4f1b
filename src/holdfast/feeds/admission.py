"""Judge a delivery: compare its measurements with what its feed expects and with its history. Pure.

Each check has the name of its expectation in the violations that it finds:

=============== ==================================================================================
row_count       the sender declares another number of rows
invalid_rows    too many rows break the contract, in all or of a slice
rows            too few or too many rows, in themselves or compared with the batches before
missing_batches batches are missing in the event time before this one
gap             the time without an event is too long (`completeness`)
other_days      rows of another day than the batch's
sequence_gaps   numbers of a counting column are missing
granularity     events are another time apart
composition     a kind of traffic has too many or too few of the rows
top_value_share one value has too many of the rows
unseen_words    a word that a category does not list has too many of the rows; of a slice, `unseen_slices`
early_labels    a label is there before it can be known
max_future      an event is later than the load
labelled_rows   hardly a label has a row or a prediction
future_labels   a label becomes known after the load
form            values of a CSV file are written in another form than the feed declares
duplicate_keys  rows have a key that is loaded already
duplicates      the rows are those of an earlier batch
=============== ==================================================================================
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final
from zoneinfo import ZoneInfo

from holdfast.contract import Timestamp
from holdfast.feeds.expectations import Volume
from holdfast.feeds.measurements import DAY_US, DeliveryFacts, quoted
from holdfast.formatting import counted, timestamp
from holdfast.records import Level, Violation

if TYPE_CHECKING:
    from holdfast.feeds.feed import Feed

_NAMED_REASONS: Final = 3
"""So many reasons of dropped rows are named, the commonest ones."""

LEAST_SLICE: Final = 30
"""A slice with fewer rows is not judged by its share of dropped rows: two of ten may be chance."""

LEAST_LABELS: Final = 20
"""Fewer labels without a row are never an error: they may have come before their rows."""

KNOWN: Final = "loaded"
"""Ends the reason of a row whose key is loaded already."""
REPEATED: Final = "repeated"
"""Ends the reason of a label that is loaded already with the same values: no fault, as a cumulative export has them."""

NORMAL: Final = 1.4826
"""The standard deviation of a normal distribution in median absolute deviations."""


@dataclass(frozen=True, slots=True)
class Past:
    """A batch that was admitted and whose rows are trusted. Times are microseconds UTC."""

    batch: str
    rows: int
    event_time_min_us: int


@dataclass(frozen=True, slots=True)
class History:
    """The history of a delivery, as far as the expectations of its feed need it.

    `batches` are the newest that were loaded, newest first. `high_before_us` is the newest event of the batches that begin
    before this delivery does, None without any. `sequence_before` is the highest number of the batches whose
    numbers begin below those of this delivery.
    `same_rows` and `same_values` name a loaded batch with the same rows, or the same rows but for key and event time.
    """

    batches: tuple[Past, ...] = ()
    high_before_us: int | None = None
    sequence_before: int | None = None
    same_rows: str | None = None
    same_values: str | None = None


NOTHING: Final = History()


def judge(
    feed: Feed, facts: DeliveryFacts, history: History = NOTHING, *, now_us: int
) -> tuple[Violation, ...]:
    """Return every expectation of `feed` that the delivery does not meet, in the order of the table above.

    Parameters
    ----------
    now_us
        Timestamp of the load, microseconds UTC: labels and events later than it cannot be known yet.
    """
    checks = (
        _count(facts),
        _drop(feed, facts),
        _rows(feed, facts, history),
        _missing(feed, facts, history),
        _gaps(feed, facts),
        _sequence(feed, facts, history),
        _granularity(feed, facts),
        _composition(feed, facts),
        _unseen(feed, facts),
        _early(feed, facts, now_us),
        _labelled(facts),
        _future_labels(feed, facts, now_us),
        _again(feed, facts),
        _repeat(feed, facts, history),
    )
    return tuple(violation for found in checks for violation in found)


def in_place(feed: Feed, facts: DeliveryFacts, history: History) -> tuple[Violation, ...]:
    """Return the violations that depend on neighbouring batches: "missing_batches" and "sequence_gaps"."""
    return (*_missing(feed, facts, history), *_sequence(feed, facts, history))


def describe(found: Sequence[Violation]) -> str:
    """Return the explanations of the first violations on one line.

    >>> describe([Violation("rows", "", Level.ERROR, "3 rows came")])
    '3 rows came'
    """
    listed = "; ".join(each.explanation for each in found[:5])
    more = f"; and {len(found) - 5} more" if len(found) > 5 else ""
    return f"{listed}{more}"


def describe_loaded(found: Sequence[Violation]) -> str:
    """Return what is suspect in a loaded batch with the violations `found`, on one line."""
    suspect = [each for each in found if each.level is Level.ERROR]
    if suspect:
        return describe(suspect)
    return f"nothing but warnings: {describe(found)}" if found else "it met its expectations"


def worst(violations: Sequence[Violation]) -> Level | None:
    """Return the worst level among `violations`, None without any.

    >>> worst([Violation("gap", "", Level.WARNING, "2 h"), Violation("rows", "", Level.ERROR, "3")])
    <Level.ERROR: 'error'>
    """
    for level in (Level.CRITICAL, Level.ERROR, Level.WARNING):
        if any(violation.level is level for violation in violations):
            return level
    return None


def _count(facts: DeliveryFacts) -> Iterator[Violation]:
    declared, received = facts.rows_expected, facts.rows_received
    if declared is not None and declared != received:
        words = f"{counted(received, 'row')} came and the sender declared {declared:,}"
        yield Violation("row_count", "", Level.CRITICAL, words, received, declared)


def _drop(feed: Feed, facts: DeliveryFacts) -> Iterator[Violation]:
    budget = feed.expects.invalid_rows
    dropped_rows = facts.rows_dropped - facts.rows_known
    if budget is None or not dropped_rows:
        return
    reasons = [
        f"{count:,} {reason}"
        for reason, count in sorted(facts.reasons.items(), key=lambda each: (-each[1], each[0]))
        if not reason.endswith((f"|{KNOWN}", f"|{REPEATED}"))
    ]
    more = f" and {len(reasons) - _NAMED_REASONS} more" if len(reasons) > _NAMED_REASONS else ""
    why = ", ".join(reasons[:_NAMED_REASONS]) + more
    parts = {"": (facts.rows_received, dropped_rows)} | {
        part: counts for part, counts in facts.dropped.items() if counts[0] >= LEAST_SLICE
    }
    for part, (rows, dropped) in parts.items():
        if found := budget.reached(dropped, rows):
            words = f"{dropped:,} of {rows:,} rows{_of(part)} break the contract ({why}); the budget is {found[1]:,.0f}"
            yield Violation("invalid_rows", part, found[0], words, dropped, found[1])


def _rows(feed: Feed, facts: DeliveryFacts, history: History) -> Iterator[Violation]:
    volume, rows = feed.expects.rows, facts.rows_received
    if volume is None:
        return
    if volume.at_least is not None and rows < volume.at_least:
        words = f"{counted(rows, 'row')} came; at least {volume.at_least:,} are expected"
        yield Violation("rows", "", volume.level, words, rows, volume.at_least)
    elif volume.at_most is not None and rows > volume.at_most:
        words = f"{counted(rows, 'row')} came; at most {volume.at_most:,} are expected"
        yield Violation("rows", "", volume.level, words, rows, volume.at_most)
    else:
        yield from _unusual(feed, volume, facts, history)


def _unusual(feed: Feed, volume: Volume, facts: DeliveryFacts, history: History) -> Iterator[Violation]:
    rows, low_us = facts.rows_received, facts.event_time_min_us
    before, whose = [past.rows for past in history.batches], "batches"
    if volume.weekdays and low_us is not None:
        zone = _zone(feed)
        day = _weekday(low_us, zone)
        alike = [past.rows for past in history.batches if _weekday(past.event_time_min_us, zone) == day]
        if len(alike) >= volume.history:
            before, whose = alike, f"{_DAYS[day]}s"
    if volume.deviation is None or len(before) < volume.history:
        return
    usual = statistics.median(before)
    spread = NORMAL * statistics.median(abs(each - usual) for each in before)
    away = abs(rows - usual)
    found = volume.deviation.reached(away, usual)
    if found and away > volume.min_z_score * spread:
        words = (
            f"{counted(rows, 'row')} came; the median of the last {len(before)} {whose} is {usual:,.0f} "
            f"and their robust standard deviation {spread:,.0f}"
        )
        yield Violation("rows", "", found[0], words, rows, usual)


def _missing(feed: Feed, facts: DeliveryFacts, history: History) -> Iterator[Violation]:
    every, low_us, before_us = feed.expects.interval_us, facts.event_time_min_us, history.high_before_us
    if every is None or low_us is None or before_us is None:
        return
    apart = low_us - before_us - feed.expects.grace_us
    lacking = -(-apart // every) - 1 if apart > every else 0
    if found := feed.expects.missing_batches.reached(lacking, 1):
        words = (
            f"about {lacking} batches are missing: the events before end at {timestamp(before_us)} and this batch begins at "
            f"{timestamp(low_us)}, and one is expected every {_span(every)}"
        )
        yield Violation("missing_batches", "", found[0], words, lacking, found[1])


def _gaps(feed: Feed, facts: DeliveryFacts) -> Iterator[Violation]:
    complete = feed.expects.completeness
    if complete is None:
        return
    longest: dict[str, int] = {}
    for gap in facts.gaps:
        longest[gap.entity] = max(longest.get(gap.entity, 0), gap.counted_us)
    for entity, counted_us in sorted(longest.items()):
        gap = next(each for each in facts.gaps if each.entity == entity and each.counted_us == counted_us)
        subject = entity if complete.by is None else f"{complete.by}={entity}"
        words = (
            f"no event{_of(subject)} from {timestamp(gap.from_us)} to {timestamp(gap.to_us)}, {_span(counted_us)} that count; "
            f"at most {_span(complete.max_gap_us)} is expected"
        )
        yield Violation("gap", subject, complete.level, words, counted_us / 1e6, complete.max_gap_us / 1e6)
    if complete.daily and (found := complete.other_days.reached(facts.rows_elsewhere, facts.rows_loaded)):
        words = (
            f"{facts.rows_elsewhere:,} of {facts.rows_loaded:,} rows are not of the day that begins at "
            f"{timestamp(facts.day_us or 0)}, as if another time zone or another day had got in"
        )
        yield Violation(
            "other_days", feed.contract.event_time, found[0], words, facts.rows_elsewhere, found[1]
        )


def _sequence(feed: Feed, facts: DeliveryFacts, history: History) -> Iterator[Violation]:
    name, found = feed.expects.sequence, facts.sequence
    if name is None or found is None:
        return
    before = history.sequence_before
    between = max(0, found.low - before - 1) if before is not None else 0
    holes = found.holes + between
    if reached := feed.expects.sequence_gaps.reached(holes, found.high - found.low + 1):
        words = f"{holes:,} numbers are missing: {found.holes:,} between {found.low} and {found.high}"
        if between:
            words += f", {between:,} between {before}, where the batches before end, and {found.low}"
        yield Violation("sequence_gaps", name, reached[0], words, holes, reached[1])


def _granularity(feed: Feed, facts: DeliveryFacts) -> Iterator[Violation]:
    expected = feed.expects.granularity
    if expected is None or not facts.steps_us:
        return
    most = max(facts.steps_us.items(), key=lambda step: (step[1], -step[0]))[0]
    if most != expected.step_us:
        each = "" if expected.by is None else f" of the same {expected.by}"
        words = f"events{each} are mostly {_span(most)} apart; the feed is declared with one every {_span(expected.step_us)}"
        yield Violation(
            "granularity", feed.contract.event_time, expected.level, words, most / 1e6, expected.step_us / 1e6
        )


def _composition(feed: Feed, facts: DeliveryFacts) -> Iterator[Violation]:
    rows = facts.rows_loaded
    if not rows:
        return
    for each in feed.expects.composition:
        counts = facts.shares.get(each.column, {})
        for side, sign, bounds in (("at most", 1, each.at_most), ("at least", -1, each.at_least)):
            for value, bound in bounds.items():
                share = counts.get(value, 0) / rows
                if sign * (share - bound) > 0:
                    words = f"{share:.1%} of the rows have {each.column} {value!r}; {side} {bound:.1%} is expected"
                    yield Violation("composition", f"{each.column}={value}", each.level, words, share, bound)
    for one in feed.expects.top_value_share:
        value, count = facts.busiest.get(one.column, ("", 0))
        if reached := one.limits.reached(count, rows):
            words = f"{count:,} of {rows:,} rows have {one.column} {value!r}; fewer than {reached[1]:,.0f} are expected of one"
            yield Violation("top_value_share", one.column, reached[0], words, count, reached[1])


def _unseen(feed: Feed, facts: DeliveryFacts) -> Iterator[Violation]:
    for name, (rows, counts) in facts.unseen.items():
        is_slice = name in feed.contract.slices
        limits = feed.expects.unseen_slices if is_slice else feed.expects.unseen_words
        reached = {
            word: found for word, count in counts.items() if limits and (found := limits.reached(count, rows))
        }
        if reached:
            level, bound = next(iter(reached.values()))  # of the most frequent word
            words = ", ".join(f"{quoted(word)} ({counts[word] / rows:.1%})" for word in reached)
            text = f"{name}: {words} of the rows, and its values do not list {'them' if len(reached) > 1 else 'it'}"
            check = "unseen_slices" if is_slice else "unseen_words"
            yield Violation(check, name, level, text, max(counts.values()), bound)


def _early(feed: Feed, facts: DeliveryFacts, now_us: int) -> Iterator[Violation]:
    label, newest_us = feed.contract.label, facts.newest_label_us
    if label is not None and newest_us is not None:
        due_us = newest_us + label.delay_span // timedelta(microseconds=1)
        if due_us > now_us:
            words = (
                f"{label.name} is there for an event of {timestamp(newest_us)}, is known {_span(due_us - newest_us)} after its "
                f"event, and it is {timestamp(now_us)}: it was predicted, or it leaked"
            )
            yield Violation("early_labels", label.name, Level.CRITICAL, words, (due_us - now_us) / 1e6, 0.0)
    ahead_us, high_us = feed.expects.max_future_us, facts.event_time_max_us
    if ahead_us is not None and high_us is not None and high_us > now_us + ahead_us:
        words = f"the newest event is of {timestamp(high_us)}, {_span(high_us - now_us)} after the load at {timestamp(now_us)}"
        yield Violation(
            "max_future",
            feed.contract.event_time,
            Level.ERROR,
            words,
            (high_us - now_us) / 1e6,
            ahead_us / 1e6,
        )


def _labelled(facts: DeliveryFacts) -> Iterator[Violation]:
    found = facts.matches
    if found is None or not found.are_few:
        return
    is_foreign = found.had_before and found.labels >= LEAST_LABELS
    words = f"{found.found:,} of {found.labels:,} labels have a {found.what}"
    words += (
        ", and loaded labels have: are these the labels of another model?"
        if is_foreign
        else ": they count as soon as it is loaded, if they are labels of this model"
    )
    level = Level.ERROR if is_foreign else Level.WARNING
    yield Violation("labelled_rows", "", level, words, found.found, found.labels / 100)


def _future_labels(feed: Feed, facts: DeliveryFacts, now_us: int) -> Iterator[Violation]:
    high_us, ahead_us = facts.event_time_max_us, feed.expects.max_future_us
    if feed.labels_for is None or high_us is None or high_us <= now_us:
        return
    if ahead_us is not None and high_us > now_us + ahead_us:
        return  # `_early` reports it as an error
    words = (
        f"the newest label becomes known at {timestamp(high_us)}, {_span(high_us - now_us)} after the load at "
        f"{timestamp(now_us)}: a label that is known in the future is not used until then"
    )
    yield Violation(
        "future_labels", feed.contract.event_time, Level.WARNING, words, (high_us - now_us) / 1e6, 0.0
    )


def _again(feed: Feed, facts: DeliveryFacts) -> Iterator[Violation]:
    key = "+".join(feed.contract.key)
    known = facts.rows_known - facts.reasons.get(f"{key}|{REPEATED}", 0)
    limits, rows = feed.expects.duplicate_keys, facts.rows_received
    if limits is not None and known and (reached := limits.reached(known, rows)):
        words = f"{known:,} of {rows:,} rows repeat the {key} of a loaded row: they are quarantined; what is loaded stays"
        yield Violation("duplicate_keys", key, reached[0], words, known, reached[1])


def _repeat(feed: Feed, facts: DeliveryFacts, history: History) -> Iterator[Violation]:
    rows = facts.rows_loaded
    if history.same_rows is not None:
        words = f"its {rows:,} rows are those of batch {history.same_rows}, written in another way or order"
        yield Violation("duplicates", history.same_rows, Level.CRITICAL, words, rows)
    elif history.same_values is not None:
        ignored = "+".join(dict.fromkeys((*feed.contract.key, feed.contract.event_time)))
        words = f"its {rows:,} rows are those of batch {history.same_values} in all but {ignored}: a stale file, dated anew"
        yield Violation("duplicates", history.same_values, Level.CRITICAL, words, rows)


_DAYS: Final = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


def _zone(feed: Feed) -> ZoneInfo:
    column = feed.contract.column(feed.contract.event_time)
    assert isinstance(column, Timestamp)
    return ZoneInfo(column.tz)


def _weekday(us: int, zone: ZoneInfo) -> int:
    return _datetime(us).astimezone(zone).weekday()


def _datetime(us: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=us)


def _span(us: int) -> str:
    for unit, size in (("d", DAY_US), ("h", 3_600_000_000), ("min", 60_000_000), ("s", 1_000_000)):
        if us >= size:
            return f"{us / size:.4g} {unit}"
    return f"{us} us"


def _of(part: str) -> str:
    return f" of {part}" if part else ""
