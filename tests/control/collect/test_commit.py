"""Everything that is collected counts once, whatever happens, against a real ledger and real log segments."""

import pytest
from msgspec import structs
from sqlalchemy import select, update

from holdfast.control.collect import collector
from holdfast.control.collect.log_summary import summarise
from holdfast.errors import ConflictError
from holdfast.monitor.latency import merge
from holdfast.records import TrafficPlan
from holdfast.rollout import Canary, freeze_levels
from holdfast.rollout.evidence.slices import rank_slices
from holdfast.rollout.evidence.windows import LINGER_US
from holdfast.store import Store
from holdfast.store.db import events, leases, schema
from holdfast.store.rollout import evidence, evidence_windows, traffic_plans
from holdfast.store.serving import servers
from holdfast.store.serving.prediction_log import FeedbackRecord, PredictionRecord, frame
from holdfast.store.serving.servers import Server
from holdfast.store.telemetry import collected_log, labels, outcomes, request_counts
from holdfast.store.telemetry.collected_log import PREDICTIONS
from tests.support import queries
from tests.support.queries import read
from tests.support.running_canary import running_canary

MODEL = "m"
NOW = 1_700_000_000_000_000
MINUTE = 60_000_000
LATER = NOW + MINUTE + LINGER_US
"""When the windows of the minute of `NOW` have closed."""


@pytest.fixture
def store(tmp_path):
    store = Store.open(tmp_path / "store")
    yield store
    store.ledger.close()


@pytest.fixture
def logs(store, tmp_path):
    directory = tmp_path / "log" / "s1"
    directory.mkdir(parents=True)
    with store.ledger.write() as connection:
        servers.announce(connection, Server("s1", MODEL, "http://127.0.0.1:1", directory, NOW))
    return directory


@pytest.fixture
def lease(store):
    with store.ledger.write() as connection:
        held = leases.acquire(connection, "control-m", holder="test", duration_us=60_000_000, now_us=NOW)
    assert isinstance(held, leases.Lease)
    return held


def collected(store):
    return read(store, queries.collected, PREDICTIONS)


def prediction(
    number,
    *,
    segment=1,
    rows=1,
    at_us=NOW,
    arm="champion",
    rollout=None,
    result="ok",
    unit=None,
    failed="",
    latency_us=900,
):
    return PredictionRecord(
        id=f"s1-{segment}-{number}",
        at_us=at_us,
        event_time_us=at_us - 1000,
        unit=(unit or f"u{number}").encode(),
        arm=arm,
        version="v2" if arm == "challenger" else "v1",
        challenger_failed=failed,
        rollout=rollout,
        result=result,
        latency_us=latency_us,
        probabilities=[0.25] * rows if result == "ok" else [],
        inputs=[["AA", 1.5, None]] * rows if result == "ok" else [],
    )


def label(number, value=1.0, *, segment=1, row=0, at_us=NOW):
    return FeedbackRecord(f"s1-{segment}-{number}/{row}", value, "test", at_us)


def log(directory, *records, segment=1):
    with (directory / f"{segment:08d}.log").open("ab") as file:
        file.writelines(frame(record) for record in records)


def round_(store, lease, now_us=NOW):
    return collector.collect(store, MODEL, lease, now_us=now_us), collector.join(
        store, MODEL, lease, now_us=now_us
    )


def requests(store):
    with store.ledger.read() as connection:
        return sum(row.requests for row in request_counts.since(connection, MODEL, 0))


def history(store, kind):
    with store.ledger.read() as connection:
        return events.newest(connection, kind=kind)


def test_requests_are_counted_once_by_minute_version_and_result(store, logs, lease):
    log(
        logs,
        prediction(1),
        prediction(2, rows=3),
        prediction(3, result="overload"),
        prediction(4, at_us=NOW + MINUTE),
    )
    assert round_(store, lease)[0] == 4
    assert round_(store, lease)[0] == 0
    with store.ledger.read() as connection:
        rows = request_counts.since(connection, MODEL, 0)
    assert sorted((row.result, row.requests, row.rows) for row in rows) == [
        ("ok", 1, 1),
        ("ok", 2, 4),
        ("overload", 1, 0),
    ]
    assert sum(merge(row.latency for row in rows).values()) == 4
    with store.ledger.read() as connection:
        assert request_counts.predicted_rows(connection, MODEL, since_us=0) == {"v1": 5}
    log(logs, prediction(5))
    assert round_(store, lease)[0] == 1
    assert requests(store) == 5
    with store.ledger.read() as connection:
        assert collected_log.totals(connection).predictions == 5


