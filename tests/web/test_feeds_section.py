"""The section "Data" of the page: volume and slices of each feed, seen in a real browser."""

from __future__ import annotations

import re
import socket
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import uvicorn
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By

from holdfast.contract import Category, Contract, Integer, Timestamp
from holdfast.contract.profile.column_profile import WordProfile
from holdfast.contract.profile.profile import Profile
from holdfast.control.ingest.ingest import ingest
from holdfast.feeds import Feed
from holdfast.store import Store
from holdfast.web import feeds_section
from holdfast.web.app import build_app
from holdfast.web.charts import Drawings

NOW_US = 1_700_000_000_000_000
ORDERS = Feed(
    "orders",
    Contract(Integer("id"), Category("site"), Timestamp("at", tz="UTC"), key="id", event_time="at"),
)
BATCHES = 40


def test_volume_and_slices_are_read_from_profiles():
    draw = np.random.default_rng(1)

    def batch(number: int, rows: int, north: float) -> tuple[str, Profile]:
        count = int(draw.binomial(rows, north))
        words = WordProfile({"north": count, "south": rows - count}, 0, 0)
        return f"b{number}", Profile(rows, {"site": words}, {})

    quiet = feeds_section.of_feed("orders", [batch(n, 500 + n % 3, 0.3) for n in range(50)])
    assert quiet.unusual == ()
    assert quiet.band is not None
    loud = feeds_section.of_feed(
        "orders", [batch(n, 500 + n % 3, 0.3 if n < 40 else 0.5) for n in range(49)] + [batch(49, 90, 0.5)]
    )
    assert loud.unusual == ("b49",)
    assert loud.slices[0].alarm
    assert feeds_section.of_feed("orders", [("b1", None)]).volume == ()


def test_the_batches_of_a_slice_chart_are_drawn_in_their_order():
    draw = np.random.default_rng(1)
    history = []
    for number in range(50):
        north = int(draw.binomial(500, 0.3))
        words = WordProfile({"north": north, "south": 500 - north}, 0, 0)
        history.append((f"b{number:02}", Profile(500, {"site": words}, {})))
    chart = feeds_section.of_feed("orders", history).slices[0]
    drawn = Drawings().draw(feeds_section.slice_chart(chart, width=900, height=200))
    places = {
        batch: float(place)
        for place, batch in re.findall(r"translate\(([\d.]+),[\d.]+\)[^>]*>(b\d\d)</text>", drawn)
    }
    assert len(places) > 5
    assert sorted(places, key=places.__getitem__) == sorted(places)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    root = tmp_path_factory.mktemp("page")
    found = Store.open(root / "store")
    for number in range(BATCHES):
        ingest(found, ORDERS, f"b{number:02}", _delivery(root, number), now_us=NOW_US + number)
    return found


def _delivery(root: Path, number: int) -> Path:
    draw = np.random.default_rng(number)
    rows = 60 + number % 3
    path = root / f"{number}.parquet"
    north = 0.3 if number < 32 else 0.8
    pl.DataFrame(
        {
            "id": np.arange(rows) + 1000 * number,
            "site": np.where(draw.random(rows) < north, "north", "south").tolist(),
            "at": [datetime(2013, 1, 1, tzinfo=UTC) + timedelta(days=number, minutes=n) for n in range(rows)],
        }
    ).write_parquet(path)
    return path


@pytest.mark.process
@pytest.mark.browser
def test_the_page_shows_charts_of_volume_and_slices_and_reports_which_moved(store):
    listener = socket.create_server(("127.0.0.1", 0))
    app = build_app(store, "shop", clock_us=lambda: NOW_US)
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", access_log=False, ws="none"))
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for flag in ("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = webdriver.Chrome(options=options, service=Service("/usr/bin/chromedriver"))
    try:
        browser.get(f"http://127.0.0.1:{listener.getsockname()[1]}/")
        section = browser.find_element(By.ID, "data")
        moved = {chip.text for chip in section.find_elements(By.CSS_SELECTOR, "summary .chip.fail")}
        assert moved == {"site=north", "site=south"}
        assert "more than usual since batch b3" in section.text
        drawn = [svg for svg in section.find_elements(By.CSS_SELECTOR, ".chart svg") if svg.is_displayed()]
        assert len(drawn) == 3
        assert all(svg.size["width"] > 300 for svg in drawn)
        assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
    finally:
        browser.quit()
        server.should_exit = True
        thread.join(timeout=10)
        listener.close()
