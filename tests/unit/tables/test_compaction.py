"""Which files are put together: neighbours, of one contract, and never so that rows change their order."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from holdfast.tables.compaction import TableFile, plan_compaction

FILES = st.lists(
    st.tuples(st.integers(1, 60), st.integers(0, 6), st.sampled_from(["cc", "cc", "cc", "cd", None])),
    max_size=30,
)


def table(drawn: list[tuple[int, int, str | None]]) -> list[TableFile]:
    ordered = sorted(drawn, key=lambda file: file[1])
    return [TableFile(f"f{n}", rows, low, contract) for n, (rows, low, contract) in enumerate(ordered)]


@given(FILES, st.integers(20, 200))
def test_every_group_is_a_run_of_one_contract_and_fits(
    drawn: list[tuple[int, int, str | None]], target: int
) -> None:
    files = table(drawn)
    groups = plan_compaction(files, target_rows=target)
    for group in groups:
        first = files.index(group[0])
        assert tuple(files[first : first + len(group)]) == group
        assert len({file.contract_hash for file in group}) == 1
        assert group[0].contract_hash is not None
        assert sum(file.rows for file in group) <= target
        assert 2 * max(file.rows for file in group) <= sum(file.rows for file in group)
    assert groups == plan_compaction(files, target_rows=target)


@given(FILES, st.integers(20, 200))
def test_reading_order_stays(drawn: list[tuple[int, int, str | None]], target: int) -> None:
    """A new file is newer than all others, and of equal first event times the newer is read later."""
    files = table(drawn)
    groups = plan_compaction(files, target_rows=target)
    grouped = {file.path for group in groups for file in group}
    after = [
        (file.event_time_min_us or 0, 0, n, [file.path])
        for n, file in enumerate(files)
        if file.path not in grouped
    ]
    after += [
        (group[0].event_time_min_us or 0, 1, n, [file.path for file in group])
        for n, group in enumerate(groups)
    ]
    assert [path for *_, paths in sorted(after) for path in paths] == [file.path for file in files]


def test_rows_are_rewritten_rarely_however_often_it_runs() -> None:
    """1,000 loads of 100 rows, compacted after each: the files stay few, and each row is copied a few times."""
    files: list[TableFile] = []
    copied, most = 0, 0
    for number in range(1_000):
        files.append(TableFile(f"f{number}", 100, number, "cc"))
        for group in plan_compaction(files):
            rows = sum(file.rows for file in group)
            at = files.index(group[0])
            files[at : at + len(group)] = [
                TableFile(f"g{number}-{at}", rows, group[0].event_time_min_us, "cc")
            ]
            copied += rows
        most = max(most, len(files))
    assert most <= 12
    assert copied <= 10 * 100_000
