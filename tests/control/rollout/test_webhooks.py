"""Hooks on a real port: a step waits for their consent, a rollback does not, and everything is notified once or more."""

from __future__ import annotations

import hashlib
import hmac
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from holdfast.control.integrations import exporter
from holdfast.control.reports.status import StatusReader
from holdfast.control.rollout import webhooks
from holdfast.rollout import Hook
from holdfast.store.db import event_chain, events
from holdfast.store.rollout import webhooks as kept
from tests.support import rollout_world

if TYPE_CHECKING:
    from tests.support.webhook_server import HookServer

MODEL = "m"


@pytest.fixture
def server(hook_server: HookServer) -> HookServer:
    return hook_server


@pytest.fixture
def world(tmp_path: Path):
    made = rollout_world.World.open(tmp_path / "store")
    made.promote(made.add_version())
    return made


def veto(world, url: str, **given) -> Hook:
    hook = Hook("freeze", url, veto=True, **({"timeout": "2s"} | given))
    webhooks.declare(world.store, MODEL, [hook], now_us=world.tick())
    return hook


def ask(world) -> int:
    return webhooks.ask(world.store, MODEL, clock_us=world.tick)


def reported(world, kind: str) -> list[str]:
    with world.store.ledger.read() as connection:
        return [row.explanation for row in events.newest(connection, kind=kind)]


def begin(world) -> str:
    version = world.add_version()
    world.begin(version)
    world.champion_responses()
    return version


def test_a_step_waits_for_consent_and_goes_on_with_it(world, server: HookServer) -> None:
    veto(world, server.start(), on=("start", "advance"))
    begin(world)
    assert world.reconcile() == []
    assert world.row().state == "pending"
    assert ask(world) == 1
    assert world.reconcile() == ["Start"]
    world.traffic()
    assert world.reconcile() == []
    assert ask(world) == 1
    assert world.reconcile() == ["Advance"]
    first, second = server.documents()
    assert (first["decision"], first["step"], first["share_ppm"]) == ("start", 0, 100_000)
    assert (second["decision"], second["step"], second["share_ppm"]) == ("advance", 1, 500_000)
    assert {metric["metric"] for metric in second["metrics"]} == {"errors", "latency", "quality"}
    assert second["reason"].startswith("no harm at 10 %")
    assert ask(world) == 0
    assert len(reported(world, "hook.consented")) == 2


def test_a_veto_holds_the_step_and_is_sent_again_after_half_a_minute(world, server: HookServer) -> None:
    veto(world, server.start(), on=("start",))
    server.reports(False, "freeze until Monday <b>")
    begin(world)
    world.reconcile()
    ask(world)
    assert world.reconcile() == []
    assert ask(world) == 0
    (waiting,) = StatusReader(world.store, MODEL).read(now_us=world.now_us).waiting_webhooks
    assert waiting == "freeze, called before start: freeze until Monday <b>"
    world.tick(31_000_000)
    assert ask(world) == 1
    assert len(reported(world, "hook.refused")) == 1  # the same answer is no news
    server.reports(True, "Monday")
    world.tick(31_000_000)
    ask(world)
    assert world.reconcile() == ["Start"]


def test_patience_ends_a_rollout_that_a_hook_holds(world, server: HookServer) -> None:
    veto(world, server.start(), on=("start",))
    server.reports(False, "freeze")
    begin(world)
    world.reconcile()
    ask(world)
    world.tick(3_700_000_000)
    assert world.reconcile() == ["RollBack"]
    assert world.row().state == "cancelled"
    assert "hook freeze: refuses: freeze; timeout" in world.row().reason


def test_patience_with_a_hook_begins_with_its_first_question(world, server: HookServer) -> None:
    """A step that was long in getting ready, by its evidence or for want of a loop, asks its hooks all the same."""
    veto(world, server.start(), on=("start",))
    begin(world)
    world.tick(3_700_000_000)
    world.champion_responses()
    assert world.reconcile() == []
    world.tick(3_700_000_000)
    world.champion_responses()
    assert world.reconcile() == [], "it was not requested yet"
    server.reports(False, "freeze")
    assert ask(world) == 1
    world.tick(31_000_000)
    assert world.reconcile() == []
    assert ask(world) == 1
    first, second = server.documents()
    assert first["at_us"] <= second["at_us"]
    assert first["since_us"] == second["since_us"]
    world.tick(31_000_000)
    server.reports(True, "now")
    assert ask(world) == 1
    assert world.reconcile() == ["Start"]


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ({"pause_seconds": 30.0}, "no response within 2 s"),
        ({"trickles": True, "body": b" " * 600}, "no response within 2 s"),
        ({"status": 503}, "status 503"),
        (
            {"status": 302, "headers": {"Location": "http://127.0.0.1:1/elsewhere"}},
            "redirects are not followed",
        ),
        ({"body": b"<html>all is well</html>"}, "not JSON"),
        ({"body": b'{"allow": "yes"}'}, '"allow"'),
        ({"body": b'{"allow": true, "x": "' + b"x" * 70_000 + b'"}'}, "longer than"),
    ],
)
def test_no_response_is_no_consent(world, server: HookServer, bad: dict[str, object], words: str) -> None:
    """R126: what is not known is inconclusive, and waits."""
    veto(world, server.start(), on=("start",))
    for name, value in bad.items():
        setattr(server, name, value)
    begin(world)
    world.reconcile()
    began = time.monotonic()
    assert ask(world) == 1
    assert time.monotonic() - began < 25.0  # of the 30 that it hangs, and the 60 that it trickles
    assert world.reconcile() == []
    (silent,) = reported(world, "hook.silent")
    assert words in silent
    server.pause_seconds, server.trickles, server.status, server.headers = 0.0, False, 200, {}
    server.reports(True, "")
    world.tick(2_000_000)
    assert ask(world) == 1
    assert world.reconcile() == ["Start"]
    assert len(server.taken) == 2


