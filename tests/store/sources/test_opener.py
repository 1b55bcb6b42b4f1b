"""Deliveries of files: one, a directory, a prefix of an object store; whole or refused (R1, R17, R18)."""

from __future__ import annotations

import gzip
import os
import pickle
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from holdfast.contract import Category, Contract, Integer, Number, Timestamp
from holdfast.contract.batch.compiler import compile_batch
from holdfast.errors import HoldfastError, InputError, UnavailableError
from holdfast.feeds import content_digest
from holdfast.store.durability import failpoints
from holdfast.store.sources import Bundle, deliveries, object_store, open_source, parse

CONTRACT = Contract(
    Integer("id"),
    Number("v", unit="km", missing="keep"),
    Category("w", missing="keep"),
    Timestamp("at", tz="UTC"),
    key="id",
    event_time="at",
)
AT = '"2013-01-01T00:00:00Z"'
FIRST = b"id,v,w,at\n1,1.5,a,2013-01-01T00:00:00Z\n"
SECOND = b"id,v,w,at\n2,2.5,b,2013-01-02T00:00:00Z\n"


@pytest.fixture(autouse=True)
def _disarmed() -> Iterator[None]:
    yield
    failpoints.armed = None


def _at(point: str, act: Callable[[], object]) -> None:
    def hook(name: str) -> None:
        if name == point:
            failpoints.armed = None
            act()

    failpoints.armed = hook


@pytest.fixture
def delivered(tmp_path: Path) -> Path:
    directory = tmp_path / "in"
    (directory / "later").mkdir(parents=True)
    (directory / "a.csv").write_bytes(FIRST)
    (directory / "later" / "b.csv.gz").write_bytes(gzip.compress(SECOND))
    return directory


# --- JSON lines -------------------------------------------------------------------------------------------------------


def _json(tmp_path: Path, *lines: bytes) -> Path:
    path = tmp_path / "day.jsonl"
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return path


