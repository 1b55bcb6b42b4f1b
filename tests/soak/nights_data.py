"""Two users' data sets for weeks of nights: synthetic, by a seed, one law from the first row to the last.

`loans`: applications with a time of day in Amsterdam, and whether they were repaid in a file of its own, three to five weeks
later. `strikes`: collisions of aircraft with birds, an export with `;`, `d.m.yyyy` and yes/no, 28 % empty speeds, costs
that are nearly always zero, and mostly rare categories; inspections report the damage ten to 24 days later. Some labels are
corrected.
"""

from __future__ import annotations

import csv
import random
from bisect import bisect
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from itertools import accumulate
from math import exp
from pathlib import Path
from zoneinfo import ZoneInfo

FIRST_NIGHT = date(2026, 3, 2)
"""The day whose rows the first night loads; the export has all rows before it."""


@dataclass(frozen=True)
class Label:
    """A label and when it became known; `value` is the text in the file of labels."""

    key: str
    value: bool
    known_at: datetime


@dataclass(frozen=True)
class Row:
    """A row as it is delivered, by header, and what became of it: its label, and perhaps a correction."""

    key: str
    at: datetime
    fields: dict[str, str]
    labels: tuple[Label, ...]


@dataclass(frozen=True)
class DataSet:
    """What a user has: the form of the files, the names of columns, and a way to draw the rows of a day."""

    name: str
    zone: ZoneInfo
    separator: str
    headers: tuple[str, ...]
    key: str
    label: str
    event_time: str
    known_at: str
    words: tuple[str, str]
    """The words of true and false in the files."""
    export_rows: int
    draw_day: Callable[[random.Random, date, Iterator[int]], list[Row]]
    time_text: Callable[[datetime], str]
    labels_in_export: bool
    """Whether the export has the labels that are known by then; if not, they are in a file of their own."""

    def export(self, seed: int) -> list[Row]:
        """Return the `export_rows` rows of the days before the first night, oldest first."""
        days: list[list[Row]] = []
        day, number = FIRST_NIGHT, 0
        while number < self.export_rows:
            day -= timedelta(days=1)
            days.append(self.day(seed, day))
            number += len(days[-1])
        return [row for rows in reversed(days) for row in rows][-self.export_rows :]

    def day(self, seed: int, day: date) -> list[Row]:
        """Return the rows of `day`."""
        rng = random.Random(f"{self.name} {seed} {day}")
        ordinal = day.toordinal()
        return self.draw_day(rng, day, iter(range(ordinal * 1000, ordinal * 1000 + 1000)))

    def write_rows(self, path: Path, rows: Iterable[Row], *, labels_by: datetime | None = None) -> None:
        """Write a delivery; with `labels_by` its label column has the labels that were known then."""
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, delimiter=self.separator, lineterminator="\n")
            named = (*self.headers, self.label) if self.labels_in_export else self.headers
            writer.writerow(named)
            for row in rows:
                values = [row.fields[name] for name in self.headers]
                if self.labels_in_export:
                    known = [each for each in row.labels if labels_by and each.known_at < labels_by]
                    values.append(self.words[not known[-1].value] if known else "")
                writer.writerow(values)

    def write_labels(self, path: Path, labels: Iterable[Label]) -> None:
        """Write a file of labels."""
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, delimiter=self.separator, lineterminator="\n")
            writer.writerow((self.key, self.label, self.known_at))
            for each in labels:
                writer.writerow((each.key, self.words[not each.value], self.time_text(each.known_at)))


def known_between(rows: Iterable[Row], begin: datetime, end: datetime) -> list[Label]:
    """Return the labels of `rows` that became known from `begin` to before `end`, in that order."""
    found = [each for row in rows for each in row.labels if begin <= each.known_at < end]
    return sorted(found, key=lambda each: (each.known_at, each.key))


def _pick(rng: random.Random, words: Sequence[str], cumulated: Sequence[float]) -> str:
    return words[bisect(cumulated, rng.random() * cumulated[-1])]


def _zipf(names: Iterable[str], exponent: float = 1.1) -> tuple[list[str], list[float]]:
    words = list(names)
    return words, list(accumulate(1.0 / (rank + 2) ** exponent for rank in range(len(words))))


def _labels(
    rng: random.Random, key: str, risk: float, at: datetime, days: tuple[int, int], hours: bool
) -> tuple[Label, ...]:
    """Draw the label, known after some days; one in fifty is corrected within ten days more."""
    value = rng.random() < 1.0 / (1.0 + exp(-risk))
    known = at + timedelta(days=rng.uniform(*days))
    corrected = known + timedelta(days=rng.uniform(2, 10))
    if not hours:  # a date of the following day or later: it is known when that day begins
        known, corrected = (datetime.combine(each.date(), time(), each.tzinfo) for each in (known, corrected))
    first = Label(key, value, known.replace(microsecond=0))
    if rng.random() >= 0.02:
        return (first,)
    return first, Label(key, not value, corrected.replace(microsecond=0))


