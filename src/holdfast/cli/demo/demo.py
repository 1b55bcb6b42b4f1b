"""Play the demonstration: the life of a model on real flights, from the first load to a bad push."""

from __future__ import annotations

import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from holdfast.cli.app import command
from holdfast.cli.commands.serving.processes import stop_on_signals
from holdfast.cli.demo.formatting import held_out_auc, listed, steps_of, wrapped
from holdfast.cli.demo.sandbox import Sandbox
from holdfast.cli.output import Output, escape
from holdfast.cli.project import AsJson, Project, now_us
from holdfast.control.backout import backout
from holdfast.control.evaluation import qualify
from holdfast.control.ingest import acceptance
from holdfast.control.maintenance import verify
from holdfast.control.reports.status import status
from holdfast.control.rollout import start
from holdfast.control.training import train
from holdfast.declaration import Model
from holdfast.errors import RefusedError
from holdfast.formatting import counted
from holdfast.qualify import GateResult
from holdfast.records import BatchId, Verdict
from holdfast.rollout.model.state_machine import RESTING, State
from holdfast.store.rollout import rollouts
from holdfast.store.rollout.rollouts import RolloutRow
from holdfast.tables.backout import total_impact

FIRST_DAY: Final = date(2013, 1, 1)
LOADED_UNTIL: Final = date(2013, 3, 31)
KILLED_DAY: Final = date(2013, 2, 14)
QUIET_DAYS: Final = 7
"""Days of April that are replayed before the next training."""
COLD_DAY: Final = date(2013, 4, 3)
"""One of the quiet days: its weather is delivered in degrees Celsius, labelled Fahrenheit."""
LAST_DAY: Final = date(2013, 6, 30)
MOST_DAYS: Final = 30
"""The most days of traffic that a rollout takes here."""

ENDS: Final = "the demonstration ends here"

Document = dict[str, Any]