def test_every_predicted_row_is_in_a_registered_file(store, logs, lease):
    log(logs, prediction(1, rows=2), prediction(2))
    round_(store, lease)
    (file,) = collected(store)
    assert (file.rows, file.record_number_min, file.record_number_max, file.server, file.segment) == (
        3,
        1,
        2,
        "s1",
        1,
    )
    with store.ledger.read() as connection:
        located = collected_log.locate(
            connection, PREDICTIONS, ["s1-1-1/1", "s1-1-2/0", "s1-1-9/0", "nonsense"]
        )
    found, _ = collected_log.read_predictions(store.root, located)
    assert set(found) == {"s1-1-1/1", "s1-1-2/0"}


def test_a_label_is_joined_with_its_row(store, logs, lease):
    """R147: what turned out to be true goes to the answer that it is about."""
    log(logs, prediction(1, rows=2), label(1, 0.0, row=1))
    assert round_(store, lease) == (2, 1)
    with store.ledger.read() as connection:
        (row,) = connection.execute(select(schema.outcomes)).all()
    assert (row.prediction_id, row.label, row.probability, row.version, row.event_time_us) == (
        "s1-1-1/1",
        0.0,
        0.25,
        "v1",
        NOW - 1000,
    )
    assert round_(store, lease) == (0, 0)
    with store.ledger.read() as connection:
        assert labels.count(connection) == (1, 0)


def test_the_same_label_again_counts_once_and_another_value_is_refused(store, logs, lease):
    log(logs, prediction(1), label(1), label(1), label(1, 0.0), FeedbackRecord("../x", 1.0, "test", NOW))
    round_(store, lease)
    log(logs, *[label(1)] * 1000, label(1, 0.0))
    round_(store, lease)
    with store.ledger.read() as connection:
        assert labels.count(connection) == (1, 0)
        assert collected_log.totals(connection).rejected_labels == 3
    reported = history(store, "labels.rejected")
    assert len(reported) == 2
    assert "contradict an earlier label" in reported[0].explanation
    with store.ledger.read() as connection:
        assert len(outcomes.of_model(connection, MODEL, since_us=NOW)) == 1


def test_a_label_whose_response_is_elsewhere_waits_and_one_without_a_response_is_reported(store, logs, lease):
    later = 11 * 60_000_000
    log(logs, prediction(5), label(9), label(2), label(5, row=3))
    assert round_(store, lease) == (4, 0)
    with store.ledger.read() as connection:
        assert labels.count(connection) == (3, 3)
    assert round_(store, lease, NOW + later) == (0, 2)
    with store.ledger.read() as connection:
        assert labels.count(connection) == (1, 1)
    (reported,) = history(store, "labels.unmatched")
    assert "2 labels were deleted" in reported.explanation
    log(logs, prediction(9))
    assert round_(store, lease, NOW + later) == (1, 1)
    with store.ledger.read() as connection:
        assert labels.count(connection) == (1, 0)


def test_a_response_that_is_logged_in_the_next_segment_is_found(store, logs, lease):
    log(logs, prediction(1))
    log(logs, prediction(2, segment=1), prediction(1, segment=2), label(2, segment=1), segment=2)
    assert round_(store, lease) == (4, 1)


def test_a_torn_tail_waits_for_its_rest(store, logs, lease):
    whole = frame(prediction(2))
    log(logs, prediction(1))
    path = logs / "00000001.log"
    with path.open("ab") as file:
        file.write(whole[:-3])
    assert round_(store, lease)[0] == 1
    with path.open("ab") as file:
        file.write(whole[-3:])
    assert round_(store, lease)[0] == 1
    assert requests(store) == 2