AMSTERDAM = ZoneInfo("Europe/Amsterdam")
_HOURS = list(
    accumulate([1, 1, 1, 1, 1, 2, 6, 15, 30, 45, 50, 48, 40, 44, 46, 44, 40, 36, 34, 36, 34, 26, 14, 5])
)
_SALARIES = ("0 - 20K €", "20K - 40K €", "40K - 60K €", "60K+ €")
_DOWN = tuple(f"{share}%" for share in range(10, 101, 10))


def _loans(rng: random.Random, day: date, numbers: Iterator[int]) -> list[Row]:
    count = max(60, round(rng.gauss(165, 14)))
    rows = []
    midnight = datetime.combine(day, time(), AMSTERDAM)
    for _ in range(count):
        hour = bisect(_HOURS, rng.random() * _HOURS[-1])
        # By the clock of UTC, so that an hour that the wall clock skips never comes.
        at = (midnight.astimezone(UTC) + timedelta(hours=hour, seconds=rng.randrange(3600))).astimezone(
            AMSTERDAM
        )
        if at.date() == day:
            rows.append(at)
    found = []
    for at, number in zip(sorted(rows), numbers, strict=False):
        salary = rng.choices(range(4), (22, 38, 26, 14))[0]
        value = float(round(rng.lognormvariate(10.2 + 0.15 * salary, 0.45)))
        ratio = min(1.0, rng.betavariate(2.0, 3.2 + 0.4 * salary))
        length = rng.choice((12, 16, 17, 18, 19, 20, 21, 22, 24, 30, 36))
        before, down, tenure = rng.random() < 0.55, rng.randrange(10), max(0, round(rng.gauss(4.6, 1.5)))
        risk = (
            1.6 + 0.5 * salary - 3.4 * ratio + (1.1 if before else -0.9) + 0.14 * down + 0.12 * tenure
            - 0.00002 * value - 0.03 * length
        )  # fmt: skip
        key = str(number)
        fields = {
            "id": key, "car_value": f"{value:.1f}", "salary_range": _SALARIES[salary],
            "debt_to_income_ratio": f"{ratio:.6f}", "loan_length": str(length),
            "repaid_loan_on_prev_car": str(before), "size_of_downpayment": _DOWN[down],
            "driver_tenure": str(tenure), "timestamp": f"{at:%Y-%m-%d %H:%M:%S}",
        }  # fmt: skip
        labels = _labels(rng, key, risk, at.astimezone(UTC), (21, 35), hours=True)
        found.append(Row(key, at, fields, labels))
    return found


_AIRPORTS = _zipf(f"{city} {kind}" for kind in ("INTL", "REGIONAL", "MUNI", "FIELD") for city in (
    "DENVER", "DALLAS", "CHICAGO O'HARE", "SACRAMENTO", "MEMPHIS", "ORLANDO", "LOUISVILLE", "PORTLAND", "TAMPA", "OAKLAND",
    "SALT LAKE CITY", "BOISE", "TULSA", "AUSTIN", "RENO", "EL PASO", "ALBANY", "FARGO", "HILO", "BANGOR", "LUBBOCK", "EUGENE",
    "DULUTH", "MOBILE", "NORFOLK", "TOLEDO", "OMAHA", "PEORIA", "YUMA", "BURBANK", "SPOKANE", "TUCSON", "WICHITA", "SAVANNAH",
    "BATON ROUGE", "GRAND RAPIDS", "LITTLE ROCK", "SIOUX FALLS", "SAN JOSE", "ST. LOUIS", "KANSAS CITY", "SYRACUSE",
))  # fmt: skip
_AIRCRAFT = _zipf(f"{maker}-{type_}{series}" for series in ("", "00", "20", "ER", "F") for maker, types in (
    ("B", (717, 727, 737, 747, 757, 767, 777, 787, 707)), ("A", (300, 310, 318, 319, 320, 321, 330, 340)),
    ("DC", (3, 6, 8, 9, 10)), ("EMB", (120, 135, 145, 170, 190)), ("C", (130, 150, 172, 182, 206, 208, 310, 402, 441, 500)),
    ("PA", (18, 28, 31, 32, 34, 44, 46)),
) for type_ in types)  # fmt: skip
_OPERATORS = _zipf(f"{name} {kind}" for kind in ("AIRLINES", "AIR", "CARGO") for name in (
    "SOUTHWEST", "BUSINESS", "UNITED", "AMERICAN", "DELTA", "NORTHWEST", "US AIRWAYS", "FEDEX", "UPS", "ALASKA", "JETBLUE",
    "COMAIR", "MESA", "PINNACLE", "SKYWEST", "HAWAIIAN", "MILITARY", "PRIVATELY OWNED", "AMERICA WEST", "ATLANTIC SOUTHEAST",
))  # fmt: skip
_SPECIES = _zipf((f"{which} {bird}".strip() for bird in (
    "gull", "sparrow", "mourning dove", "kestrel", "killdeer", "lark", "hawk", "starling", "goose", "owl", "swallow", "duck",
    "pigeon", "vulture", "crow", "meadowlark", "plover", "heron", "egret", "tern", "bat", "deer", "coyote", "rabbit", "turtle",
) for which in ("unknown", "", "american", "western", "eastern", "snowy", "red-tailed", "great", "lesser")), 1.2)  # fmt: skip
_PHASES = (
    ("Approach", "Landing Roll", "Take-off run", "Climb", "Descent", "Taxi", "Parked"),
    (38, 58, 76, 93, 97, 98, 98.4),
)
_TIMES = (("Day", "Night", "Dawn", "Dusk"), (62, 88, 94, 100))
_SIZES = (("Small", "Medium", "Large"), (64, 92, 100))
_STATES = _zipf((
    "Colorado", "Texas", "Illinois", "California", "Florida", "Tennessee", "New York", "Kentucky", "Oregon", "Utah", "Missouri",
    "Ohio", "Nevada", "Hawaii", "Idaho", "Maine", "Iowa", "Kansas", "Alaska", "Georgia", "Virginia", "Washington", "N/A",
), 0.8)  # fmt: skip


