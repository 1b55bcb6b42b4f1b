"""A file in another form than its feed declares is refused in one sentence, with what to change (F15, F16)."""

from __future__ import annotations

import csv as csv_module
import io
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast.contract import Category, Contract, Integer, Number, Timestamp
from holdfast.contract.batch.csv_format import SEPARATORS, Csv
from holdfast.control.ingest import dry_run
from holdfast.control.ingest.column_advice import ForeignColumnsError, find_feed
from holdfast.control.ingest.ingest import ingest
from holdfast.control.ingest.validate import DeliverySpec
from holdfast.errors import HoldfastError, RefusedError
from holdfast.feeds import Feed
from holdfast.records import Violation
from holdfast.store import Store
from holdfast.store.sources import open_source

NOW = 1_800_000_000_000_000
HEADERS = {"Record ID": "id", "Flight Date": "at", "Speed (IAS, mph)": "speed", "Airport, name": "airport"}
CONTRACT = Contract(
    Integer("id", low=0),
    Timestamp("at", tz="UTC", naive="local"),
    Number("speed", unit="mph", low=0),
    Category("airport"),
    key="id",
    event_time="at",
)


def feed(separator: str = ";", decimal: str = ",") -> Feed:
    return Feed("rows", CONTRACT, csv=Csv(separator, decimal, dates=("d.m.yyyy",)), headers=HEADERS)


def text(
    separator: str = ";",
    names: tuple[str, ...] = tuple(HEADERS),
    *,
    date: str = "{day}.11.2026",
    speed: str = "{day},5",
) -> str:
    out = io.StringIO()
    writer = csv_module.writer(out, delimiter=separator, lineterminator="\n")
    writer.writerow(names)
    for day in range(11, 21):
        writer.writerow([day, date.format(day=day), speed.format(day=day), "LA GUARDIA, NY"])
    return out.getvalue()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store.open(tmp_path / "store")
    yield made
    made.ledger.close()


def error_of(store: Store, declared: Feed, content: str, tmp_path: Path) -> HoldfastError:
    path = tmp_path / "night.csv"
    path.write_text(content)
    checked = dry_run.check(store, declared, DeliverySpec("night", path), now_us=NOW)
    with pytest.raises(HoldfastError) as caught:
        ingest(store, declared, "night", path, now_us=NOW)
    assert checked.refusal is not None
    assert checked.refusal.as_dict() == caught.value.as_dict(), "a check finds what a load finds"
    return caught.value


@pytest.mark.parametrize("declared", SEPARATORS)
@pytest.mark.parametrize("sent", SEPARATORS)
def test_a_file_with_another_separator_is_recognised(
    store: Store, tmp_path: Path, declared: str, sent: str
) -> None:
    if declared == sent:
        (tmp_path / "night.csv").write_text(text(sent))
        assert ingest(store, feed(declared), "n", tmp_path / "night.csv", now_us=NOW).rows_loaded == 10
        return
    error = error_of(store, feed(declared), text(sent), tmp_path)
    names = ["a tab" if each == "\t" else repr(each) for each in (sent, declared)]
    assert (error.code, error.what) == (
        "HF202",
        f"the separator of night.csv is {names[0]}; feed 'rows' declares {names[1]}",
    )
    assert f"csv=Csv(separator={sent!r}, ...)" in error.next_command


def test_a_header_with_another_separator_in_one_name_is_no_other_separator(
    store: Store, tmp_path: Path
) -> None:
    """The declared separator fits better: the missing column is named."""
    error = error_of(store, feed(), text(names=tuple(HEADERS)[:3]).replace(";LA", ""), tmp_path)
    assert "separator" not in error.what


