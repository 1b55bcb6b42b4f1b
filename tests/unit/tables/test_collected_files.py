"""Which collected files become one: few files stay of a segment that still grows, and few times is a row rewritten."""

from __future__ import annotations

import random

from holdfast.tables.collected_files import LogFile, plan_merges

STEP = 8


def grown(rounds: int, seed: int) -> tuple[list[LogFile], dict[str, int], int]:
    """Collect a file in each round and merge what is planned: the files, how often each was rewritten, and the most files."""
    chance = random.Random(seed)
    files: list[LogFile] = []
    rewritten: dict[str, int] = {}
    most = 0
    for number in range(rounds):
        files.append(LogFile(f"f{number}", "m", "s1", 1, chance.randint(1, 30)))
        rewritten[f"f{number}"] = 0
        for group in plan_merges(files, {"s1": 1}, target_rows=20_000, open_files=STEP):
            merged = LogFile(f"m{number}-{len(files)}", "m", "s1", 1, sum(each.rows for each in group))
            files = [each for each in files if each not in group] + [merged]
            rewritten[merged.path] = 1 + max(rewritten[each.path] for each in group)
        most = max(most, len(files))
    return files, rewritten, most


def test_a_segment_that_grows_has_few_files_and_rewrites_few_rows() -> None:
    for seed in range(3):
        files, rewritten, most = grown(2_000, seed)
        assert most <= 7 * 5 + 2_000 * 15 / (20_000 / STEP) + STEP, (
            "seven of each of five sizes, and the full ones"
        )
        assert max(rewritten.values()) <= 5
        assert sum(each.rows for each in files) > 0
        (ended,) = plan_merges(files, {"s1": 2}, target_rows=10**9)
        assert {each.path for each in ended} == {each.path for each in files}, "when it ends all become one"


def test_bounds_of_rows_and_files_hold_for_every_group() -> None:
    files = [
        LogFile(f"f{number}", "m", f"s{number % 2}", number % 3, 1 + number % 7) for number in range(600)
    ]
    for group in plan_merges(files, {"s0": 2, "s1": 1}, target_rows=50, most_files=9, open_files=4):
        assert 1 < len(group) <= 9
        assert sum(each.rows for each in group) <= 50
        assert len({(each.server, each.segment) for each in group}) == 1
