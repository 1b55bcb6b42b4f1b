"""Receivers of notifications on a real port: each event at least once, in the formats of Slack, PagerDuty and CloudEvents."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from holdfast.control.health.problem_events import ENDS_AFTER_US, EVERY_US, ProblemEvents
from holdfast.control.integrations import notifications
from holdfast.control.integrations.notifications import GIVE_UP_AFTER_US, notify
from holdfast.control.rollout import webhooks
from holdfast.errors import InputError, UnavailableError
from holdfast.records import BatchId, Level, Violation
from holdfast.rollout import Hook
from holdfast.store.db import events
from holdfast.store.feeds import admissions, violations
from tests.support.rollout_world import MODEL, World

if TYPE_CHECKING:
    from tests.support.webhook_server import HookServer

BATCH = BatchId("weather", "2026-09-05")


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World.open(tmp_path / "store")
    world.promote(world.add_version())
    return world


def declare(world: World, hook: Hook) -> Hook:
    webhooks.declare(world.store, MODEL, [hook], now_us=world.tick())
    send(world, hook)
    return hook


def send(world: World, hook: Hook) -> int:
    return notify(world.store, MODEL, hook, clock_us=world.tick)


def refuse(world: World) -> None:
    """A problem begins: a delivery is refused, and two looks see it."""
    found = [Violation("volume", "", Level.CRITICAL, "3 rows & <!channel> came")]
    with world.store.ledger.write() as connection:
        admissions.refuse(connection, BATCH, found, contract_hash="c", now_us=world.tick())
    look(world, 2)


def accept(world: World) -> None:
    """The problem ends: an operator accepts the refusal."""
    with world.store.ledger.write() as connection:
        violations.accept(connection, BATCH, actor="ann", now_us=world.tick())
    look(world, 1 + ENDS_AFTER_US // EVERY_US)


def look(world: World, times: int, *, reporter: ProblemEvents | None = None) -> None:
    reporter = reporter or ProblemEvents()
    for _ in range(times):
        reporter(world.store, MODEL, world.lease, now_us=world.tick(EVERY_US))


def kinds(world: World, prefix: str) -> list[str]:
    with world.store.ledger.read() as connection:
        return [each.kind for each in events.newest(connection) if each.kind.startswith(prefix)]


def test_a_subscriber_gets_each_event_at_least_once_with_its_number(
    world: World, hook_server: HookServer
) -> None:
    pager = Hook("pager", hook_server.start(), on=("canary", "advanced", "rolled_back"))
    webhooks.declare(world.store, MODEL, [pager], now_us=world.tick())
    assert send(world, pager) == 0  # what was is not reported
    world.begin(world.add_version())
    world.champion_responses()
    world.reconcile()
    hook_server.status = 500
    with pytest.raises(UnavailableError, match="status 500"):
        send(world, pager)
    hook_server.status = 200
    assert send(world, pager) == 1
    world.rollback()
    world.probe()
    world.reconcile()
    assert send(world, pager) == 1
    keys = [headers["Idempotency-Key"] for headers, _ in hook_server.taken]
    named = [document["kind"] for document in hook_server.documents()]
    assert named == ["rollout.canary", "rollout.canary", "rollout.rolled_back"]
    assert keys[0] == keys[1] != keys[2]
    assert [str(document["event"]) for document in hook_server.documents()] == keys


def test_pagerduty_gets_a_trigger_and_a_resolve_with_one_key(
    world: World, hook_server: HookServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PAGERDUTY_KEY", "0123456789abcdef0123456789abcdef")
    url = hook_server.start()
    hook_server.status = 202
    hook = declare(world, Hook("duty", url, format="pagerduty", routing_key="${env:PAGERDUTY_KEY}"))
    refuse(world)
    assert send(world, hook) == 1
    accept(world)
    assert send(world, hook) == 1
    trigger, resolve = hook_server.documents()
    assert set(trigger) == {"routing_key", "event_action", "dedup_key", "client", "payload"}
    assert (trigger["event_action"], resolve["event_action"]) == ("trigger", "resolve")
    assert trigger["routing_key"] == resolve["routing_key"] == "0123456789abcdef0123456789abcdef"
    assert trigger["dedup_key"] == resolve["dedup_key"] == "holdfast/m/feed_refusing/weather/2026-09-05"
    payload = trigger["payload"]
    assert (payload["severity"], payload["source"], payload["class"]) == ("error", MODEL, "feed_refusing")
    assert payload["summary"] == "m: batch 2026-09-05 of weather was refused: 3 rows & <!channel> came"
    assert payload["custom_details"]["next"] == "holdfast feeds weather"
    with world.store.ledger.read() as connection:
        stored = "".join(each.explanation for each in events.newest(connection))
    assert "0123456789abcdef" not in stored


def test_slack_gets_a_message_that_mentions_no_channel(
    world: World, hook_server: HookServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLACK_URL", hook_server.start())
    hook_server.body = b"ok"
    hook = declare(world, Hook("ops", "${env:SLACK_URL}", format="slack", on=("feed_refusing", "canary")))
    refuse(world)
    accept(world)
    world.begin(world.add_version())
    world.champion_responses()
    world.reconcile()
    assert send(world, hook) == 3
    begun, ended, canary = (document["text"] for document in hook_server.documents())
    assert begun.splitlines() == [
        "*m*: error: feed refusing",
        "batch 2026-09-05 of weather was refused: 3 rows &amp; &lt;!channel&gt; came",
        "next: holdfast feeds weather",
    ]
    assert ended.startswith("*m*: resolved: feed refusing\nit has ended after ")
    assert canary.startswith("*m*: rollout 2 canary\n")
    shown = [
        {name: value for name, value in each.items() if name != "text"} for each in hook_server.documents()
    ]
    assert shown == [{"unfurl_links": False, "unfurl_media": False}] * 3


def test_cloudevents_have_every_required_attribute(world: World, hook_server: HookServer) -> None:
    hook = declare(world, Hook("sink", hook_server.start(), format="cloudevents", on=("feed_refusing",)))
    refuse(world)
    assert send(world, hook) == 1
    headers, body = hook_server.taken[-1]
    event: dict[str, Any] = json.loads(body)
    assert headers["Content-Type"] == "application/cloudevents+json; charset=utf-8"
    assert (event["specversion"], event["type"]) == ("1.0", "holdfast.problem.found")
    assert (event["source"], event["subject"]) == ("/holdfast/m", "m/feed_refusing/weather/2026-09-05")
    assert event["id"] == headers["Idempotency-Key"]
    assert event["data"]["severity"] == "error"
    assert event["data"]["is_over"] is False


def test_other_problems_and_other_models_are_not_sent(world: World, hook_server: HookServer) -> None:
    hook = declare(world, Hook("drills", hook_server.start(), on=("drill_expired",)))
    refuse(world)
    assert send(world, hook) == 0
    assert notify(world.store, "other", Hook("all", hook.url), clock_us=world.tick) == 0
    assert hook_server.taken == []


def test_rejected_content_is_given_up_once_and_the_next_event_is_sent(
    world: World, hook_server: HookServer
) -> None:
    """One message that a receiver never takes must not hold back all later ones."""
    hook = declare(world, Hook("ops", hook_server.start(), on=("feed_refusing",)))
    refuse(world)
    hook_server.status = 400
    assert send(world, hook) == 1
    assert kinds(world, "hook.") == [notifications.GIVEN_UP]
    hook_server.status = 200
    accept(world)
    assert send(world, hook) == 1
    assert hook_server.documents()[-1]["is_over"] is True


def test_a_receiver_that_is_away_for_a_day_gets_what_is_newer(world: World) -> None:
    hook = declare(world, Hook("ops", "http://127.0.0.1:9/", on=("feed_refusing",), timeout="1s"))
    refuse(world)
    for _ in range(2):
        with pytest.raises(UnavailableError, match="HF601"):
            send(world, hook)
    assert kinds(world, "hook.") == []
    world.tick(GIVE_UP_AFTER_US)
    assert send(world, hook) == 1
    assert kinds(world, "hook.") == [notifications.GIVEN_UP]


def test_a_url_that_is_not_set_sends_nothing_and_loses_nothing(
    world: World, hook_server: HookServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    hook = declare(world, Hook("ops", "${env:OPS_URL}", on=("feed_refusing",)))
    refuse(world)
    with pytest.raises(InputError, match="HF103"):
        send(world, hook)
    monkeypatch.setenv("OPS_URL", "file:///etc/passwd")
    with pytest.raises(InputError, match="no URL"):
        send(world, hook)
    monkeypatch.setenv("OPS_URL", hook_server.start())
    assert send(world, hook) == 1
