"""What may be declared of a hook, and what its answer means."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.errors import InputError
from holdfast.records import PROBLEMS, Verdict
from holdfast.rollout import Canary, Event, Hook
from holdfast.rollout.decision.decisions import Advance, RollBack, Wait
from holdfast.rollout.decision.webhooks import MAX_RESPONSE_BYTES, NOTIFIED, understood, upheld


@pytest.mark.parametrize(
    ("given_", "words"),
    [
        ({"url": "ftp://ops.example/x"}, "http or https"),
        ({"url": "https://user:key@ops.example/"}, "http or https"),
        ({"url": "https://ops.example/#there"}, "http or https"),
        ({"url": "https://ops.example/a b"}, "http or https"),
        ({"url": "file:///etc/passwd"}, "http or https"),
        ({"timeout": "0s"}, "above 0"),
        ({"timeout": "2min"}, "at most 60 s"),
        ({"secret": "hunter2"}, "reference"),
        ({"on": ("rollback",), "veto": True}, "rollback"),
        ({"on": ("pause",), "veto": True}, "pause"),
        ({"on": ("start",)}, "veto=True"),
        ({"on": ("promoted",), "veto": True}, "on no decision"),
        ({"name": "No Name"}, "cannot name"),
        ({"format": "teams"}, "'json' or 'slack'"),
        ({"format": "slack", "veto": True}, "a question is json"),
        ({"format": "pagerduty"}, "routing_key"),
        ({"format": "pagerduty", "routing_key": "0123456789abcdef"}, "routing_key that is a reference"),
        ({"format": "pagerduty", "routing_key": "${env:KEY}", "on": ("promoted",)}, "problems only"),
        ({"routing_key": "${env:KEY}"}, "only the format pagerduty"),
        ({"url": "${SLACK_URL}"}, "http or https"),
    ],
)
def test_what_cannot_mean_what_it_declares_is_refused(given_: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        Hook(**{"name": "freeze", "url": "https://ops.example/x", **given_})


def test_a_rollback_is_never_sent_for_consent() -> None:
    """R117: nothing outside stops a rollback."""
    assert Event.ROLLBACK not in Hook("freeze", "https://ops.example", veto=True).consent_events
    assert "rolled_back" in Hook("pager", "https://ops.example").notified_of
    harmful = RollBack(Verdict.FAIL, "harm")
    assert upheld(harmful, ["hook x: refuses"], Canary(), waited_us=0) is harmful


def test_one_hook_may_consent_and_be_notified() -> None:
    hook = Hook("freeze", "https://ops.example", on=("start", "rolled_back"), veto=True, secret="${env:KEY}")
    assert hook.consent_events == (Event.START,)
    assert hook.notified_of == ("rolled_back",)
    assert Hook.from_json(hook.to_json()) == hook


def test_a_hook_without_names_is_notified_of_everything_that_its_format_takes() -> None:
    url = "${file:/run/secrets/slack}"
    assert set(Hook("all", url, format="slack").notified_of) == set(NOTIFIED)
    pager = Hook("pager", "https://ops.example", format="pagerduty", routing_key="${env:KEY}")
    assert pager.notified_of == tuple(PROBLEMS)
    assert Hook("freeze", "https://ops.example", veto=True).notified_of == ()
    assert Hook.from_json(pager.to_json()) == pager


def test_patience_ends_the_wait_for_a_hook() -> None:
    step = Advance(1, 50_000, "no harm", ())
    policy = Canary(timeout="1h")
    assert isinstance(
        upheld(step, ["hook x: it was not requested yet"], policy, waited_us=3_599_000_000), Wait
    )
    ended = upheld(step, ["hook x: refuses: freeze"], policy, waited_us=3_601_000_000)
    assert isinstance(ended, RollBack)
    assert ended.verdict is Verdict.INCONCLUSIVE
    assert "refuses: freeze; timeout after 1.0 h of 1.0 h" in ended.reason


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (500, b'{"allow": true}', "status 500"),
        (404, b'{"allow": true}', "status 404"),
        (307, b'{"allow": true}', "redirects are not followed"),
        (200, b"yes", "not JSON"),
        (200, b"", "not JSON"),
        (200, b"\xff\xfe", "not JSON"),
        (200, b"[" * 60_000, "not JSON"),
        (200, b"true", '"allow"'),
        (200, b'{"allow": "true"}', '"allow"'),
        (200, b'{"allow": 1}', '"allow"'),
        (200, b'{"Allow": true}', '"allow"'),
        (200, b'{"allow": true}' + b" " * MAX_RESPONSE_BYTES, "longer than"),
    ],
)
def test_nonsense_is_no_consent(status: int, body: bytes, words: str) -> None:
    response = understood(status, body)
    assert response.verdict is Verdict.INCONCLUSIVE
    assert words in response.explanation


@given(st.integers(100, 599), st.binary(max_size=64))
def test_only_a_clear_yes_is_consent(status: int, body: bytes) -> None:
    if understood(status, body).verdict is Verdict.PASS:
        assert 200 <= status < 300
        assert b"true" in body


def test_its_message_is_truncated_and_kept_as_text() -> None:
    assert len(understood(200, b'{"allow": false, "reason": "' + b"x" * 9000 + b'"}').explanation) == 500
    assert understood(201, b'{"allow": true, "reason": 7}').explanation == "it consents"
