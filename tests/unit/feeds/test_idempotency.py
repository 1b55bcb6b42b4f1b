"""What a delivery means given what is known: new, the same again, or a contradiction (R3)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.errors import ConflictError, InputError
from holdfast.feeds import AlreadyLoaded, Load, Publish, batch_id, content_digest, decide
from holdfast.records import BatchId

BATCH = BatchId("flights", "d1")


def _load(epoch: int, digest: str, *, live: bool) -> Load:
    return Load(epoch, digest, live, 3, 2, 1, 7)


def test_a_new_id_is_published_as_its_first_epoch() -> None:
    assert decide(BATCH, "aa", []) == Publish(0)


def test_the_same_content_is_there_already() -> None:
    load = _load(0, "aa", live=True)
    assert decide(BATCH, "aa", [load]) == AlreadyLoaded(load)


def test_other_content_under_a_live_id_is_a_conflict_that_reports_what_to_do() -> None:
    with pytest.raises(
        ConflictError,
        match=r"HF203.*flights/d1.*unchanged.*next: .*--batch and another id.* holdfast backout flights d1 ",
    ):
        decide(BATCH, "bb", [_load(0, "aa", live=True)])


def test_the_same_content_under_another_id_is_a_conflict_that_names_it() -> None:
    with pytest.raises(
        ConflictError, match=r"HF203.*batch flights/d0.*flights/d1 was not loaded.*next: none is needed"
    ):
        decide(BATCH, "aa", [], elsewhere="d0")
    load = _load(0, "aa", live=True)
    assert decide(BATCH, "aa", [load]) == AlreadyLoaded(load)


@pytest.mark.parametrize("digest", ["aa", "bb"])
def test_after_a_backout_the_id_is_free_under_a_new_epoch(digest: str) -> None:
    assert decide(BATCH, digest, [_load(0, "aa", live=False), _load(1, "cc", live=False)]) == Publish(2)


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=12))
def test_any_sequence_of_deliveries_leaves_the_first_and_only_the_first(digests: list[str]) -> None:
    loads: list[Load] = []
    for digest in digests:
        try:
            response = decide(BATCH, digest, loads)
        except ConflictError:
            assert digest != loads[0].digest
            continue
        if isinstance(response, Publish):
            loads.append(_load(response.epoch, digest, live=True))
    assert [load.digest for load in loads] == [digests[0]]


@given(st.binary(max_size=200), st.integers(0, 200))
def test_a_digest_does_not_depend_on_how_the_bytes_came(data: bytes, snapshot: int) -> None:
    assert content_digest([data[:snapshot], memoryview(data)[snapshot:]]) == content_digest([data])


@pytest.mark.parametrize("name", ["", "../x", "A", "x/y", "x\n", "\N{GRINNING FACE}", "a" * 64])
def test_an_id_that_could_become_a_path_or_markup_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="HF109"):
        batch_id("flights", name)