def test_a_missing_column_is_named_by_its_header_and_a_new_one_by_what_to_declare(
    store: Store, tmp_path: Path
) -> None:
    renamed = ("Record ID", "Flight Date", "Speed (IAS) in knots", "Airport, name")
    error = error_of(store, feed(), text(names=renamed), tmp_path)
    assert (
        "column 'speed' (header 'Speed (IAS, mph)') is missing; it is probably 'Speed (IAS) in knots'"
        in error.what
    )
    assert "add {'Speed (IAS) in knots': 'speed'} to headers= of feed 'rows'" in error.next_command
    assert "if the unit is still the contract's: speed in mph" in error.next_command
    other = ("Record ID", "Flight Date", "Speed (IAS, mph) [m/s]", "xyz")
    error = error_of(store, feed(), text(names=other), tmp_path)
    assert "'Speed (IAS, mph) [m/s]' now" not in error.what, "a header with a unit is no new column"
    assert "missing: airport" in error.what
    gone = error_of(store, feed(), "Record ID;Flight Date;Speed (IAS, mph)\n1;1.11.2026;2,5\n", tmp_path)
    assert "column 'airport' (header 'Airport, name') is missing" in gone.what
    assert gone.next_command == "correct the source, or headers= of feed 'rows' if the source is right"


FLIGHTS = "Record;Flight day;Speed (IAS, mph), at most;Airport\n1;1.11.2026;2,5;LA GUARDIA\n"


@pytest.mark.parametrize("content", [FLIGHTS, FLIGHTS.replace(";", ","), FLIGHTS.replace(";", "|")])
def test_a_file_of_another_feed_is_no_file_with_renamed_columns(
    store: Store, tmp_path: Path, content: str
) -> None:
    """Names that are not alike are not taken for each other because they stand at the same place."""
    loans = Contract(
        Integer("id"), Number("car_value", unit="USD"), Category("salary"), Timestamp("timestamp", tz="UTC"),
        key="id", event_time="timestamp",
    )  # fmt: skip
    error = error_of(store, Feed("loans", loans), content, tmp_path)
    assert isinstance(error, ForeignColumnsError)
    assert error.what == (
        "night.csv has none of the columns of feed 'loans': is it of another feed, or without a header?"
    )
    assert "headers=" not in error.next_command
    found = find_feed([Feed("loans", loans), feed()], open_source(tmp_path / "night.csv"))
    assert found is None
    (tmp_path / "night.csv").write_text(text())
    found = find_feed([Feed("loans", loans), feed()], open_source(tmp_path / "night.csv"))
    assert found is not None
    assert found.name == "rows"


def form_of(store: Store, content: str, tmp_path: Path, declared: Feed | None = None) -> list[Violation]:
    path = tmp_path / "night.csv"
    path.write_text(content)
    found = dry_run.check(store, declared or feed(), DeliverySpec("night", path), now_us=NOW)
    return [each for each in found.violations if each.check == "form"]


def test_values_in_another_form_are_recognised(store: Store, tmp_path: Path) -> None:
    (decimal,) = form_of(store, text(speed="{day}.5"), tmp_path)
    assert decimal.subject == "speed"
    assert decimal.explanation.startswith(
        "10 of 10 values of speed, such as \"11.5\", are written with decimal='.'; the feed declares decimal=','"
    )
    (both,) = form_of(store, text(speed="{day}.500"), tmp_path)
    assert "decimal='.' or decimal=',', thousands='.'" in both.explanation, "both read it: neither is guessed"
    (date,) = form_of(store, text(date="11/{day}/2026"), tmp_path)
    assert "dates=('m/d/yyyy',); the feed declares dates=('d.m.yyyy',)" in date.explanation
    assert form_of(store, text(), tmp_path) == []
    assert form_of(store, text(speed="fast"), tmp_path) == [], "no form reads it"
    one = text().replace("11,5", "11.5")
    assert form_of(store, one, tmp_path) == [], "a single fault is no form"


def test_a_refusal_without_a_valid_row_names_the_form(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "night.csv"
    path.write_text(text(speed="{day}.5"))
    with pytest.raises(RefusedError, match="HF204: none of the 10 rows") as caught:
        ingest(store, feed(), "night", path, now_us=NOW)
    assert "are written with decimal='.'; the feed declares decimal=','" in caught.value.what
