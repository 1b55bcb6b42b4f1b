"""The compaction: small files of a table become one, and every row goes on saying which batch it came with.

Run it as often as you like, beside loaders, back-outs and readers. A compaction that was killed leaves at most files
that no row of the ledger names, and the next load, compaction or `holdfast verify` sweeps them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from holdfast.feeds import quarantine_table
from holdfast.records import Progress
from holdfast.store import Store
from holdfast.store.catalog import compaction
from holdfast.store.durability.failpoints import failpoint
from holdfast.store.files import staging
from holdfast.store.maintenance import orphans
from holdfast.tables.compaction import TARGET_ROWS, Groups, plan_compaction


@dataclass(frozen=True, slots=True)
class CompactedTable:
    """What became of one table: how many files it has now, and how many of how many rows were put together."""

    table: str
    files_before: int
    files_after: int
    rows_rewritten: int

    def as_dict(self) -> dict[str, Any]:
        """The result as plain JSON."""
        return asdict(self)


def compact(
    store: Store,
    feeds: Sequence[str] | None = None,
    *,
    now_us: int,
    target_rows: int = TARGET_ROWS,
    progress: Progress | None = None,
) -> tuple[CompactedTable, ...]:
    """Put small neighbouring files together, in the tables of `feeds` and their quarantine, or in all tables.

    Parameters
    ----------
    now_us
        The moment, microseconds since 1970 UTC.
    target_rows
        A new file has at most so many rows.
    progress
        Told (files written, files to write).

    At every table version and in every snapshot the same rows are read in the same order as before. Each table is
    changed in one transaction. Raises `IntegrityError` HF301 for a damaged file; its table is then as it was.
    """
    orphans.sweep_dead_attempts(store)
    with store.ledger.read() as connection:
        wanted = compaction.tables(connection) if feeds is None else _tables_of(feeds)
        before = {table: compaction.table_files(connection, table) for table in wanted}
    plans = {table: plan_compaction(found, target_rows=target_rows) for table, found in before.items()}
    to_write, written = sum(len(groups) for groups in plans.values()), 0
    results: list[CompactedTable] = []
    for table, groups in plans.items():
        merged, rows = _table(store, table, groups, now_us)
        written += len(groups)
        if progress is not None:
            progress(written, to_write)
        results.append(CompactedTable(table, len(before[table]), len(before[table]) - merged, rows))
    return tuple(results)


def _tables_of(feeds: Sequence[str]) -> list[str]:
    return [table for feed in feeds for table in (feed, quarantine_table(feed))]


def _table(store: Store, table: str, groups: Groups, now_us: int) -> tuple[int, int]:
    """By how many its files are fewer, and how many rows were written anew."""
    if not groups:
        return 0, 0
    with staging.staged(store.root) as stage:
        written = [compaction.write(store, stage, table, group) for group in groups]
        stage.sync()
        failpoint("compact.written")
        taken = compaction.publish(store, table, written, now_us=now_us)
        stage.discard([each.facts for each in written if each not in taken])
    merged = sum(len({part.path for part in each.parts}) - 1 for each in taken)
    return merged, sum(each.facts.rows for each in taken)
