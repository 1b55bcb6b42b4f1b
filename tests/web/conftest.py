"""A ledger that reports a history: one version promoted, one on its way, one sent back; labels of ten days."""

from types import SimpleNamespace

import numpy as np
import pytest
from sqlalchemy import insert

from holdfast.monitor.latency import bucket_of
from holdfast.monitor.usage import UsageRow
from holdfast.records import Arm
from holdfast.rollout import Canary, RequestOutcome, begin, fold_requests, fold_scores
from holdfast.rollout.evidence.records import record_point
from holdfast.store import Store
from holdfast.store.db import schema
from holdfast.store.db.events import append
from holdfast.store.rollout.evidence import values_of
from holdfast.store.telemetry import request_counts

DAY = 86_400_000_000
MINUTE = 60_000_000
START = 1_364_774_400_000_000  # 2013-04-01
NOW = START + 10 * DAY
V1, V2, V3, H = "v2-0a1b2c3d", "v3-5e6f7a8b", "v4-9c0d1e2f", "v1-77aa66bb"
NASTY = "<script>alert(1)</script>&\"'"


def _versions(connection):
    connection.execute(insert(schema.table_versions).values(committed_at_us=START, reason="ingest"))
    connection.execute(
        insert(schema.snapshots).values(
            snapshot="s1", table_version=1, contract_hash="c" * 64, created_at_us=START
        )
    )
    for number, (version, role, learner) in enumerate(
        [
            (H, "heuristic", "group_mean"),
            (V1, "candidate", "lightgbm"),
            (V2, "candidate", "lightgbm"),
            (V3, "candidate", "lightgbm"),
        ],
        start=1,
    ):
        connection.execute(
            insert(schema.versions).values(
                version=version,
                model="flight-delay",
                number=number,
                digest=f"{number:064d}",
                bytes=480_000 + number,
                snapshot="s1",
                contract_hash="c" * 64,
                features_hash="f" * 64,
                learner=learner,
                role=role,
                state="registered" if role == "heuristic" else "qualified",
                created_at_us=START + number * DAY,
            )
        )
        if role == "candidate":
            connection.execute(
                insert(schema.gate_results),
                [
                    {
                        "version": version,
                        "gate": gate,
                        "verdict": "pass",
                        "observed": 0.74,
                        "low": 0.72,
                        "high": 0.76,
                        "bound": 0.68,
                        "explanation": words,
                        "evaluated_at_us": START + number * DAY,
                    }
                    for gate, words in (
                        ("load_test", "Loads in a fresh process in 0.31 s."),
                        ("golden", f"Golden queries agree within 0.000001 {NASTY}"),
                        ("baseline", "AUC 0.741 [0.722, 0.760] against 0.681 of the heuristic."),
                    )
                ],
            )


def _rollouts(connection):
    policy = Canary(units_per_step=300)
    rows = [
        (1, V1, None, "promoted", 4, "Seen to answer by a probe.", "holdfast", START, START + DAY),
        (
            2,
            V2,
            V1,
            "rolled_back",
            1,
            "Quality is worse: evidence 6.1 reached its bound 5.7 after 812 labelled answers.",
            "holdfast",
            START + 4 * DAY,
            START + 6 * DAY,
        ),
        (
            3,
            V3,
            V1,
            "canary",
            1,
            "Step 2 of 5: waiting for 300 units of the challenger.",
            "holdfast",
            NOW - 20 * MINUTE,
            NOW - 6 * MINUTE,
        ),
    ]
    for number, challenger, champion, state, step, reason, actor, began, changed in rows:
        connection.execute(
            insert(schema.rollouts).values(
                rollout_id=number,
                model="flight-delay",
                challenger=challenger,
                champion=champion,
                state=state,
                step=step,
                policy_json=policy.to_json(),
                started_at_us=began,
                step_started_at_us=changed,
                changed_at_us=changed,
                reason=reason,
                actor=actor,
            )
        )
    requests = [
        RequestOutcome(
            b"u%d" % unit,
            Arm.CHALLENGER if unit % 20 == 0 else Arm.CHAMPION,
            unit % 350 == 0,
            900 + unit % 700,
        )
        for unit in range(4200)
    ]
    states = begin(policy, 0.00155)
    random = np.random.default_rng(4)
    for number in range(20):
        at_us = NOW - (20 - number) * MINUTE
        states = fold_requests(states, requests[210 * number : 210 * (number + 1)], at_us)
        states = tuple(
            fold_scores(state, random.beta(8, 2.4, 6).tolist(), random.beta(8, 2, 114).tolist(), at_us)
            if state.metric == "quality"
            else state
            for state in states
        )
        states = tuple(record_point(state, at_us) for state in states)
    for state in states:
        connection.execute(
            insert(schema.rollout_evidence).values(rollout_id=3, updated_at_us=NOW, **values_of(state))
        )
    connection.execute(
        insert(schema.traffic_plans).values(
            plan_id=7,
            model="flight-delay",
            champion=V1,
            challenger=V3,
            share_ppm=50_000,
            shadow_ppm=0,
            previous=None,
            fallback=H,
            rollout_id=3,
            committed_at_us=NOW - 6 * MINUTE,
        )
    )


