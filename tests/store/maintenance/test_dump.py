"""The lines of a backup's ledger: the bytes of Python's `json`, in pieces that fit into memory (P18)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import insert

from holdfast.store import Store
from holdfast.store.db import schema
from holdfast.store.maintenance import backup
from tests.support.profile import examples

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
ROWS = st.lists(
    st.tuples(TEXT, st.none() | st.integers(-(2**63), 2**63 - 1) | TEXT, st.none() | st.floats()), max_size=4
)


@examples(300)
@given(ROWS)
def test_lines_are_those_of_json_whatever_writes_them(rows: list[tuple[object, ...]]) -> None:
    """A backup of an earlier release is compared with lines that this one writes."""
    expected = [json.dumps(row, ensure_ascii=False, separators=(",", ":")) for row in rows]
    assert backup.encode_lines(rows, [2]).decode() == "".join(f"{line}\n" for line in expected)


@pytest.mark.parametrize("value", [1e-4, 9.99e-5, 1e15, 1e16, -1e22, 5e-324, -0.0, 1 / 3])
def test_fractions_are_written_as_python_does(value: float) -> None:
    assert backup.encode_lines([("t", value)], [1]).decode() == f'["t",{value!r}]\n'


def test_a_ledger_is_written_and_loaded_piece_by_piece(tmp_path: Path) -> None:
    """5,000 labels: no piece has more than 2,000 rows, and the copy has the digest of the original."""
    store = Store.open(tmp_path / "store")
    named = [f"s1-1-{number}/0" for number in range(5_000)]
    with store.ledger.write() as connection:
        facts = {"value": 1e-05, "source": "a\nb", "received_at_us": 1, "joined": 0}
        connection.execute(insert(schema.labels), [{"prediction_id": name, **facts} for name in named])
    with store.ledger.read() as connection:
        pieces = list(backup.dump(connection))
        digest, count = backup.write_dump(connection, tmp_path / "dump")
        assert digest == backup.ledger_digest(connection)
    assert max(piece.count(b"\n") for piece in pieces) == 2_000
    assert (tmp_path / "dump").read_bytes() == b"".join(pieces)
    copy = Store.open(tmp_path / "copy", recovering=True)
    with copy.ledger.write() as connection:
        assert backup.fill(connection, backup.read_dump(tmp_path / "dump")) == count
    with copy.ledger.read() as connection:
        assert backup.ledger_digest(connection) == digest
