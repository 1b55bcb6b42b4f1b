"""CSV is parsed without guessing: a truncated line is quarantined, a truncated file is refused."""

from __future__ import annotations

import gzip

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.store.sources.csv_reader import read_csv
from holdfast.store.sources.delivery import TooLargeError, UnreadableError, unpacked
from tests.support.profile import examples

HEAD = b"id,at,v\n"


@pytest.mark.parametrize(
    ("content", "rows", "lines"),
    [
        (HEAD, [], ()),
        (HEAD + b"a,1,2", [("a", "1", "2")], ()),
        (b"\xef\xbb\xbf" + HEAD + b"a,,\r\n\r\n\n", [("a", "", "")], ()),
        (HEAD + b'a,"",""', [("a", "", "")], ()),
        (HEAD + b'a,"x\ny","""z"""\n', [("a", "x\ny", '"z"')], ()),
        (HEAD + b'a,b"c,d"\n', [("a", 'b"c', 'd"')], ()),
        (HEAD + b"a,1\nb,1,2\nc,1,2,3\n", [("b", "1", "2")], ("a,1", "c,1,2,3")),
        (HEAD + b"a,1\n", [], ("a,1",)),
        (b'"i\nd"\n1\n', [("1",)], ()),
        # The last value is one quote, or two.
        (HEAD + b'a,1,""""\n', [("a", "1", '"')], ()),
        (HEAD + b'a,1,""""""', [("a", "1", '""')], ()),
        # A short line is written as the last line ends, which has no line feed.
        (HEAD + b"a,1,2\n1,2\nb,1,2", [("a", "1", "2"), ("b", "1", "2")], ("1,2",)),
        (HEAD + b'a,5" pipe, "x"\nb,"5"" pipe",\n', [("a", '5" pipe', ' "x"'), ("b", '5" pipe', "")], ()),
    ],
)
def test_whole_files_are_taken_apart(
    content: bytes, rows: list[tuple[str, ...]], lines: tuple[str, ...]
) -> None:
    found = read_csv(content)
    assert (found.frame.rows(), found.lines) == (rows, lines)
    assert set(found.frame.dtypes) == {pl.String}


@pytest.mark.parametrize("before", range(1, 9))
def test_a_value_across_blocks_is_read_whole(before: int) -> None:
    value = "z" * before + "\r\nB" + "\ufeff" * 40
    written = HEAD + f'x,1,"{value}"\n\ufeffy,{value[-40:]},2\n'.encode()
    assert read_csv(written, block_bytes=8).frame.rows() == [("x", "1", value), ("\ufeffy", value[-40:], "2")]


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_a_declared_separator_separates_alone(separator: str) -> None:
    others = "".join({",", ";", "\t", "|"} - {separator})
    rows = [("a", others, f"{separator}x"), ("b", "", "")]
    written = pl.DataFrame(rows, schema=["id", "at", "v"], orient="row").write_csv(separator=separator)
    assert read_csv(written.encode(), separator).frame.rows() == rows


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "empty"),
        (b"\n", "empty"),
        (HEAD + b"a,1,2\nb,1", "truncated in transit"),
        (HEAD + b'a,1,2\nb,"1,2\nc,1,2\n', "truncated in transit"),
        (HEAD + b'a,1,2\nb,1,"2\nc,1,2\n', "truncated in transit"),
        (HEAD + b'a,1,"', "truncated in transit"),
        (HEAD + b'a,1,"2\nb,1,"2"\n', "line 2: where the value ends"),
        (HEAD + b'a,1,2\nb,1,"5" pipe"\n', "line 3: where the value ends"),
        (HEAD + b'a,1,"Anna "Bob" C"\n', "not doubled"),
        (HEAD + b'a,1,"Anna \\"Bob\\" C"\n', "not doubled"),
        (HEAD + b"a,1,\xff\n", "is not UTF-8"),
        (HEAD + b"a,\xff\n", "is not UTF-8"),
        (b"id,at,id\n", "twice in its header: id"),
    ],
)
def test_a_file_that_was_truncated_or_is_no_csv_is_refused(content: bytes, why: str) -> None:
    with pytest.raises(UnreadableError, match=why):
        read_csv(content)


TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\r\0"), min_size=0, max_size=6)


@examples(60)
@given(st.lists(st.tuples(TEXTS, TEXTS, TEXTS), min_size=1, max_size=8), st.data())
def test_what_was_written_is_read_and_no_truncated_makes_up_a_value(
    rows: list[tuple[str, str, str]], data: st.DataObject
) -> None:
    written = (
        pl.DataFrame(rows, schema=["id", "at", "v"], orient="row").write_csv(quote_style="always").encode()
    )
    assert read_csv(written).frame.rows() == rows
    snapshot = data.draw(st.integers(len(b'"id","at","v"\n'), len(written)))
    try:
        found = read_csv(written[:snapshot])
    except UnreadableError:
        return
    read = found.frame.rows()
    assert read[:-1] == rows[: max(len(read) - 1, 0)]
    # Of the last value of all it cannot be reported whether it is whole; every other one is.
    assert not read or read[-1][:2] == rows[len(read) - 1][:2]


@pytest.mark.parametrize(
    "packed",
    [
        gzip.compress(HEAD, mtime=0) + gzip.compress(b"a,1,2\n", mtime=0),
        pa.compress(HEAD + b"a,1,2\n", codec="zstd", asbytes=True),
        HEAD + b"a,1,2\n",
    ],
)
def test_packed_files_are_unpacked_up_to_a_limit(packed: bytes) -> None:
    assert unpacked(packed, 1000) == HEAD + b"a,1,2\n"
    with pytest.raises(TooLargeError):
        unpacked(gzip.compress(bytes(1 << 20)), 1 << 19)


@pytest.mark.parametrize("packed", [gzip.compress(HEAD, mtime=0)[:-6], b"\x1f\x8bno"])
def test_a_packed_file_that_was_truncated_is_refused(packed: bytes) -> None:
    with pytest.raises(OSError, match=r"inflate|incorrect|Truncated"):
        unpacked(packed, 1000)
