"""Labels belong to the callers that were given the prediction (B4): real servers, one control loop, and guesses."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from sqlalchemy import select

from holdfast.control.collect import collector
from holdfast.control.rollout import plan_parts
from holdfast.feedback import IdKey
from holdfast.rollout.model.serving_config import ConnectionLimits
from holdfast.store.db import events, leases, schema
from holdfast.store.serving import label_rules, servers
from holdfast.store.serving.prediction_log import PredictionRecord, frame
from tests.support.serving_world import MODEL, Served, World, row
from tests.support.waiting import wait_until

FEEDBACK = f"/v2/models/{MODEL}/feedback"
Start = Callable[..., Served]


def now_us() -> int:
    return time.time_ns() // 1000


@dataclass
class Loop:
    """The control loop of the world's model, a round at a time."""

    world: World
    lease: leases.Lease

    def round(self) -> dict[str, float]:
        """Collect and join; return the label of each outcome by its prediction."""
        collector.collect(self.world.store, MODEL, self.lease, now_us=now_us())
        collector.join(self.world.store, MODEL, self.lease, now_us=now_us())
        with self.world.store.ledger.read() as connection:
            query = select(schema.outcomes.c.prediction_id, schema.outcomes.c.label)
            return {row.prediction_id: row.label for row in connection.execute(query)}

    def events(self, kind: str) -> list[str]:
        with self.world.store.ledger.read() as connection:
            return [each.explanation for each in events.newest(connection, kind=kind)]


@pytest.fixture
def loop(world: World) -> Loop:
    world.version("half")
    world.plan("half")
    with world.store.ledger.write() as connection:
        lease = leases.acquire(connection, "control", holder="t", duration_us=10**9, now_us=now_us())
    assert isinstance(lease, leases.Lease)
    return Loop(world, lease)


def predict(served: Served, requests: int = 1) -> list[str]:
    return [str(served.infer()[1]["parameters"]["prediction_id"]) for _ in range(requests)]


def send(
    served: Served, *labels: tuple[str, object], source: str = "client"
) -> tuple[int, list[dict[str, Any]]]:
    """Send labels; the status and the results."""
    items = [{"id": name, "value": value, "source": source} for name, value in labels]
    status, document = served.call(FEEDBACK, {"feedback": items})
    return status, document["results"]


def guesses(real: str) -> list[str]:
    """What a caller may try that knows the form of ids, and the place of `real`."""
    place, _, tag = real.partition(".")
    flipped = "0" if tag[0] != "0" else "1"
    return [
        place,
        f"{place}.{flipped}{tag[1:]}",
        f"{place}.{tag[:-1]}{'0' if tag[-1] != '0' else '1'}",
        f"{place}.{IdKey(bytes(32)).tag(place)}",
        f"{place}.{'0' * 16}",
    ]


MALFORMED = (".", ".1", "{}0", "0{}", "{:.15}", " {}")
"""Tags that are none: `{}` is the right one."""


def test_predictions_of_another_client_cannot_be_labelled_by_guessing(serve: Start, loop: Loop) -> None:
    served = serve()
    ids = predict(served, 300)
    tried = [guess for real in ids for guess in guesses(real)]
    for begin in range(0, len(tried), 1000):
        status, results = send(
            served, *[(each, False) for each in tried[begin : begin + 1000]], source="attacker"
        )
        assert status == 207
        assert {(each["status"], each["code"]) for each in results} == {("rejected", "HF505")}
    place, _, tag = ids[0].partition(".")
    for form in MALFORMED:
        status, _ = served.call(FEEDBACK, {"id": f"{place}.{form.format(tag)}", "value": False})
        assert status == 400, form
    assert served.call(FEEDBACK, {"id": place, "value": False})[0] == 404
    other = ids[1].partition(".")[2]
    assert served.call(FEEDBACK, {"id": f"{place}.{other}", "value": False})[0] == 404, (
        "the tag of another id"
    )
    status, results = send(served, (guesses(ids[0])[1], True), *[(each, True) for each in ids])
    assert status == 207
    assert [each["status"] for each in results] == ["rejected"] + ["accepted"] * 300, (
        "good and bad in one request"
    )
    assert loop.round() == {f"{each}/0": 1.0 for each in ids}


