"""A short race of four processes for the same ids, and what the checker of histories sees (R2, P4)."""

from __future__ import annotations

from pathlib import Path

import pytest

from holdfast.control.ingest.ingest import ingest
from holdfast.store import Store
from tests.soak.delivery_history import check, deliver
from tests.soak.fork_server import FEED
from tests.support.smoke import Smoke

pytestmark = pytest.mark.crash


def test_four_processes_race_for_ten_ids(smoke: Smoke) -> None:
    """Each id is loaded once; the full race of 40 is `python -m tests.soak.load_race`."""
    outcome = smoke("tests.soak.load_race")
    assert outcome["broken"] == []
    assert outcome["duplicates"] == 0
    assert outcome["answers"]["loaded"] == 10


def test_the_checker_sees_what_it_is_for(tmp_path: Path) -> None:
    """Lost, twice, torn and never sent: each is seen when the answers, or the deliveries, are changed to show it."""
    store = Store.open(tmp_path / "store")
    sent = [deliver(tmp_path, number) for number in range(3)]
    responses = []
    for each in sent[:2]:
        responses.append(
            f"ACK {each.batch} {each.content} {ingest(store, FEED, each.batch, each.path, now_us=1).state}"
        )
    assert not check(store, sent, responses)
    assert check(store, sent, [*responses, f"ACK {sent[2].batch} {sent[2].content} loaded"]).lost
    assert check(store, sent, [*responses, responses[0]]).twice
    assert check(store, [*sent, type(sent[0])("b9", "b9-first", sent[0].path, 1010)], responses).torn
    assert check(store, sent[1:], responses).wrong
    assert check(store, sent, [*responses, "HF901 b1 b1-first broken"]).wrong
