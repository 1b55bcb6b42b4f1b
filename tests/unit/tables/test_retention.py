"""What may go, against brute force: no file that a table or a pinned snapshot needs, and every other that is old."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from holdfast.tables.retention import FileLifetime, ReadableSnapshot, plan_vacuum

NOW_US, KEEP_US = 1_000, 300


@st.composite
def stores(draw: st.DrawFn) -> tuple[list[FileLifetime], list[ReadableSnapshot]]:
    """Files of two tables with versions 1 to 12, made at 50 times their number, and snapshots of some of them."""
    files = []
    for number in range(draw(st.integers(0, 12))):
        added = draw(st.integers(1, 11))
        removed = draw(st.one_of(st.none(), st.integers(added + 1, 12)))
        removed_at_us = None if removed is None else 80 * removed
        files.append(
            FileLifetime(f"f{number}", draw(st.sampled_from("ab")), 10, added, removed, removed_at_us)
        )
    cuts = []
    for number in range(draw(st.integers(0, 6))):
        version = draw(st.integers(1, 12))
        tables = draw(st.sampled_from([frozenset("a"), frozenset("ab")]))
        needed = draw(st.sampled_from([(), (), ("v1",)]))
        cuts.append(ReadableSnapshot(f"s{number}", version, 80 * version + number, tables, needed))
    return files, cuts


def _reads(cut: ReadableSnapshot, files: list[FileLifetime]) -> set[str]:
    """What reading the snapshot opens, said again in other words."""
    return {
        file.path
        for file in files
        if file.table in cut.tables
        and cut.table_version in range(file.added_version, file.removed_version or 99)
    }


@given(stores(), st.integers(0, 3))
def test_nothing_that_is_needed_goes_and_everything_else_does(
    store: tuple[list[FileLifetime], list[ReadableSnapshot]], newest: int
) -> None:
    files, cuts = store
    shown = plan_vacuum(files, cuts, now_us=NOW_US, keep_us=KEEP_US, keep_last=newest)
    gone = {file.path for file in shown.files}
    ages = sorted(((cut.created_at_us, cut.table_version, cut.snapshot) for cut in cuts), reverse=True)
    youngest = {name for *_, name in ages[:newest]}
    for cut in cuts:
        must = bool(cut.needed_by) or cut.snapshot in youngest or cut.created_at_us > NOW_US - KEEP_US
        assert (cut.snapshot in shown.pinned) == must
        if must:
            assert not _reads(cut, files) & gone
        assert (cut.snapshot in shown.snapshots) == bool(_reads(cut, files) & gone)
    needed = {path for cut in cuts if cut.snapshot in shown.pinned for path in _reads(cut, files)}
    for file in files:
        young = file.removed_at_us is None or file.removed_at_us > NOW_US - KEEP_US
        assert (file.path in gone) == (not young and file.path not in needed)
    assert shown == plan_vacuum(files[::-1], cuts, now_us=NOW_US, keep_us=KEEP_US, keep_last=newest)