def test_labels_in_advance_for_a_server_that_is_down_label_nothing(serve: Start, loop: Loop) -> None:
    """And each server verifies the ids of every other, so that a label may be sent to any."""
    first, second = serve(), serve()
    (before,) = predict(second)
    name = before.partition("-")[0]
    second.stop(signal.SIGKILL)
    ahead = [f"{name}-{segment}-{number}" for segment in (1, 2) for number in range(1, 6)]
    guessed = [guess for place in ahead for guess in guesses(f"{place}.{before.partition('.')[2]}")]
    _, results = send(first, *[(each, False) for each in guessed], source="attacker")
    assert {each["status"] for each in results} == {"rejected"}
    assert send(first, (before, True))[0] == 202, "its log is not collected yet"
    again = serve()
    ids = predict(again, 5)
    assert {each.partition(".")[0] for each in ids} <= set(ahead)
    assert loop.round() == {f"{before}/0": 1.0}
    assert send(first, *[(each, True) for each in ids])[0] == 202
    assert loop.round() == {f"{each}/0": 1.0 for each in (before, *ids)}


def test_a_server_without_the_ledger_gives_and_verifies_ids(serve: Start, loop: Loop) -> None:
    serve().stop()
    ledger = loop.world.root / "ledger.db"
    copy = loop.world.root / "serve" / MODEL / "labels.json"
    wait_until(copy.exists, "the rules are kept")
    assert copy.stat().st_mode & 0o077 == 0, "the secret is for its owner alone"
    loop.world.store.ledger.close()
    away = ledger.rename(ledger.with_name("away.db"))
    served = serve()
    (real,) = predict(served)
    assert {each["status"] for each in send(served, *[(each, 1) for each in guesses(real)])[1]} == {
        "rejected"
    }
    assert send(served, (real, 1))[0] == 202
    served.stop()
    away.rename(ledger)
    assert loop.round() == {f"{real}/0": 1.0}


def test_a_ledger_that_lost_its_secret_gets_it_back_from_a_server(serve: Start, loop: Loop) -> None:
    served = serve()
    (real,) = predict(served)
    wait_until((loop.world.root / "serve" / MODEL / "labels.json").exists, "the rules are kept")
    served.stop()
    with loop.world.store.ledger.write() as connection:
        connection.execute(schema.secrets.delete())
    again = serve()
    assert send(again, (real, 1))[0] == 202, "an id from before is still verified"
    assert loop.round() == {f"{real}/0": 1.0}


def test_predictions_of_a_release_without_tags_are_labelled_and_none_of_this_one(
    serve: Start, loop: Loop
) -> None:
    """The upgrade: ids of before have no tag. Only predictions that were recorded before it are joined."""
    log = loop.world.root / "log" / "s1"
    log.mkdir(parents=True)
    old = PredictionRecord(
        id="s1-1-1", at_us=now_us(), event_time_us=now_us(), unit=b"u", arm="champion", version=loop.world.names["half"],
        challenger_failed="", rollout=None, result="ok", latency_us=9, probabilities=[0.5], inputs=[[1]],
    )  # fmt: skip
    (log / "00000001.log").write_bytes(frame(old))
    with loop.world.store.ledger.write() as connection:
        servers.announce(connection, servers.Server("s1", MODEL, "http://127.0.0.1:1", log, 1))
    served = serve()
    (new,) = predict(served)
    place = new.partition(".")[0]
    assert place == "s1-2-1"
    status, results = send(
        served, ("s1-1-1", True), (place, True), ("s1-3-1", True), ("s2-1-1", True), (new, True)
    )
    assert status == 207
    assert [each["status"] for each in results] == [
        "accepted",
        "rejected",
        "rejected",
        "rejected",
        "accepted",
    ]
    assert loop.round() == {"s1-1-1/0": 1.0, f"{new}/0": 1.0}


