"""The comparison of the nights finds what differs, and nothing where all is the same; the run itself is a command."""

from __future__ import annotations

import asyncio
import copy
import json
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from sqlalchemy import insert

from holdfast.control.reports.status import StatusReader
from holdfast.records import DAY_US, TrafficPlan
from holdfast.store import Store
from holdfast.store.db import schema
from holdfast.store.rollout import traffic_plans
from holdfast.web.app import build_app
from tests.soak.nights_compare import Shown, differences
from tests.soak.nights_data import DATA_SETS, FIRST_NIGHT, known_between
from tests.soak.nights_recompute import Known, Response, auc
from tests.support.labelled import predict

NOW_US = 1_790_899_200_000_000 + 5_000_000  # 2026-10-02
VERSIONS = ("v1-00000000", "v2-00000000")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store.open(tmp_path / "store")
    with store.ledger.write() as connection:
        connection.execute(insert(schema.table_versions).values(committed_at_us=1, reason="ingest"))
        connection.execute(
            insert(schema.snapshots).values(
                snapshot="s", table_version=1, contract_hash="c" * 64, created_at_us=1
            )
        )
        for number, version in enumerate(VERSIONS, start=1):
            connection.execute(
                insert(schema.versions).values(
                    version=version, model="m", number=number, digest=f"{number:064d}", bytes=1, snapshot="s",
                    contract_hash="c" * 64, features_hash="f" * 64, learner="l", role="candidate", state="qualified",
                    created_at_us=1,
                )
            )  # fmt: skip
        plan = TrafficPlan(plan_id=0, model="m", champion=VERSIONS[0])
        traffic_plans.append(connection, plan, now_us=1)
    return store


def played(store: Store) -> tuple[list[Response], list[Known]]:
    """Predict 300 rows over 20 days by two versions; the responses to callers, and the labels of two rows of three."""
    responses, lines = [], []
    for number in range(300):
        at_us = NOW_US - number * DAY_US // 15
        version = VERSIONS[number % 5 == 0]
        predict(store, number, at_us, at_us, version=version, labelled=number % 3 > 0)
        random = np.random.default_rng(number)
        probability = random.uniform()
        responses.append(Response(str(number), version, probability, at_us))
        if number % 3:
            lines.append(Known(str(number), bool(random.uniform() < probability), at_us))
    return responses, lines


def shown(store: Store) -> Shown:
    app = build_app(store, "m", clock_us=lambda: NOW_US)

    async def read(*paths: str) -> list[str]:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            return [(await client.get(path)).text for path in paths]

    page_status, page, metrics = asyncio.run(read("/api/status", "/", "/metrics"))
    status: dict[str, Any] = json.loads(json.dumps(asdict(StatusReader(store, "m").read(now_us=NOW_US))))
    return Shown(status, json.loads(page_status), page, {"page": metrics})


def test_page_status_and_metrics_are_what_responses_and_label_files_give(store: Store) -> None:
    responses, lines = played(store)
    found = shown(store)
    assert differences(found, responses, lines, delay_us=0) == []
    assert found.status["coverage"]["labelled"] == 200


def test_a_figure_that_differs_is_found_wherever_it_is_shown(store: Store) -> None:
    responses, lines = played(store)
    found = shown(store)
    corrected = [*lines, replace(lines[0], value=not lines[0].value, known_at_us=NOW_US)]
    places = {
        each.split(",")[0].split(" ")[0] for each in differences(found, responses, corrected, delay_us=0)
    }
    assert places == {"status", "page", "metrics"}
    later = [replace(each, known_at_us=NOW_US + DAY_US) for each in lines]
    assert any("coverage" in each for each in differences(found, responses, later, delay_us=0))
    for change in ({"predictions": 1}, {"labelled": 1}, {"coverage": 0.5}, {"auc": 0.5}):
        status = copy.deepcopy(dict(found.status))
        status["versions"][0] |= change
        assert len(differences(replace(found, status=status), responses, lines, delay_us=0)) == 1
    assert differences(replace(found, metrics={"loop": ""}), responses, lines, delay_us=0)
    assert differences(found, responses[1:], lines, delay_us=0)


def test_pairs_are_counted() -> None:
    rng = np.random.default_rng(1)
    positives, negatives = rng.integers(0, 9, 40).tolist(), rng.integers(0, 9, 30).tolist()
    wins = sum((p > n) + 0.5 * (p == n) for p in positives for n in negatives)
    assert auc(positives, negatives) == wins / 1200


@pytest.mark.parametrize("name", sorted(DATA_SETS))
def test_the_data_have_one_law_and_labels_that_come_weeks_later(name: str, tmp_path: Path) -> None:
    data = replace(DATA_SETS[name], export_rows=3_000)
    export = data.export(7)
    assert len({row.key for row in export}) == 3_000
    assert export == data.export(7)
    waits = [row.labels[0].known_at - row.at for row in export]
    assert timedelta(days=9) < min(waits) < max(waits) < timedelta(days=36)
    assert 20 < sum(len(row.labels) > 1 for row in export) < 120
    night = data.day(7, FIRST_NIGHT)
    assert 39 <= len(night) <= 240
    assert {row.at.date() for row in night} == {FIRST_NIGHT}
    known = known_between(export, datetime(2000, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC))
    assert len(known) == sum(len(row.labels) for row in export)
    data.write_rows(tmp_path / "rows.csv", night)
    lines = (tmp_path / "rows.csv").read_text().splitlines()
    assert len(lines) == len(night) + 1