def test_a_damaged_log_is_reported_once_and_the_others_go_on(store, logs, lease):
    log(logs, prediction(1), prediction(2), prediction(3))
    path = logs / "00000001.log"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    log(logs, prediction(1, segment=2), segment=2)
    for _ in range(3):
        round_(store, lease)
    assert requests(store) == 2, "the record before the damage, and the next segment"
    log(logs, *[prediction(n, segment=3) for n in range(1, 5)], segment=3)
    path = logs / "00000003.log"
    data = bytearray(path.read_bytes())
    data[len(data) * 5 // 8] ^= 0xFF
    path.write_bytes(data)
    log(logs, prediction(1, segment=4), segment=4)
    for _ in range(5):
        round_(store, lease)
    assert requests(store) == 5
    reported = history(store, "log.damaged")
    assert sorted(event.subject for event in reported) == ["log/s1/1", "log/s1/3"]


def test_a_damaged_file_of_responses_is_reported_once_and_only_its_labels_wait(store, logs, lease):
    """What cannot be read must not keep the labels of other answers, nor be taken for answers that never were."""
    log(logs, prediction(1), label(1))
    collector.collect(store, MODEL, lease, now_us=NOW)
    (file,) = collected(store)
    path = store.root / file.path
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    log(logs, prediction(2), label(2))
    later = NOW + 11 * MINUTE
    assert round_(store, lease, later) == (2, 1)
    assert round_(store, lease, later) == (0, 0)
    with store.ledger.read() as connection:
        assert labels.count(connection) == (2, 1)
    (reported,) = history(store, "predictions.damaged")
    assert reported.subject == f"file/{file.path}"
    path.write_bytes(whole)
    assert round_(store, lease, later + MINUTE) == (0, 1)
    with store.ledger.read() as connection:
        assert labels.count(connection) == (2, 0)


def test_a_backlog_is_brought_home_in_portions(store, logs, lease, monkeypatch):
    """A round that gathers a day's log at once would keep a rollback waiting."""
    monkeypatch.setattr(collector, "MAX_STRETCHES", 2)
    for segment in range(1, 6):
        log(logs, prediction(1, segment=segment), segment=segment)
    assert [round_(store, lease)[0] for _ in range(4)] == [2, 2, 1, 0]
    monkeypatch.setattr(collector, "MAX_LABELS", 1)
    monkeypatch.setattr(collector, "MAX_JOINS", 2)
    log(logs, label(9), *[label(1, segment=segment) for segment in range(2, 6)], segment=5)
    assert [round_(store, lease)[1] for _ in range(3)] == [2, 2, 0]


def test_of_two_collectors_one_is_refused_and_nothing_counts_twice(store, logs, lease):
    log(logs, prediction(1), prediction(2))
    stale = collected_log.Position("s1", 1, 0)
    round_(store, lease)
    stretch = collector.Stretch(MODEL, stale, 10, summarise(()))
    with pytest.raises(ConflictError, match="HF304"):
        collector.commit_stretch(store, lease, stretch, now_us=NOW)
    with store.ledger.write() as connection:
        leases.acquire(connection, "control-m", holder="test", duration_us=1, now_us=NOW)
    log(logs, prediction(3))
    with pytest.raises(ConflictError, match="HF304"):
        round_(store, lease)
    assert requests(store) == 2


def test_units_not_requests_are_evidence_and_a_failed_challenger_is_its_own(store, logs, lease):
    """Five failures of one session are one failure; the champion that answered for it is not judged by it."""
    number = running_canary(store)
    log(
        logs,
        *[prediction(n, rollout=number, unit="alice", failed="timeout") for n in range(1, 6)],
        *[prediction(n, rollout=number, arm="challenger", latency_us=9000) for n in range(6, 9)],
        *[prediction(n, rollout=number) for n in range(9, 19)],
        prediction(19),
    )
    round_(store, lease)
    assert read(store, evidence.of_rollout, number)[0].champion_units == 0, (
        "the window of this minute is open"
    )
    round_(store, lease, LATER)
    states = {state.metric: state for state in read(store, evidence.of_rollout, number)}
    errors, latency = states["errors"], states["latency"]
    assert (
        errors.challenger_units,
        errors.challenger_total,
        errors.champion_units,
        errors.champion_total,
    ) == (4, 1.0, 10, 0.0)
    assert (latency.challenger_units, latency.challenger_total) == (4, 3.0)


def test_a_challenger_that_fails_on_one_of_twenty_servers_is_found_with_its_name(store, logs, lease):
    """R112: neither its requests alone nor those of all servers show which machine is at fault."""
    number = running_canary(store, Canary(slices=("server",)))
    with store.ledger.write() as connection:
        for at in range(2, 21):
            directory = logs.parent / f"s{at}"
            directory.mkdir()
            servers.announce(connection, Server(f"s{at}", MODEL, "http://127.0.0.1:1", directory, NOW))
    for at in range(1, 21):
        records = [
            structs.replace(
                prediction(n, rollout=number, arm="challenger" if n % 2 else "champion", unit=f"{at}-{n}"),
                id=f"s{at}-1-{n}",
                challenger_failed="exception" if at == 7 and n % 2 else "",
                share_ppm=10_000,
            )
            for n in range(1, 61)
        ]
        log(logs.parent / f"s{at}", *records)
    round_(store, lease)
    round_(store, lease, LATER)
    states = {state.metric: state for state in read(store, evidence.of_rollout, number)}
    first, *others = rank_slices(states["slices"].evidence, states["slices"].log_bound)
    assert (first.name, first.metric, first.is_harmful) == ("server=s7", "errors", True)
    assert not any(each.is_harmful for each in others)
    assert first.counts.challenger_units == first.counts.champion_units == 30


def test_windows_under_two_shares_and_of_old_records_are_apart(store, logs, lease):
    """Records of an earlier release state no share; those of a step before count nothing towards this one."""
    number = running_canary(store)
    shares = (None, 10_000, 50_000)
    log(
        logs,
        *(
            structs.replace(prediction(n, rollout=number, arm="challenger"), share_ppm=shares[n % 3])
            for n in range(1, 31)
        ),
    )
    round_(store, lease)
    opened = read(store, evidence_windows.of_rollout, number)
    assert [(each.window.share_ppm, each.units) for each in opened] == [(-1, 10), (10_000, 10), (50_000, 10)]
    round_(store, lease, LATER)
    errors = next(state for state in read(store, evidence.of_rollout, number) if state.metric == "errors")
    assert (errors.challenger_units, errors.step_units) == (30, 20)


def test_another_loop_goes_on_with_the_open_windows(store, logs, lease):
    """R113: the units that one loop has gathered close the window of the next."""
    number = running_canary(store)
    log(logs, *[prediction(n, rollout=number) for n in range(1, 151)])
    round_(store, lease)
    with store.ledger.write() as connection:
        found = leases.acquire(connection, "control-m", holder="other", duration_us=1, now_us=NOW)
        taken = leases.acquire(
            connection, "control-m", holder="other", duration_us=1, now_us=NOW + MINUTE, seen=found
        )
    log(logs, *[prediction(n, rollout=number) for n in range(140, 211)])
    round_(store, taken)
    errors = next(state for state in read(store, evidence.of_rollout, number) if state.metric == "errors")
    assert errors.champion_units == 200
    with pytest.raises(ConflictError, match="HF304"):
        collector.close_windows(store, MODEL, lease, now_us=LATER)
    round_(store, taken, LATER)
    errors = next(state for state in read(store, evidence.of_rollout, number) if state.metric == "errors")
    assert errors.champion_units == 210


def test_windows_of_a_rollout_that_has_ended_are_dropped(store, logs, lease):
    number = running_canary(store)
    log(logs, *[prediction(n, rollout=number) for n in range(1, 11)])
    round_(store, lease)
    with store.ledger.write() as connection:
        connection.execute(update(schema.rollouts).values(state="rolled_back"))
    round_(store, lease, LATER)
    assert read(store, evidence_windows.of_rollout, number) == ()
    assert read(store, evidence.of_rollout, number)[0].champion_units == 0


def test_what_a_server_logs_when_the_challenger_has_everything_is_evidence(store, logs, lease):
    """R117: at 100 % every request is the challenger's, and the champion only stands in for its failures."""
    number = running_canary(store)
    log(logs, *[prediction(n, rollout=number) for n in range(1, 401)])
    log(logs, *[prediction(n, rollout=number, arm="challenger") for n in range(401, 441)])
    round_(store, lease)
    round_(store, lease, LATER)
    with store.ledger.write() as connection:
        states = freeze_levels(evidence.canary_of_running(connection, number), Canary())
        evidence.put(connection, number, states, now_us=NOW)
    log(
        logs, *[prediction(n, segment=2, rollout=number, failed="exception") for n in range(1, 41)], segment=2
    )
    round_(store, lease, LATER)
    round_(store, lease, LATER + MINUTE)
    errors = next(state for state in read(store, evidence.of_rollout, number) if state.metric == "errors")
    assert (errors.challenger_units, errors.challenger_total, errors.champion_units) == (80, 40.0, 400)
    assert errors.is_harmful


def test_quality_evidence_counts_each_unit_once(store, logs, lease):
    number = running_canary(store)
    log(
        logs,
        prediction(1, rows=4, rollout=number, arm="challenger"),
        prediction(2, rollout=number),
        prediction(3, rollout=number),
        *[label(1, 1.0, row=row) for row in range(4)],
        label(2, 0.0),
    )
    round_(store, lease)
    quality = next(state for state in read(store, evidence.of_rollout, number) if state.metric == "quality")
    assert (quality.challenger_units, quality.champion_units) == (1, 1)
    assert quality.challenger_total == pytest.approx(1 - 0.75**2)
    assert quality.champion_total == pytest.approx(1 - 0.25**2)


def test_labels_that_come_together_are_compared_within_an_hour_and_a_share(store, logs, lease):
    """Two versions that are alike, a share that grew, a second day that was harder, all labels in one night."""
    day, number = 86_400_000_000, running_canary(store)
    with store.ledger.write() as connection:
        for at_us, share_ppm in ((NOW, 10_000), (NOW + day, 500_000)):
            traffic_plans.append(
                connection,
                TrafficPlan(
                    MODEL,
                    0,
                    "v1",
                    challenger="v2",
                    share_ppm=share_ppm,
                    rollout_id=number,
                ),
                now_us=at_us,
            )
    at = 0
    for since_us, value, ours, theirs in ((NOW, 0.25, 3, 297), (NOW + day, 0.85, 100, 100)):
        for arm, many in (("challenger", ours), ("champion", theirs)):
            for _ in range(many):
                at += 1
                responded_us = since_us + at * 1_000_000
                log(logs, prediction(at, rollout=number, arm=arm, at_us=responded_us), label(at, value))
    round_(store, lease, now_us=NOW + 2 * day)
    quality = next(state for state in read(store, evidence.of_rollout, number) if state.metric == "quality")
    assert (quality.challenger_units, quality.champion_units) == (103, 397)
    assert quality.log_e < 1.0


def test_collected_segments_make_room_but_the_newest_stays(store, logs, lease, monkeypatch):
    monkeypatch.setattr(collector, "RETAINED_LOG_BYTES", 0)
    log(logs, prediction(1))
    log(logs, prediction(1, segment=2), segment=2)
    round_(store, lease)
    assert [path.name for path in sorted(logs.glob("*.log"))] == ["00000002.log"]
    round_(store, lease)
    assert requests(store) == 2


def test_response_times_and_reasons_of_refusals_are_counted_with_the_requests(store, logs, lease):
    """A log of before has neither; what it has is counted as ever."""
    refused = structs.replace(
        prediction(3, result="contract"), response_us=40, reasons=["km|range", "*|extra"]
    )
    served = [structs.replace(prediction(number), response_us=9_500) for number in (1, 2)]
    log(logs, *served, refused, prediction(4))
    round_(store, lease)
    log(logs, structs.replace(refused, id="s1-1-5"))
    round_(store, lease)
    with store.ledger.read() as connection:
        found = {row.result: row for row in request_counts.since(connection, MODEL, 0)}
    assert sum(found["ok"].response.values()) == 2
    assert sum(found["ok"].latency.values()) == 3
    assert found["contract"].reasons == {"km|range": 2, "*|extra": 2}