def test_a_hook_that_is_not_there_is_no_consent(world) -> None:
    veto(world, "http://127.0.0.1:9/hook", on=("start",))
    begin(world)
    world.reconcile()
    ask(world)
    assert world.reconcile() == []
    assert reported(world, "hook.silent")


def test_silence_is_retried_with_longer_and_longer_pauses(world, server: HookServer) -> None:
    veto(world, server.start(), on=("start",))
    server.status = 500
    begin(world)
    world.reconcile()
    for _ in range(120):
        webhooks.ask(world.store, MODEL, clock_us=world.tick)
    assert 5 <= len(server.taken) <= 9


def test_a_rollback_waits_for_no_hook(world, server: HookServer) -> None:
    """R117: harm sends the challenger back while a hook that vetoes everything hangs."""
    veto(world, server.start(), on=("advance", "complete", "confirm"))
    server.reports(False, "never")
    server.pause_seconds = 30.0
    begin(world)
    assert world.reconcile() == ["Start"]
    world.traffic(failing=25)
    began = time.monotonic()
    assert world.reconcile() == ["RollBack"]
    world.probe()
    assert world.reconcile() == ["Confirm"]
    assert world.row().state == "rolled_back"
    assert time.monotonic() - began < 25.0
    assert server.taken == []


def test_a_person_takes_back_what_a_hook_holds(world, server: HookServer) -> None:
    veto(world, server.start())
    server.reports(False, "never")
    begin(world)
    world.reconcile()
    world.rollback()
    assert world.row().state == "cancelled"
    assert ask(world) == 0


def test_a_question_that_no_step_waits_for_is_sent_no_more(world, server: HookServer) -> None:
    veto(world, server.start(), on=("advance",))
    server.reports(False, "never")
    begin(world)
    world.reconcile()
    world.traffic()
    world.reconcile()
    assert ask(world) == 1
    world.traffic(failing=25)
    assert world.reconcile() == ["RollBack"]
    world.tick(60_000_000)
    assert ask(world) == 0
    assert StatusReader(world.store, MODEL).read(now_us=world.now_us).waiting_webhooks == ()


def test_a_consent_does_not_hold_for_ever(world, server: HookServer) -> None:
    veto(world, server.start(), on=("start",))
    begin(world)
    world.reconcile()
    ask(world)
    world.tick(301_000_000)
    assert world.reconcile() == []
    ask(world)
    assert world.reconcile() == ["Start"]
    assert len(server.taken) == 2


def test_a_response_to_a_question_that_another_loop_responded_changes_nothing(
    world, server: HookServer
) -> None:
    veto(world, server.start(), on=("start",))
    begin(world)
    world.reconcile()
    with world.store.ledger.read() as connection:
        (requested,) = kept.open_questions(connection, MODEL)
    ask(world)
    with world.store.ledger.write() as connection:
        assert not kept.put_response(
            connection, requested, verdict=requested.verdict, explanation="late", now_us=world.tick()
        )
    assert world.reconcile() == ["Start"]


def test_a_loop_that_lost_its_lease_puts_no_question(world, server: HookServer) -> None:
    veto(world, server.start(), on=("start",))
    begin(world)
    rollout_world.take(world.store, "loop")  # the same name again: the old epoch is over
    with pytest.raises(Exception, match="HF304"):
        world.reconcile()
    with world.store.ledger.read() as connection:
        assert kept.open_questions(connection, MODEL) == ()


def test_requests_are_signed_with_a_key_from_outside(
    world, server: HookServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    veto(world, server.start(), on=("start",), secret="${env:HOOK_KEY}")
    begin(world)
    world.reconcile()
    ask(world)
    assert server.taken == []  # without the key nothing is sent, and nothing consents
    assert "key of its signature" in reported(world, "hook.silent")[0]
    monkeypatch.setenv("HOOK_KEY", "s3cret")
    world.tick(2_000_000)
    ask(world)
    assert world.reconcile() == ["Start"]
    headers, body = server.taken[0]
    timestamp, made = (part.split("=", 1)[1] for part in headers["Holdfast-Signature"].split(","))
    assert made == hmac.new(b"s3cret", timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()
    with world.store.ledger.read() as connection:
        (row,) = kept.of_model(connection, MODEL)
    assert "s3cret" not in row.to_json()


def test_the_thread_asks_reports_and_outlives_what_fails(
    world, server: HookServer, caplog: pytest.LogCaptureFixture
) -> None:
    url = server.start()
    freeze = Hook("freeze", url, on=("start",), veto=True, timeout="1s")
    pager = Hook("pager", "http://127.0.0.1:9/", timeout="1s")
    webhooks.declare(world.store, MODEL, [freeze, pager], now_us=world.tick())
    begin(world)
    world.reconcile()
    rounds = iter(range(6))
    jobs = webhooks.jobs(world.store, MODEL, [freeze, pager], clock_us=world.tick)
    exporter.run(jobs, wait=lambda _seconds: next(rounds) == 5, pause_seconds=0.0)
    assert world.reconcile() == ["Start"]
    assert (
        len([record for record in caplog.records if "notifying webhook pager failed" in record.message]) == 1
    )
    with world.store.ledger.read() as connection:
        assert event_chain.check(connection).broken is None


def test_a_hook_that_is_no_longer_declared_holds_nothing(world, server: HookServer) -> None:
    veto(world, server.start(), on=("start",))
    server.reports(False, "never")
    begin(world)
    world.reconcile()
    ask(world)
    webhooks.declare(world.store, MODEL, [], now_us=world.tick())
    assert world.reconcile() == ["Start"]
