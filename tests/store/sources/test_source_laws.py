"""Our feed sources keep the laws of a source, and each law is broken by a source that is made to break it."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

import polars as pl
import pytest

from holdfast.contract import Category, Contract, Integer, Timestamp
from holdfast.errors import InputError
from holdfast.store.sources import Bundle, File, Kind, Source, open_source
from holdfast.testing import Law, source_laws

CONTRACT = Contract(Integer("id"), Category("origin"), Timestamp("at", tz="UTC"), key="id", event_time="at")
CSV = "id,origin,at\n" + "".join(f"{row},JFK,2013-01-01T00:{row:02}:00Z\n" for row in range(20))
OTHER = CSV.replace("JFK", "EWR")


def _csv(path: Path, text: str) -> None:
    path.write_text(text)


def _gzip(path: Path, text: str) -> None:
    path.write_bytes(gzip.compress(text.encode(), mtime=0))


def _parquet(path: Path, text: str) -> None:
    pl.read_csv(text.encode(), try_parse_dates=True).write_parquet(path)


def _lines(path: Path, text: str) -> None:
    path.write_text(pl.read_csv(text.encode()).write_ndjson())


def _directory(path: Path, text: str) -> None:
    header, *rows = text.splitlines(keepends=True)
    path.mkdir()
    for at in range(2):
        (path / f"part-{at}.csv").write_text("".join([header, *rows[at::2]]))


SUFFIXES: dict[str, tuple[str, Callable[[Path, str], None]]] = {
    "csv file": (".csv", _csv),
    "packed csv file": (".csv.gz", _gzip),
    "parquet file": (".parquet", _parquet),
    "json lines file": (".jsonl", _lines),
    "directory": ("", _directory),
}
LAWS = [law.name for law in source_laws("", CONTRACT, lambda _: None, lambda: None, lambda: None)]  # type: ignore[arg-type,return-value]


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("kind", SUFFIXES)
def test_our_sources_keep_every_law(kind: str, law: str, tmp_path: Path) -> None:
    suffix, write = SUFFIXES[kind]
    write(tmp_path / f"delivery{suffix}", CSV)
    write(tmp_path / f"other{suffix}", OTHER)
    _law(
        source_laws(
            kind,
            CONTRACT,
            lambda limit: open_source(tmp_path / f"delivery{suffix}", limit_bytes=limit),
            lambda: open_source(tmp_path / f"other{suffix}"),
            lambda: open_source(tmp_path / f"missing{suffix}"),
        ),
        law,
    )()


def _law(laws: list[Law], name: str) -> Law:
    (law,) = (law for law in laws if law.name == name)
    return law


def _bundle(text: str = CSV, name: str = "planted") -> Bundle:
    return Bundle(name, (File("d.csv", Kind.CSV, text.encode()),), alone=True)


def _open(limit: int) -> Source:
    if limit < len(CSV):
        raise InputError("HF201", "too large")
    return _bundle()


def _missing() -> Source:
    raise InputError("HF201", "it is not there")


@dataclass(frozen=True, slots=True)
class _ReadOnce(Bundle):
    """Its pieces are gone once they are read."""

    def pieces(self) -> Iterator[bytes]:
        yield str(next(COUNT)).encode()


@dataclass(frozen=True, slots=True)
class _Locked(Bundle):
    """Holds what no other process can have."""

    lock: object = None


COUNT = count()
GOOD = (_open, lambda: _bundle(OTHER), _missing)
PLANTED: dict[str, tuple[Callable[[int], Source], Callable[[], Source], Callable[[], Source]]] = {
    "the same delivery has the same digest": (lambda _: _bundle(CSV + " " * next(COUNT)), *GOOD[1:]),
    "another content has another digest": (_open, _bundle, _missing),
    "its pieces can be read again": (lambda _: _ReadOnce("p", _bundle().files, alone=True), *GOOD[1:]),
    "its name holds no secret": (
        lambda _: replace(_bundle(), name="postgresql://ann:hunter2@db/x"), *GOOD[1:],
    ),
    "it has rows, and the same every time": (lambda _: _bundle("id,origin,at\n"), *GOOD[1:]),
    "another process can have it": (
        lambda _: _Locked("p", _bundle().files, alone=True, lock=threading.Lock()), *GOOD[1:],
    ),
    "a delivery beyond the limit is refused": (lambda _: _bundle(), *GOOD[1:]),
    "a delivery that does not exist is refused": (_open, GOOD[1], _bundle),
}  # fmt: skip


def test_every_law_has_a_source_that_breaks_it() -> None:
    assert set(LAWS) == set(PLANTED)
    for law in source_laws("good", CONTRACT, *GOOD):
        law()


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_fault_breaks_its_law(name: str) -> None:
    law = _law(source_laws("planted", CONTRACT, *PLANTED[name]), name)
    with pytest.raises(AssertionError, match=f'planted breaks the law "{name}"'):
        law()
