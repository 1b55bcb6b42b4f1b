"""The page in a real browser: what a reader sees, on a screen and on a phone, and no error on the console."""

import itertools
import os
import socket
import threading
import time

import pytest
import uvicorn
from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait
from sqlalchemy import update

from holdfast.records import Arm
from holdfast.rollout import RequestOutcome, fold_requests
from holdfast.store.db import schema
from holdfast.store.db.events import append
from holdfast.store.rollout import evidence
from holdfast.web.app import build_app

pytestmark = [pytest.mark.browser, pytest.mark.process]


@pytest.fixture(scope="module")
def address(store, history):
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        build_app(store, "flight-delay", clock_us=lambda: history.now_us),
        log_level="error",
        access_log=False,
        ws="none",
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
    server.should_exit = True
    thread.join(timeout=10)
    listener.close()


@pytest.fixture(scope="module")
def browser():
    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for flag in (
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
        "--disable-dev-shm-usage",
    ):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service("/usr/bin/chromedriver"))
    yield driver
    driver.quit()


def screen(browser, width, height, *, dark=False):
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600},
    )
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})


def shown_svg(browser, section):
    return next(
        svg for svg in browser.find_elements(By.CSS_SELECTOR, f"#{section} .chart svg") if svg.is_displayed()
    )


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (1280, True), (390, False)])
def test_quality_is_a_chart_with_a_mark_for_every_version(browser, address, width, dark):
    """R164: quality over time is drawn, by version, without anything that the page's own policy forbids."""
    screen(browser, width, 900, dark=dark)
    browser.get(address)
    chart = shown_svg(browser, "quality")
    lines = chart.find_elements(By.CSS_SELECTOR, ".mark-line path")
    assert len({line.get_attribute("stroke") for line in lines}) == 3
    points = chart.find_elements(By.CSS_SELECTOR, ".mark-symbol.role-mark path")
    assert len(points) == 9 + 9 + 2
    assert any("rolled back" in text.text for text in chart.find_elements(By.CSS_SELECTOR, ".mark-text text"))
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    assert browser.get_log("browser") == []


def test_the_running_rollout_is_shown_with_its_evidence(browser, address, history):
    screen(browser, 1280, 900)
    browser.get(address)
    card = browser.find_element(By.ID, "rollout")
    assert history.tried in card.text
    assert card.find_element(By.CSS_SELECTOR, "[aria-current=step]").text == "5 %"
    bars = card.find_elements(By.CSS_SELECTOR, ".evidence .bar")
    assert len(bars) == 3
    full, empty, _ = (bar.find_element(By.CSS_SELECTOR, ".fill").rect["width"] for bar in bars)
    assert full > empty
    assert {chip.text for chip in card.find_elements(By.CSS_SELECTOR, "td .chip")} == {
        "fail",
        "inconclusive",
        "pass",
    }


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (1280, True), (400, False)])
def test_the_running_rollout_fits_every_screen(browser, address, width, dark):
    """R164: shares, evidence over time, verdicts and the way are there, on a screen and on a phone."""
    screen(browser, width, 1000, dark=dark)
    browser.get(address)
    card = browser.find_element(By.ID, "rollout")
    assert card.find_element(By.CSS_SELECTOR, ".path [aria-current]").text == "canary"
    assert "4.1 % of 5,693" in card.find_element(By.ID, "realised").text
    lines = shown_svg(browser, "rollout").find_elements(By.CSS_SELECTOR, ".mark-line path")
    assert len({line.get_attribute("stroke") for line in lines}) == 3
    card.find_element(By.CSS_SELECTOR, "#decisions summary").click()
    assert "requested by ada" in card.text
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    assert browser.get_log("browser") == []
    if directory := os.environ.get("HOLDFAST_SCREENSHOTS"):
        card.screenshot(f"{directory}/rollout-{width}-{'dark' if dark else 'light'}.png")


