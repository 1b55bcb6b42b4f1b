"""The demonstration: the whole way of a model, on real flights, in the order in which it would happen."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.markup import escape

from holdfast.cli.app import command
from holdfast.cli.demo.formatting import held_out_auc, listed, steps_of, wrapped
from holdfast.cli.demo.sandbox import Stage
from holdfast.cli.options import AsJson
from holdfast.cli.output import Report
from holdfast.cli.project import Project, now_us
from holdfast.control.backout import backout
from holdfast.control.evaluation import qualify
from holdfast.control.ingest import acceptance
from holdfast.control.maintenance import verify
from holdfast.control.reports.status import status
from holdfast.control.rollout import reconcile
from holdfast.control.training import train
from holdfast.declaration import Model
from holdfast.errors import RefusedError
from holdfast.formatting import counted
from holdfast.qualify import GateResult
from holdfast.records import BatchId, Verdict
from holdfast.rollout.model.state_machine import RESTING, State
from holdfast.store.rollout import rollouts
from holdfast.store.rollout.rollouts import RolloutRow
from holdfast.tables.backout import BackoutPlan, total_impact

FIRST_DAY: Final = date(2013, 1, 1)
LOADED_UNTIL: Final = date(2013, 3, 31)
KILLED_DAY: Final = date(2013, 2, 14)
QUIET_DAYS: Final = 7
"""Days of April that are replayed before the model is trained again."""
COLD_DAY: Final = date(2013, 4, 3)
"""Among the quiet days: its weather comes in degrees Celsius, under the name of Fahrenheit."""
LAST_DAY: Final = date(2013, 6, 30)
PATIENCE_DAYS: Final = 30
"""A rollout that is not decided after so many days of traffic means that something is wrong."""

ENDS: Final = "the demonstration ends here"

Document = dict[str, Any]


@command("Begin")
def demo(
    directory: Annotated[
        Path, typer.Option("--directory", help="Where it is played; made anew each time.", file_okay=False)
    ] = Path("demo-data"),
    keep_running: Annotated[
        bool | None,
        typer.Option(
            "--keep-running/--no-keep-running",
            help="Keep the page running at the end.",
            show_default="on a terminal",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Load, train, qualify, roll out, serve, watch, and catch a bad push: on the real flights of New York, 2013."""
    report = Report(as_json=as_json)
    if keep_running is None:
        keep_running = sys.stdout.isatty() and not as_json
    # Ended from outside, it takes its processes with it as after Ctrl-C.
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(143))
    Story(report, directory).play(keep_running=keep_running)


