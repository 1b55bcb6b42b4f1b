"""A delivery of very many names is refused by the names alone: compared with nothing, counted once, ten of them named (B13)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from difflib import SequenceMatcher
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from holdfast.contract import Category, Contract, Integer, Number, Timestamp
from holdfast.contract.batch import input_columns
from holdfast.contract.batch.text_input import plain_headers
from holdfast.control.ingest import dry_run
from holdfast.control.ingest.validate import DeliverySpec
from holdfast.errors import HoldfastError
from holdfast.feeds import Feed, schema_drift
from holdfast.serve.protocol.oip import RequestError, decode_request
from holdfast.store import Store
from holdfast.store.sources import parquet_reader

CONTRACT = Contract(
    Integer("id"),
    Number("size", unit="1"),
    Category("town"),
    Timestamp("at", tz="UTC"),
    key="id",
    event_time="at",
)
MANY = 300_000
NAMES = [f"n{number}" for number in range(MANY)]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store.open(tmp_path / "store")
    yield made
    made.ledger.close()


@pytest.fixture(autouse=True)
def compared(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names that were compared: each with each is an hour of work."""
    found: list[str] = []

    class Counting(SequenceMatcher[str]):
        def __init__(self, isjunk: None, one: str, other: str) -> None:
            found.append(other)
            super().__init__(isjunk, one, other)

    monkeypatch.setattr(schema_drift, "SequenceMatcher", Counting)
    return found


def refusal(store: Store, path: Path) -> HoldfastError:
    try:
        found = dry_run.check(store, Feed("f", CONTRACT), DeliverySpec("d", str(path)), now_us=1)
    except HoldfastError as error:
        return error
    assert found.refusal is not None
    assert len(found.violations) <= input_columns.MOST_UNKNOWN + len(CONTRACT.names)
    assert all(len(each.explanation) < 300 for each in found.violations)
    return found.refusal


def as_csv(names: list[str]) -> str:
    return f"{','.join(names)}\n{','.join('1' for _ in names)}\n"


TEXTS = {
    "new.csv": as_csv(NAMES[:9_000]),
    "more.csv": as_csv([*CONTRACT.names, *NAMES[:9_000]]),
    "units.csv": as_csv([f"{name} [km]" for name in NAMES[:9_000]]),
    "wide.csv": as_csv(NAMES),
    "line.jsonl": json.dumps(dict.fromkeys(NAMES, 1)) + "\n",
    "twice.jsonl": "{" + ",".join(f'"{name}":1' for name in NAMES[: MANY // 2] * 2) + "}\n",
    "rows.jsonl": "".join(json.dumps({name: 1}) + "\n" for name in NAMES),
}


@pytest.mark.parametrize("name", TEXTS)
def test_a_file_of_very_many_names_is_refused_and_ten_are_named(
    store: Store, tmp_path: Path, compared: list[str], name: str
) -> None:
    (tmp_path / name).write_text(TEXTS[name])
    error = refusal(store, tmp_path / name)
    assert error.code == ("HF201" if name == "wide.csv" else "HF202")
    assert len(error.what) < 600
    assert error.what.count(", n") <= 10
    # Of many lines only the first, which has one name, is looked at.
    assert set(compared) == ({"n0"} if name == "rows.jsonl" else set())


def test_a_header_that_names_each_column_twice_is_refused_and_ten_are_named(
    store: Store, tmp_path: Path
) -> None:
    (tmp_path / "twice.csv").write_text(as_csv(NAMES[:4_000] * 2))
    error = refusal(store, tmp_path / "twice.csv")
    assert error.code == "HF201"
    assert "and 3,990 more" in error.what
    assert len(error.what) < 300


def test_a_wide_parquet_file_is_refused_by_its_footer(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pq.write_table(pa.table({name: [1] for name in NAMES[:20_000]}), tmp_path / "wide.parquet")
    monkeypatch.setattr(parquet_reader, "_read", lambda *_, **__: pytest.fail("its rows were read"))
    error = refusal(store, tmp_path / "wide.parquet")
    assert error.code == "HF202"
    assert "has none of the columns of feed 'f'" in error.what


def test_a_renamed_column_among_a_few_new_ones_is_still_named(store: Store, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(as_csv(["id", "sizes", "town", "at", *NAMES[:100]]))
    assert "it is probably 'sizes' now" in refusal(store, tmp_path / "a.csv").what


def test_headers_with_units_are_read_in_one_pass() -> None:
    """Each was looked for among all renamed ones."""
    renamed, facts = plain_headers(CONTRACT, [f"{name} [km]" for name in NAMES], {})
    assert (len(renamed), len(facts)) == (MANY, MANY)
    headers = {"n1": "id"}
    assert input_columns.renamed_columns(CONTRACT, NAMES, headers) == headers


def test_a_request_of_very_many_inputs_names_the_first() -> None:
    tensors = [{"name": name, "shape": [1], "datatype": "FP64", "data": [1.0]} for name in NAMES[:100_000]]
    with pytest.raises(RequestError, match="the model has no input 'n0'"):
        decode_request(json.dumps({"inputs": tensors}).encode(), None, {"size": ("FP64",)})
    again = json.dumps({"inputs": [{**tensors[0], "name": "size"}] * 100_000}).encode()
    with pytest.raises(RequestError, match="input 'size' comes twice"):
        decode_request(again, None, {"size": ("FP64",)})