def test_the_numbers_of_a_rollout_change_without_a_reload(browser, address, store):
    """The evidence of a running rollout goes on in front of a reader: no script of the page runs twice, no page loads."""
    screen(browser, 1280, 900)
    browser.get(address)
    browser.execute_script("window.wasHere = true")
    before = browser.find_element(By.CSS_SELECTOR, "#rollout .evidence tbody").text
    with store.ledger.write() as connection:
        states = evidence.canary_of_running(connection, 3)
        more = [RequestOutcome(b"new%d" % unit, Arm.CHALLENGER, True, 900.0) for unit in range(17)]
        more += [RequestOutcome(b"other%d" % unit, Arm.CHAMPION, False, 900.0) for unit in range(500)]
        evidence.put(connection, 3, fold_requests(states, more, 0), now_us=1)
    follows = WebDriverWait(browser, 30, ignored_exceptions=[StaleElementReferenceException])
    follows.until(lambda seen: seen.find_element(By.CSS_SELECTOR, "#rollout .evidence tbody").text != before)
    first = browser.find_element(By.CSS_SELECTOR, "#rollout .evidence tbody tr")
    assert "fail" in first.text
    with store.ledger.write() as connection:
        connection.execute(
            update(schema.rollouts).where(schema.rollouts.c.rollout_id == 3).values(reason="held by ada")
        )
    # A reader that listens and does not look hears of it, without a reload as well.
    follows.until(
        lambda seen: "held by ada" in seen.find_element(By.ID, "announcement").get_attribute("textContent")
    )
    assert browser.execute_script("return window.wasHere") is True
    assert browser.get_log("browser") == []


def test_without_script_the_page_is_whole_and_comes_again(browser, address):
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        browser.get(address)
        assert "evidence of harm" in browser.page_source
        assert 'http-equiv="refresh"' in browser.page_source
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


def test_the_page_follows_by_itself_and_what_was_opened_stays_open(browser, address, store, history):
    screen(browser, 1280, 900)
    browser.get(address)
    opened = browser.find_element(By.CSS_SELECTOR, "#versions details")
    name = opened.get_attribute("id")
    opened.find_element(By.TAG_NAME, "summary").click()
    with store.ledger.write() as connection:
        append(
            connection,
            at_us=history.now_us,
            kind="test.reported",
            subject="page",
            explanation=f"reported at {time.time()}",
        )
    # The page may swap its parts between the finding of an element and the reading of it: then look again.
    follows = WebDriverWait(browser, 30, ignored_exceptions=[StaleElementReferenceException])
    follows.until(lambda seen: "test reported" in seen.find_element(By.ID, "events").text)
    assert browser.find_element(By.ID, name).get_attribute("open") is not None
    assert browser.get_log("browser") == []


LABELS = """
const boxes = [];
for (const svg of document.querySelectorAll(".chart svg")) {
  if (!svg.getClientRects().length) continue;
  const edge = svg.getBoundingClientRect();
  for (const axis of svg.querySelectorAll(".role-axis-label")) {
    const texts = [...axis.children].filter(text => text.textContent && text.getAttribute("text-anchor") === "middle");
    const found = texts.map(text => [text.textContent, text.getBoundingClientRect()]);
    boxes.push(found.map(([text, box]) => [text, box.left - edge.left, box.right - edge.left, edge.width]));
  }
}
return boxes;
"""


@pytest.mark.parametrize("width", [390, 800, 1280, 1600])
def test_no_label_of_an_axis_covers_another_or_leaves_its_chart(browser, address, width):
    """In the fonts of a browser, which are not those that the charts were drawn with."""
    screen(browser, width, 900)
    browser.get(address)
    axes = [sorted(axis, key=lambda label: label[1]) for axis in browser.execute_script(LABELS) if axis]
    assert len(axes) >= 3
    for axis in axes:
        assert all(one[2] < other[1] for one, other in itertools.pairwise(axis)), axis
        assert axis[0][1] >= -1
        assert axis[-1][2] <= axis[-1][3] + 1
