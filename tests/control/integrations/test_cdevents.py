"""What happens to versions, reported as CDEvents: by the fields of specification 0.5.1, in order, each at least once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest

from holdfast.control.integrations import cdevents, exporter
from holdfast.qualify import GateResult
from holdfast.records import Verdict
from holdfast.rollout.cdevents import SERVICE_EVENTS, Artifact, GateFacts, cloudevent
from holdfast.rollout.cdevents import cdevents as events_of
from holdfast.rollout.model.state_machine import State
from holdfast.store.db import events
from holdfast.store.models import gate_results
from tests.support import rollout_world

if TYPE_CHECKING:
    from tests.support.webhook_server import HookServer


def _object(required: dict[str, Any], **optional: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": required | optional,
        "required": list(required),
        "additionalProperties": False,
    }


WORDS = {"type": "string", "minLength": 1}
REFERENCE = WORDS | {"format": "uri-reference"}
PLACE = _object({"id": WORDS}, source=REFERENCE)
SERVICES = ("service.deployed", "service.published", "service.upgraded", "service.rolledback")
TESTED = "testsuiterun.finished"


def schema(kind: str, content: dict[str, Any]) -> dict[str, Any]:
    """The fields that CDEvents 0.5.1 documents for one kind of event."""
    context = _object(
        {
            "specversion": {"const": "0.5.1"},
            "id": WORDS,
            "source": REFERENCE,
            "type": {"const": f"dev.cdevents.{kind}.0.3.0"},
            "timestamp": WORDS | {"format": "date-time"},
        },
        schemaUri=WORDS | {"format": "uri"},
        chainId=WORDS,
        links={"type": "array"},
    )
    about = _object({"id": WORDS, "content": content}, source=REFERENCE)
    return _object({"context": context, "subject": about}, customData={}, customDataContentType=WORDS)


SCHEMAS = {
    kind: schema(
        kind,
        _object({"environment": PLACE} | ({} if kind == "service.published" else {"artifactId": WORDS})),
    )
    for kind in SERVICES
} | {
    TESTED: schema(
        TESTED,
        _object(
            {"outcome": {"enum": ["success", "failure", "cancel", "error"]}, "environment": PLACE},
            testSuite=_object({"id": WORDS}, version=WORDS, name=WORDS, uri=WORDS),
            severity={"enum": ["low", "medium", "high", "critical"]},
            reason={"type": "string"},
        ),
    )
}
CLOUD = _object(
    {
        "specversion": {"const": "1.0"},
        "id": WORDS,
        "source": REFERENCE,
        "type": WORDS,
        "subject": WORDS,
        "time": WORDS | {"format": "date-time"},
        "datacontenttype": {"const": "application/json"},
        "data": {"type": "object"},
    }
)


def valid(event: dict[str, Any]) -> str:
    """The kind of `event`, which has the documented fields and no others."""
    kind = event["context"]["type"].removeprefix("dev.cdevents.").removesuffix(".0.3.0")
    checker = jsonschema.Draft202012Validator.FORMAT_CHECKER
    jsonschema.validate(event, SCHEMAS[kind], format_checker=checker)
    jsonschema.validate(cloudevent(event), CLOUD, format_checker=checker)
    return str(kind)


@pytest.fixture
def world(tmp_path: Path):
    return rollout_world.World.open(tmp_path / "store")


def test_the_table_names_states_of_rollouts() -> None:
    known = {f"rollout.{state}" for state in State}
    assert set(SERVICE_EVENTS) <= known


def test_a_rollout_and_a_rollback_are_reported(world) -> None:
    first = world.add_version()
    world.promote(first)
    second = world.add_version()
    world.promote(second)
    third = world.add_version()
    world.begin(third)
    world.champion_responses()
    world.reconcile()
    world.traffic(failing=25)
    world.reconcile()
    world.probe()
    world.reconcile()
    last, found = cdevents.read(world.store, 0, environment="staging")
    assert [(valid(each), each["customData"]["version"]) for each in found] == [
        ("service.deployed", first),
        ("service.published", first),
        ("service.deployed", second),
        ("service.published", second),
        ("service.upgraded", second),
        ("service.deployed", third),
        ("service.published", third),
        ("service.rolledback", second),
    ]
    back = found[-1]
    assert back["subject"]["content"]["environment"] == {"id": "staging"}
    assert back["subject"]["content"]["artifactId"].startswith(f"pkg:generic/m@{second}?checksum=sha256:")
    assert back["context"]["chainId"] == found[5]["context"]["chainId"]
    assert cdevents.read(world.store, last) == (last, [])
    assert len({each["context"]["id"] for each in found}) == len(found)
    assert cdevents.read(world.store, 0, environment="staging") == (last, found)


def test_the_judgement_of_gates_is_a_test_suite(world) -> None:
    version = world.add_version(state="registered")
    results = [
        GateResult("loads", Verdict.PASS, "it loads"),
        GateResult("baseline", Verdict.FAIL, "not ahead", 0.6, 0.5, 0.7, 0.65),
    ]
    with world.store.ledger.write() as connection:
        now_us = world.tick()
        gate_results.append(connection, version, results, now_us=now_us)
        events.append(
            connection,
            at_us=now_us,
            kind="version.refused",
            subject=version,
            explanation="baseline: not ahead",
        )
    _, (reported,) = cdevents.read(world.store, 0)
    assert valid(reported) == TESTED
    assert reported["subject"]["content"]["outcome"] == "failure"
    assert reported["customData"]["gates"] == {"loads": "pass", "baseline": "fail"}


@pytest.mark.parametrize("verdict", list(Verdict))
def test_every_verdict_has_an_outcome(verdict: Verdict) -> None:
    facts = GateFacts(1, 1, Artifact("m", "v1", "a" * 64), verdict, "why", ())
    (event,) = events_of(facts)
    assert valid(event) == TESTED


def test_the_sink_takes_each_at_least_once(world, hook_server: HookServer) -> None:
    url = hook_server.start()
    world.promote(world.add_version())
    hook_server.status = 503
    with pytest.raises(Exception, match=r"HF601.*status 503"):
        cdevents.export(world.store, url)
    hook_server.status = 202
    assert cdevents.export(world.store, url) == 2
    assert cdevents.export(world.store, url) == 0
    headers, _ = hook_server.taken[-1]
    assert headers["Content-Type"] == "application/cloudevents+json; charset=utf-8"
    ids = [document["id"] for document in hook_server.documents()]
    assert ids[0] == ids[1] != ids[2]
    assert [valid(document["data"]) for document in hook_server.documents()[1:]] == [
        "service.deployed",
        "service.published",
    ]


def test_the_teller_outlives_a_sink_that_is_away(
    world, hook_server: HookServer, caplog: pytest.LogCaptureFixture
) -> None:
    url = hook_server.start()
    hook_server.status = 500
    world.promote(world.add_version())
    rounds = iter(range(12))

    def wait(_seconds: float) -> bool:
        number = next(rounds)
        hook_server.status = 500 if number < 4 else 200
        return number == 11

    exporter.run({"sink": lambda: cdevents.export(world.store, url)}, wait=wait, pause_seconds=0.0)
    assert [document["type"] for document in hook_server.documents()][-1].endswith("service.published.0.3.0")
    assert len([record for record in caplog.records if "did not accept" in record.message]) == 1
