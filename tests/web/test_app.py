import asyncio
import dataclasses
import json
import re
import sys

import httpx
import pytest

from holdfast.control.reports.status import StatusReader, status
from holdfast.monitor.traffic_record import LabelShare, TrafficComparison, TrafficSlice
from holdfast.records import canonical_json
from holdfast.stats import Interval
from holdfast.store.telemetry import quarantined_labels, traffic_comparison
from holdfast.store.telemetry.quarantined_labels import QuarantinedLabel
from holdfast.web import rollout_section
from holdfast.web.app import SECURITY_HEADERS, build_app
from holdfast.web.charts import Drawings
from holdfast.web.contexts import Page, page
from tests.support.labelled import predict
from tests.support.rollout_world import World

BASE = "http://127.0.0.1:8081"


class Client:
    """Asks the application in this process."""

    def __init__(self, app):
        self._transport = httpx.ASGITransport(app)

    def request(self, method, path, headers=None):
        async def ask():
            async with httpx.AsyncClient(transport=self._transport, base_url=BASE) as client:
                return await client.request(method, path, headers=headers)

        return asyncio.run(ask())

    def get(self, path, headers=None):
        return self.request("GET", path, headers)


def client_of(store, history, **settings):
    return Client(build_app(store, "flight-delay", clock_us=lambda: history.now_us, **settings))


@pytest.fixture(scope="module")
def client(store, history):
    return client_of(store, history)


def test_the_page_shows_the_running_rollout_and_every_version(client, history):
    text = client.get("/").text
    assert f"{history.first} serves; {history.tried} is the canary with 5 % of the traffic." in text
    for version in (history.first, history.sent_back, history.tried, history.heuristic):
        assert version in text
    assert 'aria-current="step">5 %' in text
    assert "of 63,217 requests" in text
    assert "every request succeeded" not in text, "three have failed"
    assert "model error 3" in text
    assert "2013-03-18 " in text, "a day alone is that before in many zones"


def test_the_chart_names_its_axes_and_marks_what_was_decided(client, history):
    text = client.get("/").text
    assert "AUC (0.5 is chance)" in text
    assert "Day of the prediction (UTC)" in text
    assert "Requests per minute" in text
    assert f"{history.sent_back.split('-')[0]} rolled back" in text


def test_without_its_extra_a_chart_is_replaced_by_what_installs_it(store, history, monkeypatch):
    monkeypatch.setitem(sys.modules, "vl_convert", None)  # as Python sees a package that is not installed
    text = client_of(store, history).get("/").text
    assert "HF112: a chart needs the extra &#39;charts&#39;" in text
    assert "pip install &#39;holdfast[charts]&#39;" in text
    assert f"{history.first} serves" in text
    assert 'class="wide"' not in text


def test_the_api_reports_the_same_as_the_status_function(client, store, history):
    document = client.get("/api/status").json()
    expected = status(store, "flight-delay", now_us=history.now_us)
    assert document == json.loads(canonical_json(expected))
    assert document["plan"]["champion"] == history.first
    assert {row["version"] for row in document["versions"]} >= {history.first, history.tried}
    assert document["labels"]["rejected_labels"] == 5


def test_what_came_from_outside_is_escaped(client, history):
    """Stored markup stays text, in the page and in the part that is swapped in."""
    for path in ("/", "/live"):
        text = client.get(path).text
        assert history.nasty not in text
        assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text


def test_nothing_is_inline(client):
    """The policy forbids inline script and style, so the page must have none."""
    text = client.get("/").text
    assert not re.search(r"\sstyle=|\son[a-z]+=|<style|<script(?![^>]*\ssrc=)", text)
    assert "http" not in re.sub(r'xmlns(:xlink)?="[^"]*"|http://127\.0\.0\.1[^"<\s]*', "", text).replace(
        "http-equiv", ""
    )


@pytest.mark.parametrize("path", ["/", "/live", "/api/status", "/static/page.css", "/nothing", "/health"])
def test_every_response_carries_the_security_headers(client, path):
    response = client.get(path)
    for name, value in SECURITY_HEADERS:
        assert response.headers[name.decode()] == value.decode()


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize("path", ["/", "/live", "/api/status", "/health", "/static/page.css"])
def test_nothing_but_reading_is_offered(client, method, path):
    assert client.request(method, path).status_code == 405


@pytest.mark.parametrize(
    ("host", "code"),
    [
        ("127.0.0.1:8081", 200),
        ("localhost", 200),
        ("[::1]:8081", 200),
        ("models.example.org", 200),
        ("evil.example.com", 421),
        ("127.0.0.1.evil.example.com", 421),
        ("", 421),
    ],
)
def test_a_foreign_name_is_refused(store, history, host, code):
    """A page elsewhere cannot read this one by pointing its own name here."""
    client = client_of(store, history, allowed_hosts=["models.example.org"])
    assert client.get("/health", headers={"host": host}).status_code == code


def test_an_empty_ledger_reports_which_command_comes_next(empty_store, history):
    text = client_of(empty_store, history).get("/").text
    for words in (
        "No version has been rolled out yet.",
        "holdfast ingest",
        "holdfast up",
        "holdfast feedback",
    ):
        assert words in text
    assert client_of(empty_store, history).get("/api/status").json()["plan"] is None