def _line(**values: str) -> bytes:
    found = {"id": "1", "v": "1.5", "w": '"a"', "at": AT} | values
    return ("{" + ", ".join(f'"{name}": {value}' for name, value in found.items()) + "}").encode()


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({}, None),
        ({"v": "null"}, None),
        ({"v": "-0"}, None),
        ({"v": "9007199254740992"}, None),
        ({"v": "9007199254740993"}, "v|not_exact"),
        ({"id": "9007199254740993"}, "id|not_exact"),
        ({"id": "1" + "0" * 30}, "id|not_exact"),
        ({"id": "1.0"}, "id|type"),
        ({"id": '"1"'}, "id|type"),
        ({"v": "1e999"}, "v|not_finite"),
        ({"v": "1" + "0" * 400}, "v|not_finite"),
        ({"v": "true"}, "v|type"),
        ({"v": "[1]"}, "v|type"),
        ({"v": '{"x": {"x": 1}}'}, "v|type"),
        ({"w": "1"}, "w|type"),
        ({"w": '"\\ud800"'}, "w|not_unicode"),
        ({"w": '"\\u0000\U0001f6eb"'}, None),
        ({"at": '"2013-01-01T00:00:00"'}, "at|zone"),
        ({"at": "1357000000"}, "at|type"),
        ({"at": '"\\ud800"'}, "at|type"),
        ({"v": "1, " + '"v": 2'}, "v|repeated"),
        ({"v": "NaN"}, "_line|json"),
        ({"v": "-Infinity"}, "_line|json"),
        ({"v": "1" * 5000}, "_line|json"),
        ({"v": "[" * 100_000}, "_line|json"),
        ({"v": "'1'"}, "_line|json"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_value_of_json_is_taken_as_it_is_or_its_row_is_at_fault(
    tmp_path: Path, values: dict[str, str], reason: str | None
) -> None:
    path = _json(tmp_path, _line(id="7", at='"2013-01-01T01:00:00+01:00"'), _line(**values))
    verdict = compile_batch(CONTRACT)(parse(open_source(path), CONTRACT))
    assert verdict.counts == ({} if reason is None else {reason: 1})
    assert verdict.valid.height == (2 if reason is None else 1)


@pytest.mark.parametrize(
    "line", [b"[1]", b"7", b"{", b'"x"', b'{"id": 1} {"id": 2}', b'{"w": "\xff"}', b"\xef\xbb\xbf{}"]
)
def test_a_line_that_is_no_object_is_quarantined_whole(tmp_path: Path, line: bytes) -> None:
    verdict = compile_batch(CONTRACT)(
        parse(open_source(_json(tmp_path, _line(), line, b"", _line(id="2"))), CONTRACT)
    )
    assert (verdict.valid.height, verdict.counts) == (2, {"_line|json": 1})
    assert verdict.quarantined["_line"].to_list() == [line.decode("utf-8", "backslashreplace")]


def test_names_that_are_not_the_contracts_stop_the_load(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"HF202.*not in the contract: extra"):
        parse(open_source(_json(tmp_path, _line(), _line(extra="1"))), CONTRACT)
    with pytest.raises(InputError, match=r"HF202.*missing: w"):
        parse(open_source(_json(tmp_path, b'{"id": 1, "v": 1, "at": ' + AT.encode() + b"}")), CONTRACT)


def test_json_that_was_truncated_is_refused(tmp_path: Path) -> None:
    path = _json(tmp_path, _line(), _line(id="2"))
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(InputError, match=r"HF201.*truncated in transit"):
        parse(open_source(path), CONTRACT)


# --- directories ------------------------------------------------------------------------------------------------------


def test_files_below_a_directory_are_one_delivery(delivered: Path) -> None:
    for name in ("_SUCCESS", ".hidden.csv", "a.csv.crc~", "a.csv.count"):
        (delivered / name).write_text("x")
    for spec in (delivered, str(delivered), delivered.as_uri(), f"{delivered}/**/*.csv*"):
        source = open_source(spec)
        assert isinstance(source, Bundle)
        assert [file.name for file in source.files] == ["a.csv", "later/b.csv.gz"]
        typed = parse(pickle.loads(pickle.dumps(source)), CONTRACT)
        assert typed.frame["id"].to_list() == [1, 2]
    assert deliveries(str(delivered)) == (str(delivered / "a.csv"), str(delivered / "later" / "b.csv.gz"))
    digest = content_digest(open_source(delivered).pieces())
    (delivered / "a.csv").rename(delivered / "c.csv")
    assert content_digest(open_source(delivered).pieces()) != digest


def test_parquet_files_may_differ_in_width_and_bring_units(tmp_path: Path) -> None:
    at = pa.array([0], pa.timestamp("us", "UTC"))
    for name, kind, unit, value in (("a", pa.int32(), None, 5), ("b", pa.float64(), b"m", 5000.0)):
        field = pa.field("v", kind, metadata=None if unit is None else {b"unit": unit})
        schema = pa.schema(
            [pa.field("id", pa.int64()), field, pa.field("w", pa.string()), pa.field("at", at.type)]
        )
        table = pa.Table.from_arrays(
            [pa.array([ord(name)]), pa.array([value], kind), pa.array(["x"]), at], schema=schema
        )
        pq.write_table(table, tmp_path / f"{name}.parquet")
    verdict = compile_batch(CONTRACT)(parse(open_source(tmp_path), CONTRACT))
    assert (verdict.counts, verdict.valid["v"].to_list()) == ({}, [5.0, 5.0])


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("b.jsonl", b"{}", "several kinds: CSV .*, JSON lines"),
        ("b.csv.part", b"x", "still being written"),
        ("b.csv", b"", "b.csv is empty"),
        ("b.doc", b"x", "neither Parquet nor CSV"),
    ],
)
def test_a_directory_that_cannot_be_one_delivery_is_refused(
    delivered: Path, name: str, content: bytes, why: str
) -> None:
    (delivered / name).write_bytes(content)
    with pytest.raises(InputError, match=f"HF201.*{why}"):
        open_source(delivered)