def _responses(connection):
    random = np.random.default_rng(11)
    counts = [("s1", "http://127.0.0.1:8080", V1), ("s2", "http://127.0.0.1:8090", V1)]
    for server, address, responded in counts:
        connection.execute(
            insert(schema.servers).values(
                server=server,
                model="flight-delay",
                address=address,
                log_directory="/nowhere",
                started_at_us=NOW - DAY,
            )
        )
        connection.execute(
            insert(schema.probes).values(
                server=server,
                model="flight-delay",
                plan_id=7,
                planned_version=V1,
                observed_version=responded,
                verdict="pass",
                explanation=f"A request was served by {responded} under plan 7, as declared.",
                probed_at_us=NOW - 3_000_000,
            )
        )
    rows = []
    for minute in range(58):
        for version, arm, many in (
            (V1, "champion", 900 + 60 * (minute % 7)),
            (V3, "challenger", 46 if minute > 38 else 0),
        ):
            if many:
                slow = random.lognormal(-6.7, 0.35, 40)
                latency = {}
                for each in slow:
                    bucket = bucket_of(each * 1e6)
                    latency[bucket] = latency.get(bucket, 0) + many // 40 + 1
                at = NOW - (58 - minute) * MINUTE
                rows.append(UsageRow(version, arm, "ok", at - at % MINUTE, many, many, many * 1100, latency))
    rows.append(UsageRow(V3, "challenger", "model_error", NOW - 5 * MINUTE, 3, 0, 4000, {12: 3}))
    request_counts.add(connection, "flight-delay", rows)
    labels, found = [], []
    serial = 0
    for day in range(9):
        for version, share, skill in ((V1, 420, 1.3), (V2, 90 if day in (4, 5) else 0, 0.25), (H, 160, 0.7)):
            for _ in range(share):
                serial += 1
                logit = random.normal(0, 1)
                late = random.uniform() < 1 / (1 + np.exp(-(1.4 * logit - 1.1)))
                noisy = skill * logit + random.normal(0, 0.9) - 1.1
                prediction = f"s1-1-{serial}/0"
                labels.append(
                    {
                        "prediction_id": prediction,
                        "value": float(late),
                        "source": "arrivals",
                        "received_at_us": NOW,
                        "joined": 1,
                    }
                )
                found.append(
                    {
                        "prediction_id": prediction,
                        "model": "flight-delay",
                        "version": version,
                        "arm": "challenger" if version == V2 else "champion",
                        "rollout_id": 2 if version == V2 else None,
                        "probability": float(1 / (1 + np.exp(-noisy))),
                        "label": float(late),
                        "event_time_us": (at_us := START + day * DAY + int(random.integers(0, DAY))),
                        "joined_at_us": NOW,
                        "predicted_at_us": at_us,
                    }
                )
    connection.execute(insert(schema.labels), labels)
    connection.execute(insert(schema.outcomes), found)
    connection.execute(
        insert(schema.log_positions).values(
            server="s1",
            segment=1,
            collected_bytes=1,
            predictions=serial,
            feedback=serial + 5,
            rejected_labels=5,
        )
    )


def _batches(connection):
    for feed, quarantined in (("departures", 0), ("flights", 37), ("weather", 4)):
        for day in range(6):
            connection.execute(
                insert(schema.batches).values(
                    feed=feed,
                    batch=f"2013-03-{day + 10}",
                    epoch=0,
                    digest=f"{day:064d}",
                    contract_hash="c" * 64,
                    state="published",
                    rows_received=900,
                    rows_loaded=900 - quarantined,
                    rows_quarantined=quarantined,
                    event_time_min_us=START - (20 - day) * DAY,
                    event_time_max_us=START - (19 - day) * DAY,
                    table_version=1,
                    source=f"{feed}.csv",
                )
            )


def _events(connection):
    reported = [
        (START, "batch.published", "flights/2013-03-15", "863 rows loaded, 37 quarantined.", "holdfast"),
        (START + DAY, "rollout.promoted", "rollout/1", f"{V1} was seen to answer by a probe.", "holdfast"),
        (
            START + 6 * DAY,
            "rollout.rolled_back",
            "rollout/2",
            "Quality is worse: 6.1 reached its bound 5.7.",
            "holdfast",
        ),
        (NOW - 20 * MINUTE, "rollout.pending", "rollout/3", f"{V3} against {V1}: requested by ada", "ada"),
        (NOW - 6 * MINUTE, "rollout.canary", "rollout/3", "Step 2 of 5: 5 % of the units.", "holdfast"),
        (
            NOW - 90_000_000,
            "labels.rejected",
            "flight-delay",
            f"Labels refused: 5 contradict {NASTY}",
            "holdfast",
        ),
    ]
    for at_us, kind, subject, words, actor in reported:
        append(connection, at_us=at_us, kind=kind, subject=subject, explanation=words, actor=actor)


@pytest.fixture(scope="session")
def history():
    """The names and the time of the history."""
    return SimpleNamespace(first=V1, sent_back=V2, tried=V3, heuristic=H, now_us=NOW, nasty=NASTY)


@pytest.fixture
def empty_store(tmp_path):
    store = Store.open(tmp_path / "empty")
    yield store
    store.ledger.close()


@pytest.fixture(scope="session")
def store(tmp_path_factory):
    """The page only reads, so one ledger serves all tests."""
    store = Store.open(tmp_path_factory.mktemp("history"))
    with store.ledger.write() as connection:
        for part in (_versions, _rollouts, _responses, _batches, _events):
            part(connection)
    yield store
    store.ledger.close()
