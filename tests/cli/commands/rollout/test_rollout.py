"""`holdfast rollout` and `policy`, as a person types them, over a real ledger."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from typer.testing import CliRunner

from holdfast.cli.app import app, load_commands
from holdfast.errors import HoldfastError, NotFoundError, RefusedError
from holdfast.rollout import State
from holdfast.store.backout import backouts, taints
from holdfast.tables.backout import BackoutPlan
from tests.support.push_world import Pushes

DECLARED = """
from holdfast.contract import Contract, Label, Number, Text, Timestamp
from holdfast.declaration import Model
from holdfast.features import Passthrough, Weekday
from holdfast.feeds import Feed
from holdfast.rollout import Canary
from holdfast.train import LogisticRegression, GroupMean

contract = Contract(
    Text("id"), Text("carrier"), Number("distance", unit="mi"), Timestamp("at", tz="UTC"), key="id", event_time="at",
    label=Label("late", delay="1h", missing="keep"),
)
rows = Feed("flights", contract)
model = Model(
    "m", examples=rows, feeds=(rows,), contract=contract, features=(Passthrough("distance"),), learner=LogisticRegression(),
    heuristic=GroupMean(by=(Weekday("at"),)), rollout=Canary(steps=(10, 50, 100), alpha=0.05),
)
"""
DAY_US = 86_400_000_000


class Shell:
    """Runs commands in one project, in this process."""

    def __init__(self, directory: Any) -> None:
        load_commands("")
        self.directory = directory

    def __call__(self, *words: str) -> str:
        done = CliRunner().invoke(app, [*words, "--project", str(self.directory)], env={"COLUMNS": "200"})
        if isinstance(done.exception, HoldfastError):
            raise done.exception
        assert done.exit_code == 0, (done.output, done.exception)
        return done.output

    def json(self, *words: str) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self(*words, "--json"))
        return document


@pytest.fixture
def history(tmp_path):
    """A model whose first version was promoted a while ago."""
    (tmp_path / "model.py").write_text(DECLARED)
    made = Pushes.open(tmp_path / ".holdfast", tmp_path / "log")
    made.world.now_us = time.time_ns() // 1000 - 30 * DAY_US
    made.promote()
    return made


@pytest.fixture
def shell(tmp_path, history):
    return Shell(tmp_path)


def test_a_rollout_is_shown_held_and_resumed(history, shell):
    assert shell.json("rollout", "status") == {"progress": None, "queued": None, "dropped": ""}
    with pytest.raises(NotFoundError, match="no rollout"):
        shell("rollout", "pause")
    history.minutes(1)
    history.world.begin(history.version())
    history.step()
    history.minutes(1)
    shown = shell.json("rollout", "status")["progress"]
    assert (shown["state"], shown["share_ppm"], shown["bake_until_us"]) == ("canary", 100_000, None)
    errors = shown["metrics"][0]
    assert (errors["metric"], errors["needed"], errors["difference"]) == ("errors", 20, "odds ratio")
    words = shell("rollout", "status")
    assert "share 10 %; steps 10 %, 50 %, 100 %" in words
    assert "next: waits for" in words
    assert "unknown" not in words, "what cannot be forecast yet is not printed"
    assert "challenger against champion, 95 %" in words
    assert "paused" in shell("rollout", "pause", "--reason", "lunch")
    assert "paused by" in shell("rollout", "status")
    assert ": tea" in shell("rollout", "pause", "--reason", "tea")
    assert ": tea" in shell("rollout", "pause")  # no reason is no other one
    assert ": tea" in history.reported("rollout.paused")[0]
    assert shell.json("rollout", "resume")["state"] == "canary"


def test_a_rollout_is_queued_and_a_repeated_command_ends_as_the_first_did(history, shell):
    champion = history.world.plan().champion
    assert shell.json("rollout", "start", champion)["state"] == "champion"
    history.world.begin(history.version())
    history.minutes(1)
    history.step()
    newer = history.version()
    for _ in range(2):
        queued = shell.json("rollout", "start", newer)
        assert (queued["state"], queued["waits_for"]) == ("queued", history.world.row().rollout_id)
    assert shell.json("rollout", "status")["queued"] == newer
    assert f"queued: {newer}, requested by" in shell("rollout", "status")
    assert f"queued: {newer}, until" in shell("status")
    assert "was rolled back" not in shell("rollout", "undo", "--version", newer, "--no-wait")
    assert shell.json("rollout", "status")["queued"] is None


def test_no_next_command_of_a_version_leads_back_to_itself(history, shell):
    """`rollout start` of a heuristic named `qualify`, which named `rollout start`; of a refused version, only `qualify`."""
    with pytest.raises(RefusedError, match="no rollout moves it") as heuristic:
        shell("rollout", "start", history.world.add_version("heuristic", "registered"))
    assert "qualify" not in heuristic.value.next_command
    refused = history.world.add_version("candidate", "refused")
    with pytest.raises(RefusedError) as found:
        shell("rollout", "start", refused)
    assert found.value.next_command.startswith("holdfast train")


def test_an_edit_of_the_policy_is_shown_with_both_error_rates(history, shell):
    """R116: what it costs and what it buys, with the traffic that the model has."""
    history.world.now_us = time.time_ns() // 1000 - 30 * 60_000_000
    history.minutes(3, lambda _, number: {"failed": number % 50 == 0})
    number = history.world.row().rollout_id
    found = shell.json("policy", "--against", str(number))
    changed = {each["field"]: (each["before"], each["after"]) for each in found["changes"]}
    assert changed["alpha"] == ("0.01", "0.05")
    assert found["traffic"]["error_rate"] == pytest.approx(0.02, abs=0.02)
    doubled = found["power"][0]
    assert doubled["metric"] == "errors"
    assert doubled["after"]["false_alarm"] == pytest.approx(5 * doubled["before"]["false_alarm"])
    assert doubled["after"]["within_hour"] >= doubled["before"]["within_hour"]
    words = shell("policy")
    assert "at most 2.00 % before, 10.00 % declared in all stages" in words
    assert "half found" in words


def test_a_policy_without_traffic_reports_what_is_unknown(history, shell):
    assert "what it would find is unknown" in shell("policy")


def test_a_policy_before_any_rollout_is_shown_alone(tmp_path):
    (tmp_path / "model.py").write_text(DECLARED)
    words = Shell(tmp_path)("policy")
    assert "there is no earlier rollout" in words
    assert "at most 10.00 % declared" in words
    assert "labels_per_step" in words
    assert Shell(tmp_path).json("policy")["policy"]["steps"] == "[10.0, 50.0, 100.0]"


def test_pushes_are_listed_and_labelled_later(history, shell):
    history.promote()
    number = history.world.row().rollout_id
    with pytest.raises(RefusedError, match="is not over"):
        shell("rollout", "label", str(number), "bad", "--reason", "refunds")
    history.world.rollback()
    assert history.world.row().state is State.ROLLING_BACK
    assert shell.json("rollout", "label", str(number), "bad", "--reason", "refunds")["push"] == "escaped"
    listed = shell.json("rollout", "history")
    assert [each["outcome"] for each in listed["pushes"]] == ["escaped", "censored"]
    assert (listed["totals"]["escaped"], listed["totals"]["censored"]) == (1, 1)
    words = shell("rollout", "history")
    assert "refunds" in words
    assert "in all 2: 0 good, 0 bad, 1 escaped, 1 censored, 0 open" in words


def test_a_probe_of_an_older_plan_confirms_nothing(history, shell):
    """R131: what was answered under the plan before reports nothing about the one that a rollback just wrote."""
    history.promote()
    history.world.probe()
    (before,) = [each for each in shell.json("status")["servers"] if each["server"] == "srv"]
    assert before["verdict"] == "pass"
    history.world.rollback()
    (after,) = [each for each in shell.json("status")["servers"] if each["server"] == "srv"]
    plan = history.world.plan().plan_id
    assert (after["verdict"], after["plan_id"]) == ("inconclusive", plan - 1)
    assert after["explanation"].startswith(f"Plan {plan} is newer than this probe")


@pytest.mark.parametrize("is_qualified", [True, False])
def test_a_tainted_newest_version_is_named_in_no_next_command(history, shell, is_qualified):
    """After a back-out HF403 named `rollout start` of a tainted version, or to qualify it, which HF406 refuses."""
    newest = history.version() if is_qualified else history.world.add_version(state="registered")
    if is_qualified:
        history.minutes(1)
        history.world.begin(newest)
        history.step()
        history.minutes(1)
        shell("rollout", "undo", "--no-wait")
    with pytest.raises(RefusedError, match=rf"HF403.*{newest}"):
        shell("rollout", "start")
    with history.world.store.ledger.write() as connection:
        plan = BackoutPlan("flights", "h1", ())
        number = backouts.begin(
            connection, plan, reason="wrong clock", actor="eve", now_us=history.world.tick()
        )
        taints.add(connection, "version", [newest], backout=number, now_us=history.world.tick())
    with pytest.raises(RefusedError, match=r"HF406.*holdfast train") as refused:
        shell("rollout", "start")
    assert newest not in refused.value.next_command


@pytest.mark.parametrize("as_json", [True, False])
def test_a_rollback_states_which_queued_version_it_dropped(history, shell, as_json):
    history.world.begin(history.version())
    history.minutes(1)
    history.step()
    newer = history.version()
    shell("rollout", "start", newer)
    if as_json:
        assert shell.json("rollback", "--no-wait")["dropped"] == newer
        assert newer in shell.json("rollout", "status")["dropped"]
        assert newer in shell.json("status")["dropped"]
    else:
        assert f"dropped {newer} was queued, and is not rolled out" in shell("rollback", "--no-wait")
        for words in (("rollout", "status"), ("status",)):
            assert f"dropped from the queue: {newer}, queued by" in shell(*words)