@pytest.mark.parametrize("kind", ["a pipe", "a socket", "a link to no file", "a link to a directory"])
def test_what_is_no_file_is_named_and_its_rows_are_not_lost_in_silence(kind: str, delivered: Path) -> None:
    """B15."""
    place = delivered / "z.csv"
    (delivered.parent / "elsewhere").mkdir()
    match kind:
        case "a pipe":
            os.mkfifo(place)
        case "a socket":
            held = socket.socket(socket.AF_UNIX)
            held.bind(os.path.relpath(place))
            held.close()
        case "a link to no file":
            place.symlink_to("nowhere.csv")
        case _:
            place.symlink_to(delivered.parent / "elsewhere")
    for spec in (delivered, f"{delivered}/*.csv")[: 1 if kind.endswith("directory") else 2]:
        with pytest.raises(InputError, match=f"HF201.*holds z.csv, which is {kind}"):
            open_source(spec)
        with pytest.raises(InputError, match=f"HF201.*holds z.csv, which is {kind}"):
            deliveries(str(spec))
    place.rename(delivered / ".z.csv")
    assert open_source(delivered)


@pytest.mark.parametrize("change", ["grows", "is added", "is replaced", "goes"])
def test_a_directory_that_changes_while_it_is_read_is_refused(delivered: Path, change: str) -> None:
    def act() -> None:
        if change == "grows":
            (delivered / "a.csv").write_bytes(FIRST + b"3,1,a,2013-01-01T00:00:00Z\n")
        elif change == "goes":
            (delivered / "a.csv").unlink()
        else:
            (delivered / "new").write_bytes(FIRST)
            (delivered / "new").rename(delivered / ("new.csv" if change == "is added" else "a.csv"))

    _at("source.read", act)
    with pytest.raises(InputError, match=r"HF201.*changed while it was read"):
        open_source(delivered)


def test_what_is_larger_than_the_limit_is_refused(tmp_path: Path) -> None:
    bomb = tmp_path / "bomb.csv.gz"
    bomb.write_bytes(gzip.compress(b"id,v,w,at\n" + b"0" * (1 << 22)))
    with pytest.raises(InputError, match=r"HF201.*more than 1,000,000 bytes.*HOLDFAST_SOURCE_BYTES"):
        parse(open_source(bomb, limit_bytes=1_000_000), CONTRACT)
    with pytest.raises(InputError, match=r"HF201.*more than 1,000 bytes"):
        open_source(bomb, limit_bytes=1_000)
    same = tmp_path / "same.parquet"
    pl.DataFrame({"id": pl.repeat(1, 3_000_000, eager=True)}).write_parquet(same, compression="zstd")
    with pytest.raises(InputError, match=r"HF201.*more than 1,000,000 bytes"):
        parse(open_source(same, limit_bytes=1_000_000), CONTRACT)


@pytest.mark.parametrize(
    "spec", ["/dev/null", "/nowhere/x.csv", "/nowhere/*.csv", "s4://x/y", "file://host/x"]
)
def test_what_is_no_source_is_refused(spec: str) -> None:
    with pytest.raises(InputError, match="HF201"):
        open_source(spec)


def test_a_file_that_never_ends_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(HoldfastError, match=r"HF209.*within 0.5 seconds"):
        open_source(tmp_path / "pipe.csv", deadline_seconds=0.5)


# --- an object store --------------------------------------------------------------------------------------------------


@pytest.mark.process
def test_a_prefix_is_one_delivery_or_many(bucket: Callable[[str, bytes], object]) -> None:
    bucket("one/a.csv", FIRST)
    bucket("one/later/b.csv", SECOND)
    bucket("one/_SUCCESS", b"x")
    bucket("one-more/c.csv", SECOND)
    source = open_source("s3://deliveries/one/")
    assert isinstance(source, Bundle)
    assert [file.name for file in source.files] == ["a.csv", "later/b.csv"]
    assert parse(source, CONTRACT).frame["id"].to_list() == [1, 2]
    assert deliveries("s3://deliveries/one/") == (
        "s3://deliveries/one/a.csv",
        "s3://deliveries/one/later/b.csv",
    )
    alone = open_source("s3://deliveries/one/a.csv")
    assert (alone.name, list(alone.pieces())) == ("s3://deliveries/one/a.csv", [FIRST])
    for spec in ("s3://deliveries/none/", "s3://deliveries/one/none.csv", "s3://nobucket/x/"):
        with pytest.raises(InputError, match="HF201"):
            open_source(spec)


