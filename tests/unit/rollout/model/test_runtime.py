"""What a server is, as a document with an id (R119)."""

from __future__ import annotations

import pytest

from holdfast.errors import InputError
from holdfast.rollout.model.runtime import Runtime, furthest
from holdfast.store.models import runtimes


def test_equal_facts_have_one_id_and_come_back_from_their_document() -> None:
    made = Runtime({"numpy": "2.4.0", "build": "blue"})
    assert made.id == Runtime.from_json(made.to_json()).id
    assert made.id.startswith("b-")
    assert len(made.id) == 14
    assert made.id != Runtime({"numpy": "2.4.0", "build": "green"}).id


@pytest.mark.parametrize("document", ["", "[]", "{}", '{"numpy": 2}', '{"numpy": "' + "9" * 201 + '"}'])
def test_what_reports_no_facts_is_refused(document: str) -> None:
    with pytest.raises(InputError, match="HF108"):
        Runtime.from_json(document)


def test_responses_that_are_fewer_or_no_numbers_are_infinitely_far_away() -> None:
    assert furthest([], []) == 0.0
    assert furthest([0.1], []) == float("inf")
    assert furthest([0.1, 0.2], [0.1, float("nan")]) == float("inf")


def test_this_process_reports_its_releases_and_its_builds_name() -> None:
    found = runtimes.here("blue")
    assert {*runtimes.MADE_OF, "python", "machine", "libc", "build"} == set(found.facts)
    assert found.facts["build"] == "blue"
    assert found.difference(runtimes.here("green")) == "build blue -> green"