def _strikes(rng: random.Random, day: date, numbers: Iterator[int]) -> list[Row]:
    rows = []
    for number in [next(numbers) for _ in range(min(168, max(39, round(rng.gauss(100, 16)))))]:
        size, phase, hour = (_pick(rng, *each) for each in (_SIZES, _PHASES, _TIMES))
        aircraft, species = _pick(rng, *_AIRCRAFT), _pick(rng, *_SPECIES)
        speed = max(
            0, 5 * round(rng.gauss({"Taxi": 20, "Parked": 0, "Descent": 210}.get(phase, 130), 28) / 5)
        )
        known_speed = str(speed) if rng.random() >= 0.28 else ""
        risk = (
            -3.6 + {"Small": 0.0, "Medium": 1.5, "Large": 3.2}[size] + 0.008 * (speed - 130)
            + (0.8 if phase in ("Climb", "Descent") else 0.0) + (0.7 if aircraft.startswith(("C-", "PA-")) else 0.0)
            + (0.4 if hour == "Night" else 0.0)
        )  # fmt: skip
        at = datetime.combine(day, time(), UTC)
        labels = _labels(rng, str(number), risk, at, (10, 24), hours=False)
        costly = labels[0].value and rng.random() < 0.3
        repair = round(rng.lognormvariate(9, 1.8)) if costly else 0
        other = round(rng.lognormvariate(8, 1.6)) if labels[0].value and rng.random() < 0.15 else 0
        fields = {
            "Record No": str(number), "Airport Name": _pick(rng, *_AIRPORTS), "Aircraft Make Model": aircraft,
            "Flight Date": f"{day.day}.{day.month}.{day.year}", "Aircraft Airline Operator": _pick(rng, *_OPERATORS),
            "Origin State": _pick(rng, *_STATES), "Phase of flight": phase, "Wildlife Size": size, "Wildlife Species": species,
            "Time of day": hour, "Cost Other": str(other), "Cost Repair": str(repair), "Cost Total $": str(other + repair),
            "Speed IAS in knots": known_speed,
        }  # fmt: skip
        rows.append(Row(str(number), at, fields, labels))
    return rows


LOANS = DataSet(
    "loans", AMSTERDAM, ",",
    ("id", "car_value", "salary_range", "debt_to_income_ratio", "loan_length", "repaid_loan_on_prev_car",
     "size_of_downpayment", "driver_tenure", "timestamp"),
    "id", "repaid", "timestamp", "known_at", ("1", "0"), 100_000, _loans,
    lambda at: f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}", labels_in_export=False,
)  # fmt: skip
STRIKES = DataSet(
    "strikes", ZoneInfo("UTC"), ";",
    ("Record No", "Airport Name", "Aircraft Make Model", "Flight Date", "Aircraft Airline Operator", "Origin State",
     "Phase of flight", "Wildlife Size", "Wildlife Species", "Time of day", "Cost Other", "Cost Repair", "Cost Total $",
     "Speed IAS in knots"),
    "Record No", "Damage?", "Flight Date", "Inspected", ("yes", "no"), 10_000, _strikes,
    lambda at: f"{at.day}.{at.month}.{at.year}", labels_in_export=True,
)  # fmt: skip
DATA_SETS = {each.name: each for each in (LOANS, STRIKES)}