def test_every_field_of_the_page_has_help_and_is_used(store, history):
    shown = page(
        StatusReader(store, "flight-delay").read(now_us=history.now_us),
        rollout_section.read(store, "flight-delay", now_us=history.now_us),
        Drawings(),
    )
    fields = dataclasses.fields(Page)
    assert all(field.metadata["help"] for field in fields)
    assert {field.name for field in fields} == set(shown.__slots__)


def test_the_same_data_is_drawn_once(store, history):
    reader, drawings = StatusReader(store, "flight-delay"), Drawings()
    running = rollout_section.read(store, "flight-delay", now_us=history.now_us)
    first = page(reader.read(now_us=history.now_us), running, drawings)
    again = page(reader.read(now_us=history.now_us + 1_000_000), running, drawings)
    assert first.quality is not None
    assert first.quality.wide is not again.quality.wide or str(first.quality.wide) == str(again.quality.wide)
    assert len(drawings._drawn) == 6


def test_what_callers_ask_and_training_did_not_show_is_on_the_page_and_escaped(empty_store, history):
    """R51, R53, R50: a value of a slice is what a client sent."""
    missing = TrafficSlice("origin", history.nasty, 300, 0.3, 0, covered=False)
    trained_on = TrafficSlice("origin", "EWR", 700, 0.7, 9, covered=True)
    label = LabelShare(
        0.2, Interval(0.3, 0.28, 0.32), 0.31, 900, None, 0, shifted=True, explanation="by estimate for 30.0%"
    )
    found = TrafficComparison(history.first, 1_000, 1, 2, 3, (missing, trained_on), label)
    with empty_store.ledger.write() as connection:
        traffic_comparison.put(connection, "flight-delay", found)
        assert traffic_comparison.last(connection, "flight-delay") == found
    text = client_of(empty_store, history).get("/").text
    assert "unseen slice" in text
    assert "30.0 %" in text
    assert "label shifted" in text
    assert "by estimate for 30.0%" in text
    assert history.nasty not in text
    assert "origin = EWR" not in text


def test_a_canary_with_all_traffic_is_not_being_verified(store, history):
    known = StatusReader(store, "flight-delay").read(now_us=history.now_us)
    plan = dataclasses.replace(known.plan, share_ppm=1_000_000)
    section = rollout_section.read(store, "flight-delay", now_us=history.now_us)
    words = {}
    for state in ("canary", "verifying"):
        rollouts = tuple(
            dataclasses.replace(each, state=state) if each.running else each for each in known.rollouts
        )
        words[state] = page(
            dataclasses.replace(known, plan=plan, rollouts=rollouts), section, Drawings()
        ).headline
    assert words == {
        "canary": f"{plan.challenger} has all traffic and is the canary.",
        "verifying": f"{plan.challenger} has all traffic and is being verified.",
    }


def test_a_tainted_champion_is_reported_at_the_top(store, history):
    known = StatusReader(store, "flight-delay").read(now_us=history.now_us)
    plan = dataclasses.replace(known.plan, challenger=None, share_ppm=0)
    spoilt = tuple(
        dataclasses.replace(each, taint="batch b1 was backed out") if each.place == "champion" else each
        for each in known.versions
    )
    held = dataclasses.replace(known, plan=plan, versions=spoilt)
    shown = page(held, rollout_section.read(store, "flight-delay", now_us=history.now_us), Drawings())
    assert shown.headline == f"{history.first} serves all traffic, although it is tainted."
    tile = next(each for each in shown.tiles if each.name == "Convergence")
    assert (tile.figure, tile.tone) == ("as declared, tainted", "fail")
    assert "there is no clean fallback version" in tile.detail


def test_the_tile_of_a_champion_without_labels_has_the_version_before(tmp_path):
    """Labels that take weeks come when the version that predicted has been replaced."""
    world = World.open(tmp_path)
    before, champion = world.add_version(), world.add_version()
    world.promote(before)
    for number in range(40):
        predict(world.store, number, world.now_us, world.now_us, version=before)
    world.promote(champion)
    predict(world.store, 40, world.now_us, world.now_us, version=champion, labelled=False)
    text = Client(build_app(world.store, "m", clock_us=lambda: world.now_us)).get("/").text
    assert re.search(rf"0 of its 1 predictions are labelled; {before} had 0\.\d{{3}} of 40 labels", text)


def test_quarantined_labels_are_on_the_page_and_escaped(store, history):
    """B4: the first sign of a mislabelling caller is that its labels are in quarantine."""
    assert 'id="quarantined-labels"' not in client_of(store, history).get("/").text
    held = [
        QuarantinedLabel(f"s1-1-{number}/0", None, 1.0, "<b>crm</b>", 1, "of 'bank'") for number in range(12)
    ]
    with store.ledger.write() as connection:
        quarantined_labels.add(connection, "flight-delay", held)
    text = client_of(store, history).get("/").text
    assert "12 quarantined" in text
    assert text.count("&lt;b&gt;crm&lt;/b&gt;") == 10
    assert "<b>crm" not in text