@command("Begin")
def demo(
    directory: Annotated[
        Path,
        typer.Option(
            "--directory", help="The directory of the demonstration; created anew each time.", file_okay=False
        ),
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
    """Load, train, qualify, roll out, serve and roll back a bad push, on real flights of New York, 2013.

    Example: holdfast demo --no-keep-running
    """
    out = Output(as_json=as_json)
    if keep_running is None:
        keep_running = sys.stdout.isatty() and not as_json
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # its processes end as after Ctrl-C
    Demo(out, directory).play(keep_running=keep_running)


class Demo:
    """The chapters of the demonstration, and their results."""

    def __init__(self, out: Output, directory: Path) -> None:
        self._out = out
        self._began = time.monotonic()
        self._chapter("0", "Split the flights and the weather of New York, 2013, into daily deliveries")
        self._sandbox = Sandbox.build(directory, FIRST_DAY, LAST_DAY)
        self._today = LOADED_UNTIL
        self._gates: dict[str, list[GateResult]] = {}
        self._found: Document = {}

    def play(self, *, keep_running: bool) -> None:
        """Play every chapter, then print the results; with `keep_running` the page runs until Ctrl-C."""
        self._load()
        with self._sandbox.running():
            self._first_version()
            self._quiet_days()
            self._better_version()
            self._bad_weather()
            self._bad_push()
            self._last_table()
            if keep_running:
                self._out.print(f"\n[bold]Look at it:[/] [cyan]{self._page}[/]   (Ctrl-C ends it)")
                # Set, not raised: an exception within the wait itself would leave its lock in disorder.
                stop_on_signals().wait()
                self._out.print("ended")
        self._out.print(f"\nThe page is closed; to open it again: [cyan]{escape(self._found['reopen'])}[/]")
        self._out.result(self._found)

    @property
    def _page(self) -> str:
        settings = self._sandbox.project.settings
        return f"http://{settings.host}:{settings.page_port}/"

    def _chapter(self, number: str, title: str) -> None:
        seconds = time.monotonic() - self._began
        self._out.print(f"\n[bold cyan]{number}[/] [bold]{title}[/]  [dim]{seconds:.0f} s[/]")

    def _print(self, head: str, text: str) -> None:
        """Print a line, wrapped under its head."""
        for line in wrapped(head, text):
            self._out.print(line)

    # --- 1 ---------------------------------------------------------------------------------------------------------------

    def _load(self) -> None:
        sandbox, out = self._sandbox, self._out
        self._chapter("1", "Load January to March: each day once, completely, checked by its feed's contract")
        days = list(_days(FIRST_DAY, LOADED_UNTIL))
        feeds = [feed.name for feed in sandbox.project.model.feeds]
        reasons: Counter[str] = Counter()
        killed, statuses = 0, list[int]()
        with out.progress("loading") as step:
            for done, day in enumerate(days):
                for feed in feeds:
                    if (feed, day) == ("flights", KILLED_DAY):
                        killed = sandbox.killed_load(feed, day)
                        statuses = sandbox.resubmitted_load(feed, day, times=4)
                        continue
                    reasons.update({f"{feed} {why}": n for why, n in sandbox.load(feed, day).reasons.items()})
                step(done + 1, len(days))
        out.print(f"  {len(days) * len(feeds) - 1} batches; quarantined: {listed(reasons)}")
        out.print(f"  the load of flights/{KILLED_DAY} is killed half way: exit status {killed} (SIGKILL)")
        out.print(f"  resubmitted by 4 processes at once: exit statuses {statuses}")
        delivered = sum(sandbox.delivered(feed, FIRST_DAY, LOADED_UNTIL) for feed in feeds)
        loaded = sandbox.loaded()
        outcome = verify.verify(sandbox.store, now_us=now_us())
        out.print(
            f"  delivered {delivered:,} rows; in the tables {loaded.rows:,}, in quarantine {loaded.quarantined:,}, "
            f"duplicates {loaded.duplicates:,}; verify: {len(outcome.findings)} findings"
        )
        if loaded.rows + loaded.quarantined != delivered or loaded.duplicates or outcome.findings:
            raise RefusedError("HF901", "the tables do not contain exactly what was delivered", state=ENDS)
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
        sandbox, model = self._sandbox, self._sandbox.project.model
        version = self._train_and_qualify(model)
        start.request(sandbox.store, model, version, actor="demo", now_us=now_us())
        sandbox.client.wait_until_ready(120)
        what = "the first version to be confirmed by a probe"
        sandbox.wait(lambda: self._rollout().state is State.PROMOTED, what)
        self._out.print(f"  {version} serves at [cyan]{sandbox.client.address}[/]; a probe confirmed it")
        self._out.print(f"  the page: [cyan]{self._page}[/]")

    def _train_and_qualify(self, model: Model) -> str:
        sandbox, out = self._sandbox, self._out
        name = sandbox.project.snapshot(sandbox.store).snapshot
        with out.progress("training") as step:
            trained = train.train(
                sandbox.store, model, name, now_us=now_us(), clock_us=now_us, seed=0, progress=step
            )
        rows = f"{trained.rows_trained:,} flights of snapshot {name}"
        out.print(f"  trained [bold]{trained.version}[/] on {rows}")
        with out.progress("qualifying"):
            results = qualify.qualify(sandbox.store, model, trained.version, now_us=now_us())
        self._gates[trained.version] = results
        passed = all(result.verdict is Verdict.PASS for result in results)
        if passed and len(self._gates) > 1:
            newest = results[-1]
            self._print("    pass  ", f"all {len(results)} gates; {newest.gate}: {newest.explanation}")
        else:
            for result in results:
                self._print(f"  {result.verdict:>6}  {result.gate:<10} ", result.explanation)
        if not passed:
            raise RefusedError("HF403", f"{trained.version} was refused by a gate", state=ENDS)
        return trained.version

    # --- 3 ---------------------------------------------------------------------------------------------------------------

    def _quiet_days(self) -> None:
        self._chapter("3", f"Replay the next {QUIET_DAYS} days over HTTP, with labels a day late")
        tally = self._sandbox.client.tally
        began, before = time.monotonic(), tally.requests
        self._sandbox.corrupt_weather(COLD_DAY)
        for _ in range(QUIET_DAYS):
            self._play_day()
        requests = tally.requests - before
        rate = requests / (time.monotonic() - began)
        self._out.print(f"  {requests:,} requests, {rate:,.0f} a second, 5xx: {tally.http_5xx}")

    def _play_day(self) -> None:
        self._today += timedelta(days=1)
        for violation in self._sandbox.play_day(self._today):
            if self._today == COLD_DAY and violation.subject == "temperature":
                self._print(f"  {self._today}  weather, {violation.level}: ", violation.explanation)
                excluded = "the feed is suspect now: it is excluded from training until it is accepted"
                self._print(" " * 14, excluded)
                self._found["warned"] = violation.explanation
        self._sandbox.settle()

    # --- 4, 6 ------------------------------------------------------------------------------------------------------------

    def _better_version(self) -> None:
        self._chapter("4", "Train again on the new days, and promote through a canary")
        self._accept_wrongly()
        version = self._train_and_qualify(self._sandbox.project.model)
        ended = self._canary(self._sandbox.project.model, version)
        if ended.state is not State.PROMOTED:
            raise RefusedError("HF403", f"the good version was not promoted: {ended.reason}", state=ENDS)
        self._out.print(f"  [green]promoted[/] {version} on {self._today}")

    def _accept_wrongly(self) -> None:
        """Accept the suspect batch by mistake, as if the cold were real."""
        sandbox, batch = self._sandbox, BatchId("weather", str(COLD_DAY))
        done = acceptance.accept(sandbox.store, batch, reason="a cold front", actor="demo", now_us=now_us())
        found = counted(len(done.violations), "violation")
        self._out.print(f"  an operator accepts {found} of {batch} unchecked: 'a cold front'")

    def _bad_weather(self) -> None:
        """Chapter 5: the version of chapter 4 was trained on a bad file."""
        self._chapter("5", f"Find out that the weather of {COLD_DAY} was wrong, and back it out")
        sandbox, batch = self._sandbox, BatchId("weather", str(COLD_DAY))
        feeds = sandbox.project.model.feeds
        days = counted((self._today - COLD_DAY).days, "day")
        self._print("  ", f"{days} later the sender reports: it was in degrees Celsius, labelled Fahrenheit")
        self._out.print(f"  [cyan]holdfast backout {batch.feed} {batch.batch}[/] shows its impact:")
        plan = backout.plan_backout(sandbox.store, feeds, batch)
        self._out.table("", ["", "step", "what is done, in this order"], steps_of(plan))
        reason = "degrees Celsius, labelled Fahrenheit"
        done = backout.execute_backout(
            sandbox.store, feeds, batch, reason=reason, actor="demo", now_us=now_us()
        )
        sandbox.wait(lambda: self._rollout().state in RESTING, "a probe to confirm the rollback")
        returned, impact = self._rollout(), total_impact(done.plan)
        clean = status(sandbox.store, sandbox.project.model.name, now_us=now_us())["plan"]["champion"]
        with sandbox.store.ledger.read() as connection:
            seconds = rollouts.rollback_seconds(connection, returned.rollout_id)
        out, tally = self._out, sandbox.client.tally
        out.print(f"  [green]backed out[/]; {clean}, not trained on the file, serves after {seconds:.2f} s")
        self._play_day()
        out.print(f"  {self._today}  {clean} serves the day; 5xx so far: {tally.http_5xx}")
        sandbox.repair_weather(COLD_DAY)
        for feed, _, _ in done.plan.loads:
            again = sandbox.load(feed, COLD_DAY)
            out.print(f"  {feed}/{COLD_DAY} is loaded again, as load {again.epoch}: {again.rows_loaded} rows")
        version = self._train_and_qualify(sandbox.project.model)
        ended = self._canary(sandbox.project.model, version)
        self._found["bad_weather"] = {
            "batch": str(batch),
            "warned": self._found.pop("warned", None),
            "rows_removed": impact.rows,
            "tainted_versions": list(done.plan.versions),
            "tainted_predictions": impact.predictions,
            "predictions_at_most": impact.predictions_at_most,
            "tainted_live": returned.challenger,
            "rollback_seconds": seconds,
            "clean_version": clean,
            "rebuilt": version,
            "http_5xx": tally.http_5xx,
        }
        if clean in done.plan.versions or ended.state is not State.PROMOTED:
            raise RefusedError("HF403", f"the rebuilt version was not promoted: {ended.reason}", state=ENDS)
        out.print(f"  [green]promoted[/] {version} on {self._today}, trained on the corrected day")

    def _bad_push(self) -> None:
        self._chapter("6", "Push a version that shines offline and is wrong live")
        bad = Project.load(self._sandbox.project.directory, Path("bad_push.py")).model
        version = self._train_and_qualify(bad)
        tally = self._sandbox.client.tally
        requests = tally.requests
        ended = self._canary(bad, version)
        # Requests between the start of the canary and the end of the day of its decision.
        with self._sandbox.store.ledger.read() as connection:
            self._found["bad_push"] = {
                "version": version,
                "requests_to_detect": tally.requests - requests,
                "bad_answers": tally.by_version.get(version, 0),
                "rollback_seconds": rollouts.rollback_seconds(connection, ended.rollout_id),
                "rolled_back_by": ended.actor if ended.state is State.ROLLED_BACK else None,
                "reason": ended.reason,
            }
        if ended.state is not State.ROLLED_BACK:
            raise RefusedError("HF403", f"the bad version was not rolled back: {ended.reason}", state=ENDS)
        self._out.print(f"  [green]rolled back[/] {version} on {self._today}, by {ended.actor}")

    def _canary(self, model: Model, version: str) -> RolloutRow:
        sandbox = self._sandbox
        start.request(sandbox.store, model, version, actor="demo", now_us=now_us())
        reason = ""
        for _ in range(MOST_DAYS):
            self._play_day()
            current = self._rollout()
            if current.reason != reason:
                reason = current.reason
                self._print(f"  {self._today}  {current.state:<12} ", reason)
            if current.state in RESTING:
                break
            if current.state is not State.CANARY and current.state is not State.PENDING:
                sandbox.wait(lambda: self._rollout().state in RESTING, "a probe to confirm the decision")
                break
        return self._rollout()

    def _rollout(self) -> RolloutRow:
        with self._sandbox.store.ledger.read() as connection:
            return rollouts.newest(connection, self._sandbox.project.model.name)

    # --- 7 ---------------------------------------------------------------------------------------------------------------

    def _last_table(self) -> None:
        self._chapter("7", "Results")
        sandbox, tally = self._sandbox, self._sandbox.client.tally
        document = status(sandbox.store, sandbox.project.model.name, now_us=now_us())
        live = {row["version"]: row for row in document["versions"]}
        plan = document["plan"]
        bad, weather = self._found["bad_push"], self._found["bad_weather"]
        self._out.table(
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
            "reopen": f"holdfast up --project {self._sandbox.project.directory}",
        }
        self._out.print(
            f"  {self._found['rows_loaded']:,} rows loaded, {self._found['rows_quarantined']} in quarantine, "
            f"{self._found['duplicates']} duplicates\n"
            f"  {tally.requests:,} requests, {tally.http_5xx} with status 5xx\n"
            f"  the bad file affected {len(weather['tainted_versions'])} versions and {weather['tainted_predictions']:,} "
            f"predictions; traffic was back in {weather['rollback_seconds']:.2f} s\n"
            f"  the bad push was found after {bad['requests_to_detect']:,} requests, of which it served "
            f"{bad['bad_answers']:,}; "
            f"traffic was back in {bad['rollback_seconds']:.2f} s, by {bad['rolled_back_by']}\n"
            f"  {self._found['seconds']:.0f} s in all"
        )


def _days(first: date, last: date) -> Iterator[date]:
    for number in range((last - first).days + 1):
        yield first + timedelta(days=number)