@pytest.mark.process
def test_patterns_match_objects_as_they_match_files(
    bucket: Callable[[str, bytes], object], tmp_path: Path
) -> None:
    names = (
        "part-1.csv",
        "part-2.csv",
        "part-10.csv",
        ".part-3.csv",
        "_part-4.csv",
        "other.csv",
        "a/part-5.csv",
        "a/b/part-6.csv",
        "part-7.csv.tmp",
    )
    for name in names:
        bucket(f"lake/{name}", FIRST)
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(FIRST)
    for pattern in (
        "part-*.csv",
        "part-[12].csv",
        "*",
        "*.csv",
        "*/part-*",
        "**/part-*.csv",
        "a/**",
        "**/*.csv",
    ):
        local = deliveries(str(tmp_path / pattern))
        assert deliveries(f"s3://deliveries/lake/{pattern}") == tuple(
            f"s3://deliveries/lake/{Path(each).relative_to(tmp_path)}" for each in local
        ), pattern
    source, same = open_source("s3://deliveries/lake/part-*.csv"), open_source(str(tmp_path / "part-*.csv"))
    assert isinstance(source, Bundle)
    assert isinstance(same, Bundle)
    assert [file.name for file in source.files] == [file.name for file in same.files]
    bucket("lake/part-[1].csv", SECOND)  # a name that is itself a pattern
    for exact in ("s3://deliveries/lake/part-[1].csv", "s3://deliveries/lake/part-%5B1].csv"):
        found = open_source(exact)
        assert isinstance(found, Bundle)
        assert list(found.pieces()) == [SECOND]
    assert "s3://deliveries/lake/part-%5B1].csv" in deliveries("s3://deliveries/lake/part-*.csv")
    bucket("lake/[2]/a.csv", SECOND)
    assert deliveries("s3://deliveries/lake/[2]/") == ("s3://deliveries/lake/%5B2]/a.csv",)
    for missing in ("s3://deliveries/lake/none-*.csv", "s3://nobucket/*.csv"):
        for reading in (open_source, deliveries):
            with pytest.raises(InputError, match=r"HF201.*does not exist"):
                reading(missing)


@pytest.mark.process
def test_a_pattern_lists_a_bounded_number_of_objects(
    bucket: Callable[[str, bytes], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(4):
        bucket(f"many/day-{number}.csv", FIRST)
    monkeypatch.setattr(object_store, "MOST_LISTED", 3)
    with pytest.raises(InputError, match=r"HF201.*more than 3 names"):
        deliveries("s3://deliveries/many/day-*.csv")


@pytest.mark.process
def test_an_object_that_is_replaced_while_it_is_read_is_refused(
    bucket: Callable[[str, bytes], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket("two/a.csv", FIRST)
    _at("source.read", lambda: bucket("two/a.csv", SECOND))
    with pytest.raises(InputError, match=r"HF201.*s3://deliveries/two/ changed while it was read"):
        open_source("s3://deliveries/two/")
    _at("source.read", lambda: bucket("two/b.csv", SECOND))
    with pytest.raises(InputError, match=r"HF201.*changed while it was read"):
        open_source("s3://deliveries/two/")
    listed = object_store._below  # what comes between the listing and the reading

    def replaced(store: object, prefix: str) -> object:
        found = listed(store, prefix)
        bucket("two/a.csv", SECOND + b"\n")
        return found

    monkeypatch.setattr(object_store, "_below", replaced)
    with pytest.raises(InputError, match=r"HF201.*changed while it was read"):
        open_source("s3://deliveries/two/")


@pytest.mark.process
def test_a_store_that_cannot_be_reached_is_reported(bucket: object, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()  # takes connections and reports nothing
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(UnavailableError, match=r"HF209.*within 2 seconds") as refused:
            open_source("s3://deliveries/one/", deadline_seconds=2)
    assert "s3cr3t" not in str(refused.value)
