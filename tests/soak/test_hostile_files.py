"""A short run of the soak of hostile files, and what it must draw; the long run is a command (P14, B3)."""

from __future__ import annotations

from collections import Counter

from tests.soak import hostile_files
from tests.support.smoke import Smoke


def test_no_hostile_file_ends_the_process_or_passes_the_limit(smoke: Smoke) -> None:
    figures = smoke("tests.soak.hostile_files")
    assert (figures["deaths"], figures["escaped"], figures["limits_passed"]) == (0, 0, 0)
    assert figures["loaded"] > 5
    assert figures["refused"] > 50


def test_every_way_to_make_a_file_is_drawn() -> None:
    drawn = Counter(hostile_files._make_of(1, number)[0] for number in range(10_000))
    assert len(drawn) == len(hostile_files.MAKES)


def test_a_large_file_has_a_child_of_its_own() -> None:
    """What allocators keep of the files before it would count as its memory."""
    large = next(number for number in range(1, 10_000) if hostile_files.is_large(1, number))
    assert hostile_files._end_of_child(0, 10_000, 1) == large
    assert hostile_files._end_of_child(large, 10_000, 1) == large + 1