def test_a_declared_correction_by_id_is_taken_and_a_stranger_s_is_quarantined(
    serve: Start, loop: Loop
) -> None:
    """Issue 11: the same id with the same value counts once; another value is decided by the label feed's declaration."""
    served = serve()
    one, other = predict(served, 2)
    assert send(served, (one, True), (other, True), source="crm")[0] == 202
    status, results = send(served, (one, False), (other, True), source="crm")
    assert (status, [each["status"] for each in results]) == (207, ["rejected", "repeated"]), "the default"
    with loop.world.store.ledger.write() as connection:
        label_rules.declare_corrections(connection, MODEL, "latest", now_us=now_us())
    correction = {"id": one, "value": False, "source": "crm"}
    wait_until(lambda: served.call(FEEDBACK, correction)[0] == 202, "the server follows the declaration")
    status, results = send(served, (one, True), (other, False), source="stranger")
    assert (status, [each["status"] for each in results]) == (207, ["quarantined", "quarantined"])
    status, error = served.call(FEEDBACK, {"id": one, "value": True, "source": "stranger"})
    assert (status, error["code"]) == (409, "HF505")
    assert "source 'crm' labelled it 0" in error["error"]
    assert loop.round() == {f"{one}/0": 0.0, f"{other}/0": 1.0}
    assert "2 labels contradict the label of another source" in loop.events("labels.quarantined")[0]
    served.stop()
    again = serve()
    assert again.call(FEEDBACK, {"id": other, "value": False, "source": "crm"})[0] == 202, "known to the copy"
    assert loop.round()[f"{other}/0"] == 0.0


def test_a_caller_uses_up_its_own_quota_alone_and_none_by_repeating(serve: Start, loop: Loop) -> None:
    """B4: a caller chooses its source, and not its address."""
    plan_parts.push_serving_config(
        loop.world.store, MODEL, ConnectionLimits(labels_per_hour=2), actor="t", reason="t", now_us=now_us()
    )
    served = serve()
    ids = predict(served, 5)
    log = loop.world.root / "log"

    def send_from(address: str, name: str, value: object = True) -> int:
        return served.call(FEEDBACK, {"id": name, "value": value, "source": "crm"}, address=address)[0]

    assert send_from("127.0.0.1", ids[0]) == 202
    written = sum(each.stat().st_size for each in log.rglob("*.log"))
    assert {send_from(address, ids[0]) for address in ("127.0.0.1", "127.0.0.2") for _ in range(5)} == {202}
    assert {send_from("127.0.0.2", ids[0], value=False) for _ in range(5)} == {409}
    assert sum(each.stat().st_size for each in log.rglob("*.log")) == written, "nothing lasting"
    assert [send_from("127.0.0.2", each) for each in ids[1:4]] == [202, 202, 429]
    assert [send_from("127.0.0.1", each) for each in ids[3:]] == [202, 429]
    assert loop.round() == {f"{each}/0": 1.0 for each in ids[:4]}


def test_a_row_that_no_request_can_have_is_refused(serve: Start, loop: Loop) -> None:
    served, other = serve(), serve()
    (real,) = predict(served)
    for server in (served, other):
        assert server.call(FEEDBACK, {"id": f"{real}/10000", "value": 1})[0] == 404
    assert served.call(FEEDBACK, {"id": f"{real}/1", "value": 1})[0] == 404


def test_a_label_of_a_request_of_several_rows_names_its_row(serve: Start, loop: Loop) -> None:
    served = serve()
    _, response = served.infer([row(flight_id=f"UA{number}") for number in range(3)])
    assert "prediction_id" in response.get("parameters", {}), response
    many = str(response["parameters"]["prediction_id"])
    (one,) = predict(served)
    status, error = served.call(FEEDBACK, {"id": many, "value": True})
    assert (status, error["code"]) == (400, "HF511")
    assert error["error"] == (
        f"the request had 3 rows, and {many} names none of them: send {many}/0 to {many}/2, each with its label"
    )
    status, results = send(served, (many, True), (one, True), (f"{many}/2", False))
    assert (status, [each["status"] for each in results]) == (207, ["rejected", "accepted", "accepted"])
    assert results[0]["code"] == "HF511"
    assert loop.round() == {f"{one}/0": 1.0, f"{many}/2": 0.0}

    other = serve()
    assert send(other, (many, True), (one, True))[0] == 202, "it cannot know the rows"
    assert loop.round() == {f"{one}/0": 1.0, f"{many}/2": 0.0}
    assert "name none of them" in loop.events("labels.quarantined")[0]
