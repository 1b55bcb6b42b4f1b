"""Cuts: what a set of tables was at one table version.

Every load makes one new table version, which counts across *all* tables: so one number cuts them all at the
same moment, and two feeds that were loaded together are seen together or not at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from holdfast.records import canonical_json, sha256_hex


@dataclass(frozen=True, slots=True)
class TableCut:
    """One table in a snapshot: how many rows in how many files it had."""

    table: str
    rows: int
    files: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Exact versions of every table that a training reads. It never changes, because versions never do.

    `contract_hash` is of the contract that the rows were read for; `created_us` is microseconds since 1970
    UTC.
    """

    snapshot: str
    table_version: int
    contract_hash: str
    created_us: int
    tables: tuple[TableCut, ...]

    @property
    def rows(self) -> int:
        """Rows over all tables."""
        return sum(cut.rows for cut in self.tables)


def snapshot_name(table_version: int, contract_hash: str, tables: Sequence[TableCut]) -> str:
    """The name of a cut: the same cut has the same name, whoever asks for it and however often.

    >>> snapshot_name(7, "ab", [TableCut("flights", 10, 1)])
    's7-c61bc883'
    """
    content = [table_version, contract_hash, [[cut.table, cut.rows, cut.files] for cut in tables]]
    return f"s{table_version}-{sha256_hex(canonical_json(content))[:8]}"