class Story:
    """The chapters, and what they found."""

    def __init__(self, report: Report, directory: Path) -> None:
        self._report = report
        self._began = time.monotonic()
        self._chapter("0", "Cut the flights and the weather of New York, 2013, into daily deliveries")
        self._stage = Stage.build(directory, FIRST_DAY, LAST_DAY)
        self._today = LOADED_UNTIL
        self._gates: dict[str, list[GateResult]] = {}
        self._found: Document = {}

    def play(self, *, keep_running: bool) -> None:
        """Every chapter in order, then the last table; with `keep_running` the page remains until Ctrl-C."""
        self._load()
        with self._stage.running():
            self._first_version()
            self._quiet_days()
            self._better_version()
            self._bad_weather()
            self._bad_push()
            self._last_table()
            if keep_running:
                self._report.say("\n[bold]Look at it:[/] " + f"[cyan]{self._page}[/]   (Ctrl-C ends it)")
                try:
                    threading.Event().wait()
                except KeyboardInterrupt:
                    self._report.say("ended")
        self._report.say(f"\nThe page is closed; to open it again: [cyan]{escape(self._found['reopen'])}[/]")
        self._report.result(self._found)

    @property
    def _page(self) -> str:
        settings = self._stage.project.settings
        return f"http://{settings.host}:{settings.page_port}/"

    def _chapter(self, number: str, title: str) -> None:
        self._report.say(
            f"\n[bold cyan]{number}[/] [bold]{title}[/]  [dim]{time.monotonic() - self._began:.0f} s[/]"
        )

    def _say(self, head: str, words: str) -> None:
        """A line that is broken at words and goes on under itself."""
        for line in wrapped(head, words):
            self._report.say(line)

    # --- 1 ---------------------------------------------------------------------------------------------------------------

    def _load(self) -> None:
        stage, report = self._stage, self._report
        self._chapter("1", "Load January to March: each day once, whole, checked by its feed's contract")
        days = list(_days(FIRST_DAY, LOADED_UNTIL))
        feeds = [feed.name for feed in stage.project.model.feeds]
        reasons: Counter[str] = Counter()
        killed, statuses = 0, list[int]()
        with report.progress("loading") as step:
            for done, day in enumerate(days):
                for feed in feeds:
                    if (feed, day) == ("flights", KILLED_DAY):
                        killed = stage.killed_load(feed, day)
                        statuses = stage.resubmitted_load(feed, day, times=4)
                        continue
                    reasons.update({f"{feed} {why}": n for why, n in stage.load(feed, day).reasons.items()})
                step(done + 1, len(days))
        report.say(f"  {len(days) * len(feeds) - 1} batches; into quarantine went {listed(reasons)}")
        report.say(
            f"  the load of flights/{KILLED_DAY} is killed in the middle: exit status {killed} (SIGKILL)"
        )
        report.say(f"  resubmitted by 4 processes at once: exit statuses {statuses}")
        delivered = sum(stage.delivered(feed, FIRST_DAY, LOADED_UNTIL) for feed in feeds)
        loaded = stage.loaded()
        outcome = verify.verify(stage.store, now_us=now_us())
        report.say(
            f"  delivered {delivered:,} rows; in the tables {loaded.rows:,}, in quarantine {loaded.quarantined:,}, "
            f"twice {loaded.duplicates:,}; verify: {len(outcome.findings)} findings"
        )
        if loaded.rows + loaded.quarantined != delivered or loaded.duplicates or outcome.findings:
            raise RefusedError("HF901", "the tables do not hold exactly what was delivered", state=ENDS)
        self._found |= {
            "rows_delivered": delivered,
            "rows_loaded": loaded.rows,
            "rows_quarantined": loaded.quarantined,
            "duplicates": loaded.duplicates,
            "killed_load_exit_status": killed,
            "verify_findings": len(outcome.findings),
        }

    # --- 2 ---------------------------------------------------------------------------------------------------------------

    def _first_version(self) -> None:
        self._chapter("2", "Train, qualify, deploy the first version")
        version = self._train_and_qualify(self._stage.project.model)
        reconcile.begin(self._stage.store, self._stage.project.model, version, actor="demo", now_us=now_us())
        self._stage.caller.wait_until_ready(60)
        self._stage.wait(
            lambda: self._rollout().state is State.PROMOTED, "the first version to be confirmed by a probe"
        )
        self._report.say(
            f"  {version} answers at [cyan]{self._stage.caller.address}[/]; a probe confirmed it"
        )
        self._report.say(f"  the page: [cyan]{self._page}[/]")

    def _train_and_qualify(self, model: Model) -> str:
        stage, report = self._stage, self._report
        snapshot = stage.project.cut(stage.store)
        with report.progress("training") as step:
            trained = train.train(
                stage.store, model, snapshot.snapshot, now_us=now_us(), seed=0, progress=step
            )
        report.say(
            f"  trained [bold]{trained.version}[/] on {trained.rows_trained:,} flights of snapshot {snapshot.snapshot}"
        )
        with report.progress("qualifying"):
            results = qualify.qualify(stage.store, model, trained.version, now_us=now_us())
        self._gates[trained.version] = results
        passed = all(result.verdict is Verdict.PASS for result in results)
        if passed and len(self._gates) > 1:
            self._say(
                "    pass  ", f"all {len(results)} gates; {results[-1].gate}: {results[-1].explanation}"
            )
        else:
            for result in results:
                self._say(f"  {result.verdict:>6}  {result.gate:<10} ", result.explanation)
        if not passed:
            raise RefusedError("HF403", f"{trained.version} was refused by a gate", state=ENDS)
        return trained.version

    # --- 3 ---------------------------------------------------------------------------------------------------------------

    def _quiet_days(self) -> None:
        self._chapter("3", f"Replay the days after it over HTTP, the truth a day late ({QUIET_DAYS} days)")
        began, before = time.monotonic(), self._stage.caller.tally.requests
        self._stage.spoil_weather(COLD_DAY)
        for _ in range(QUIET_DAYS):
            self._play_day()
        requests = self._stage.caller.tally.requests - before
        seconds = time.monotonic() - began
        self._report.say(
            f"  {requests:,} requests, {requests / seconds:,.0f} a second, 5xx: {self._stage.caller.tally.http_5xx}"
        )

    def _play_day(self) -> None:
        self._today += timedelta(days=1)
        for violation in self._stage.play_day(self._today):
            if self._today == COLD_DAY and violation.subject == "temperature":
                self._say(f"  {self._today}  weather, {violation.level}: ", violation.explanation)
                self._say(
                    " " * 14, "the feed is suspect now: nothing trains on it before a person has looked"
                )
                self._found["warned"] = violation.explanation
        self._stage.settle()

    # --- 4, 6 ------------------------------------------------------------------------------------------------------------

    def _better_version(self) -> None:
        self._chapter("4", "Train again on what has come since, and promote through a canary")
        self._accept_wrongly()
        version = self._train_and_qualify(self._stage.project.model)
        ended = self._canary(self._stage.project.model, version)
        if ended.state is not State.PROMOTED:
            raise RefusedError("HF403", f"the good version was not promoted: {ended.reason}", state=ENDS)
        self._report.say(f"  [green]promoted[/] {version} on {self._today}")

    def _accept_wrongly(self) -> None:
        """Nothing would train on a suspect feed; a person takes the cold for real, and that is where it goes wrong."""
        stage, batch = self._stage, BatchId("weather", str(COLD_DAY))
        done = acceptance.accept(stage.store, batch, reason="a cold front", actor="demo", now_us=now_us())
        found = counted(len(done.violations), "violation")
        self._report.say(f"  somebody accepts {found} of {batch} without looking: 'a cold front'")

    def _bad_weather(self) -> None:
        """Chapter 5: the version of chapter 4 has learnt from a bad file."""
        self._chapter("5", f"Find out that the weather of {COLD_DAY} was wrong, and back it out")
        stage, batch = self._stage, BatchId("weather", str(COLD_DAY))
        feeds = stage.project.model.feeds
        days = counted((self._today - COLD_DAY).days, "day")
        self._say(
            "  ", f"{days} later the sender says: it was in degrees Celsius, under the name of Fahrenheit"
        )
        self._say_plan(backout.plan_back_out(stage.store, feeds, batch))
        done = backout.back_out(
            stage.store,
            feeds,
            batch,
            reason="degrees Celsius, named Fahrenheit",
            actor="demo",
            now_us=now_us(),
        )
        stage.wait(lambda: self._rollout().state in RESTING, "a probe to confirm the roll-back")
        returned, reached = self._rollout(), total_impact(done.plan)
        clean = status(stage.store, stage.project.model.name, now_us=now_us())["plan"]["champion"]
        seconds = rollouts.rollback_seconds(stage.store, returned.rollout_id)
        self._report.say(
            f"  [green]backed out[/]; {clean}, which never saw the file, answers after {seconds:.2f} s"
        )
        self._play_day()
        self._report.say(
            f"  {self._today}  {clean} answers the day; 5xx so far: {stage.caller.tally.http_5xx}"
        )
        stage.mend_weather(COLD_DAY)
        for feed, _, _ in done.plan.loads:
            again = stage.load(feed, COLD_DAY)
            self._report.say(
                f"  {feed}/{COLD_DAY} is loaded again, as load {again.epoch}: {again.rows_loaded} rows"
            )
        version = self._train_and_qualify(stage.project.model)
        ended = self._canary(stage.project.model, version)
        self._found["bad_weather"] = {
            "batch": str(batch),
            "warned": self._found.pop("warned", None),
            "rows_removed": reached.rows,
            "tainted_versions": list(done.plan.versions),
            "tainted_predictions": reached.predictions,
            "predictions_at_most": reached.predictions_at_most,
            "tainted_live": returned.challenger,
            "rollback_seconds": seconds,
            "clean_version": clean,
            "rebuilt": version,
            "http_5xx": stage.caller.tally.http_5xx,
        }
        if clean in done.plan.versions or ended.state is not State.PROMOTED:
            raise RefusedError("HF403", f"the rebuilt version was not promoted: {ended.reason}", state=ENDS)
        self._report.say(f"  [green]promoted[/] {version} on {self._today}, learnt from the corrected day")

    def _say_plan(self, plan: BackoutPlan) -> None:
        self._report.say(f"  [cyan]holdfast backout {plan.feed} {plan.batch}[/] shows what it reached:")
        self._report.table("", ["", "step", "what is done, in this order"], steps_of(plan))

    def _bad_push(self) -> None:
        self._chapter("6", "Push a version that shines offline and is wrong live")
        bad = Project.load(self._stage.project.directory, Path("bad_push.py")).model
        version = self._train_and_qualify(bad)
        tally = self._stage.caller.tally
        requests = tally.requests
        ended = self._canary(bad, version)
        # What was asked between the start of the canary and the end of the day on which it was decided.
        self._found["bad_push"] = {
            "version": version,
            "requests_to_detect": tally.requests - requests,
            "bad_answers": tally.by_version.get(version, 0),
            "rollback_seconds": rollouts.rollback_seconds(self._stage.store, ended.rollout_id),
            "rolled_back_by": ended.actor if ended.state is State.ROLLED_BACK else None,
            "reason": ended.reason,
        }
        if ended.state is not State.ROLLED_BACK:
            raise RefusedError("HF403", f"the bad version was not rolled back: {ended.reason}", state=ENDS)
        self._report.say(f"  [green]rolled back[/] {version} on {self._today}, by {ended.actor}")

    def _canary(self, model: Model, version: str) -> RolloutRow:
        stage = self._stage
        number = reconcile.begin(stage.store, model, version, actor="demo", now_us=now_us())
        told = ""
        for _ in range(PATIENCE_DAYS):
            self._play_day()
            current = rollouts.get(stage.store, number)
            if current.reason != told:
                told = current.reason
                self._say(f"  {self._today}  {current.state:<12} ", told)
            if current.state in RESTING:
                break
            if current.state is not State.CANARY and current.state is not State.PENDING:
                stage.wait(lambda: self._rollout().state in RESTING, "a probe to confirm the decision")
                break
        return rollouts.get(stage.store, number)

    def _rollout(self) -> RolloutRow:
        return rollouts.newest(self._stage.store, self._stage.project.model.name)

    # --- 7 ---------------------------------------------------------------------------------------------------------------

    def _last_table(self) -> None:
        self._chapter("7", "What was done and found")
        stage, tally = self._stage, self._stage.caller.tally
        document = status(stage.store, stage.project.model.name, now_us=now_us())
        live = {row["version"]: row for row in document["versions"]}
        plan = document["plan"]
        bad, weather = self._found["bad_push"], self._found["bad_weather"]
        self._report.table(
            "",
            ["version", "held-out AUC", "heuristic", "requests", "live AUC", "labelled", ""],
            [
                (
                    version,
                    *held_out_auc(gates),
                    tally.by_version.get(version, 0),
                    live[version]["auc"],
                    live[version]["labelled"],
                    "tainted" if version in weather["tainted_versions"] else live[version]["place"],
                )
                for version, gates in self._gates.items()
            ],
        )
        own, heuristic = held_out_auc(self._gates[plan["champion"]])
        self._found |= {
            "versions": list(self._gates),
            "champion": plan["champion"],
            "auc_champion": own,
            "auc_heuristic": heuristic,
            "auc_live": {version: live[version]["auc"] for version in self._gates},
            "requests": tally.requests,
            "http_5xx": tally.http_5xx,
            "http_4xx": tally.http_4xx,
            "days_replayed": (self._today - LOADED_UNTIL).days,
            "seconds": round(time.monotonic() - self._began, 1),
            "page": self._page,
            "reopen": f"holdfast up --project {self._stage.project.directory}",
        }
        self._report.say(
            f"  {self._found['rows_loaded']:,} rows loaded, {self._found['rows_quarantined']} in quarantine, "
            f"{self._found['duplicates']} twice\n"
            f"  {tally.requests:,} requests, {tally.http_5xx} answered with 5xx\n"
            f"  the bad file had reached {len(weather['tainted_versions'])} versions and {weather['tainted_answers']:,} "
            f"answers; traffic was back in {weather['rollback_seconds']:.2f} s\n"
            f"  the bad push was found after {bad['requests_to_detect']:,} requests, of which it answered "
            f"{bad['bad_answers']:,}; "
            f"traffic was back in {bad['rollback_seconds']:.2f} s, by {bad['rolled_back_by']}\n"
            f"  {self._found['seconds']:.0f} s in all"
        )


def _days(first: date, last: date) -> Iterator[date]:
    for number in range((last - first).days + 1):
        yield first + timedelta(days=number)
