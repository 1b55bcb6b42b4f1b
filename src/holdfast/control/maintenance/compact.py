"""Compaction: small files of a table become one, and every row still belongs to its batch.

Run it at any time, alongside loaders, back-outs and readers. A killed compaction leaves at most files that no row of the ledger
names; the next load, compaction or `holdfast verify` removes them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from holdfast.feeds import quarantine_table
from holdfast.records import Progress
from holdfast.store import Store
from holdfast.store.catalog import compaction
from holdfast.store.durability.failpoints import failpoint
from holdfast.store.files import staging
from holdfast.tables.compaction import TARGET_ROWS, Groups, plan_compaction


@dataclass(frozen=True, slots=True)
class CompactedTable:
    """The result for one table: its files before and after, and how many rows were rewritten."""

    table: str
    files_before: int
    files_after: int
    rows_rewritten: int


def compact(
    store: Store,
    feeds: Sequence[str] | None = None,
    *,
    now_us: int,
    target_rows: int = TARGET_ROWS,
    progress: Progress | None = None,
) -> tuple[CompactedTable, ...]:
    """Merge small neighbouring files in the tables of `feeds` and their quarantine, or in all tables.

    At every table version and in every snapshot the same rows are read in the same order as before. Each table is changed
    in one transaction. Raises `IntegrityError` HF301 for a damaged file; its table is unchanged.

    Parameters
    ----------
    now_us
        Timestamp of the compaction, microseconds since 1970 UTC.
    target_rows
        Maximum number of rows in a new file.
    progress
        Called with (files written, files to write).
    """
    staging.sweep_dead_attempts(store)
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
    """Compact one table. Returns how many files were merged away and how many rows were rewritten."""
    if not groups:
        return 0, 0
    with staging.staged(store.root) as stage:
        with store.ledger.read() as connection:
            sources = [compaction.sources(connection, group) for group in groups]
        written = [compaction.write(stage, table, each) for each in sources]
        stage.sync()
        failpoint("compact.written")
        with store.ledger.write() as connection:
            taken = compaction.publish(connection, store.root, table, written, now_us=now_us)
        failpoint("compact.after_commit")
        stage.discard([each.facts for each in written if each not in taken])
    merged = sum(len({part.path for part in each.parts}) - 1 for each in taken)
    return merged, sum(each.facts.rows for each in taken)
