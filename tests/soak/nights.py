"""Weeks of nights of a user's project, played for real: files, commands, processes and callers, by a clock that is set.

On the first morning the user has an export and begins a project as README describes it; what a reader adds to the model file
that `init` writes is in `DECLARED`. `holdfast up` runs from then on. Each day callers request predictions for the day's
rows over HTTP at several times, and each night cron runs

    holdfast ingest rows DAY && holdfast ingest LABELS && holdfast train && holdfast qualify && holdfast rollout start

where the labels are those that became known meanwhile: of rows of weeks before, some of them corrections. The data has one law
from the first row to the last (`nights_data`), so that every suspect batch is a false one.

The clock of all processes is set from one time of day to the next (`simulated_clock`), which looks like a machine that slept.
Nothing else is simulated. Commands are processes of their own, forked from an interpreter that has imported them; the sandbox
of `qualify`, which computes without an environment, has the real clock. After each night the quality and coverage that
status, page and metrics show are held against a recomputation from the responses and the files of labels
(`nights_compare`), and so is the number of labelled rows that trained.

Run: python -m tests.soak.nights --nights 60 --seed 1
"""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time as real_time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any

from benchmarks.command import Command
from holdfast.cli.demo.sandbox import free_port
from tests.soak.nights_compare import Shown, differences, status_differences
from tests.soak.nights_data import DATA_SETS, FIRST_NIGHT, DataSet, Label, Row, known_between
from tests.soak.nights_recompute import Known, Response
from tests.soak.simulated_clock import SimulatedClock
from tests.support.processes import PYTHONPATH

HOURS = (9, 12, 15, 18, 21)
"""When callers request predictions for the rows of the day that have come since; the rest of the day comes at its end."""
NIGHT = timedelta(days=1, hours=2, minutes=30)
SETTLE_SECONDS = 60.0


@dataclass(frozen=True)
class Plan:
    """How the first morning goes: options of `init`, and what a reader of README adds to the file that it writes."""

    options: tuple[str, ...]
    label_feed: str
    weekly_labels: bool
    declare: Callable[[str], str]
    with_label_file: bool


@dataclass(frozen=True)
class Finished:
    """A command: its exit status, what it printed as JSON, and what it wrote to standard error."""

    status: int
    document: Any
    error: str
    seconds: float


@dataclass
class Night:
    """What became of a night."""

    night: int
    day: str
    rows: int
    labels: int
    stopped_at: str = ""
    error: str = ""
    suspects: list[str] = field(default_factory=list)
    version: str = ""
    trained: int = 0
    failed_gates: list[str] = field(default_factory=list)
    rollout: str = ""
    champion: str = ""
    health: str = ""
    auc: float | None = None
    labelled: int = 0
    predictions: int = 0
    differences: list[str] = field(default_factory=list)
    seconds: float = 0.0


class Player:
    """One user's project, its processes and callers."""

    def __init__(self, data: DataSet, plan: Plan, seed: int, directory: Path) -> None:
        self.data, self.plan, self.seed = data, plan, seed
        self.home = directory / data.name
        self.home.mkdir()
        self.clock = SimulatedClock(directory, datetime.combine(FIRST_NIGHT, time(8), data.zone))
        self.ports = {name: free_port(0) for name in ("PORT", "PAGE_PORT", "CONTROL_PORT")}
        own = {name: value for name, value in os.environ.items() if not name.startswith("HOLDFAST_")}
        ports = {f"HOLDFAST_{name}": str(port) for name, port in self.ports.items()}
        self.environment = own | ports | self.clock.environment | {"PYTHONPATH": PYTHONPATH}
        self.log = (directory / "commands.log").open("w", encoding="utf-8")
        self.commands = subprocess.Popen(
            [sys.executable, "-m", "tests.soak.command_server"],
            cwd=self.home, env=self.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.responses: list[Response] = []
        self.refused: list[str] = []
        self.known: list[Known] = []
        self.open: list[Row] = []
        """Rows with labels that were not delivered yet."""
        self.loaded: list[Row] = []
        self.delivered_until = datetime.combine(FIRST_NIGHT, time(), UTC)
        self.inputs: list[dict[str, Any]] = []

    def run(self, *arguments: str, as_json: bool = True) -> Finished:
        """Run `holdfast ARGUMENTS` as cron or a person does: as a process of its own."""
        begun = real_time.monotonic()
        out, err = self.home.parent / "stdout", self.home.parent / "stderr"
        task = {"arguments": [*arguments, *(["--json"] if as_json else [])], "out": str(out), "err": str(err)}
        assert self.commands.stdin
        assert self.commands.stdout
        self.commands.stdin.write(json.dumps(task) + "\n")
        self.commands.stdin.flush()
        status = json.loads(self.commands.stdout.readline())["status"]
        seconds = real_time.monotonic() - begun
        printed, error = out.read_text(), err.read_text()
        document = json.loads(printed) if as_json and printed.strip() else printed
        shown = printed if arguments[0] != "status" else ""
        self.log.write(
            f"[{self.clock.now():%Y-%m-%d %H:%M:%S}] holdfast {' '.join(arguments)} -> {status} in {seconds:.1f} s\n"
            f"{shown}{error}\n"
        )
        self.log.flush()
        return Finished(status, document, error.strip(), seconds)

    def get(self, port: str, path: str) -> str:
        """Return what a process of the project serves at `path`."""
        return _send(self.ports[port], "GET", path)[1]

    # -- the first morning

    def begin(self) -> float:
        """Begin the project and serve its first version; return the duration in seconds, the commands' own."""
        data, plan = self.data, self.plan
        rows = data.export(self.seed)
        midnight = self.delivered_until
        data.write_rows(self.home / "export.csv", rows, labels_by=midnight)
        files = ["export.csv"]
        if plan.with_label_file:
            labels = known_between(rows, datetime(2000, 1, 1, tzinfo=UTC), midnight)
            data.write_labels(self.home / "labels.csv", labels)
            self._note(labels)
            files.append("labels.csv")
        self.open = [row for row in rows if row.labels[-1].known_at >= midnight]
        self.loaded = list(rows)
        begun = real_time.monotonic()
        self._well("init", "export.csv", *plan.options)
        model = self.home / "model.py"
        source = plan.declare(model.read_text())
        model.write_text(source)
        self.delay_us = int(re.findall(r'delay="(\d+)d"', source)[0]) * 86_400_000_000
        self._well("ingest", "rows", "export.csv")
        if plan.with_label_file:
            self._well("ingest", plan.label_feed, "labels.csv")
        for command in (("train",), ("qualify",), ("rollout", "start")):
            self._well(*command)
        self.up = subprocess.Popen(
            [sys.executable, "-m", "holdfast", "up"],
            cwd=self.home, env=self.environment, stdout=self.log, stderr=subprocess.STDOUT,
        )  # fmt: skip
        self.wait(lambda: _send(self.ports["PORT"], "GET", f"/v2/models/{data.name}/ready")[0] == 200)
        self.wait(
            lambda: all(
                _send(self.ports[each], "GET", "/metrics")[0] for each in ("PAGE_PORT", "CONTROL_PORT")
            )
        )
        self.inputs = json.loads(self.get("PORT", f"/v2/models/{data.name}"))["inputs"]
        self.ask(data.day(self.seed, FIRST_NIGHT)[:1])
        return real_time.monotonic() - begun

    def _well(self, *arguments: str) -> Finished:
        done = self.run(*arguments)
        assert done.status == 0, f"{arguments}: {done.document}{done.error}"
        return done

    def end(self) -> None:
        """End the processes."""
        self.up.send_signal(signal.SIGINT)
        self.up.wait(60)
        assert self.commands.stdin
        self.commands.stdin.close()
        self.commands.wait(60)
        self.log.close()

    # -- callers

    def ask(self, rows: Iterable[Row]) -> None:
        """Request a prediction for each row, each in a request of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.ports["PORT"], timeout=60)
        for row in rows:
            body = {"id": row.key, "inputs": [self._tensor(each, row) for each in self.inputs]}
            at_us = round(self.clock.now().timestamp() * 1e6)
            connection.request("POST", f"/v2/models/{self.data.name}/infer", json.dumps(body))
            response = connection.getresponse()
            content = json.loads(response.read())
            if response.status != 200:
                self.refused.append(f"{row.key}: {response.status} {content}")
                continue
            probability = content["outputs"][0]["data"][0]
            self.responses.append(Response(row.key, content["model_version"], probability, at_us))
        connection.close()

    def _tensor(self, given: dict[str, Any], row: Row) -> dict[str, Any]:
        header = next(name for name in self.data.headers if as_name(name) == given["name"])
        text = row.at.isoformat() if header == self.data.event_time else row.fields[header]
        convert = {
            "INT64": lambda word: int(float(word)),
            "FP64": float,
            "BOOL": lambda word: word == "True",
        }.get(given["datatype"], str)
        return {
            "name": given["name"], "datatype": given["datatype"], "shape": [1],
            "data": [convert(text) if text else None],
        }  # fmt: skip

    def wait(self, is_true: Callable[[], bool], seconds: float = SETTLE_SECONDS) -> bool:
        """Wait until a condition holds; False if it does not in `seconds`."""
        until = real_time.monotonic() + seconds
        while not is_true():
            if real_time.monotonic() > until:
                return False
            real_time.sleep(0.1)
        return True

    def is_collected(self) -> bool:
        """Return True if the ledger has every answer."""
        versions = json.loads(self.get("PAGE_PORT", "/api/status"))["versions"]
        return sum(row["predictions"] for row in versions) >= len(self.responses)

    # -- a day and its night

    def play(self, number: int) -> Night:
        """Play a day and the night after it."""
        begun = real_time.monotonic()
        data, day = self.data, FIRST_NIGHT + timedelta(days=number - 1)
        rows, requested = self.day(number, HOURS)
        self.clock.set(datetime.combine(day, time(23, 45), data.zone))
        self.ask(rows[requested:])
        self.wait(self.is_collected)
        self.clock.set(datetime.combine(day, time(), UTC) + NIGHT)
        night = self._night(number, day, rows)
        self._look(night)
        night.seconds = real_time.monotonic() - begun
        return night

    def day(self, number: int, hours: Sequence[int]) -> tuple[list[Row], int]:
        """Play a day to the last of `hours`; return its rows, and for how many of them predictions were requested."""
        day = FIRST_NIGHT + timedelta(days=number - 1)
        rows = self.data.day(self.seed, day)
        requested = 1 if number == 1 else 0
        for hour in hours:
            at = datetime.combine(day, time(hour), self.data.zone)
            self.clock.set(at)
            come = self._come(rows, at, hour)
            self.ask(rows[requested:come])
            requested = max(requested, come)
            self.wait(self.is_collected)
        return rows, requested

    def _come(self, rows: Sequence[Row], at: datetime, hour: int) -> int:
        """Return how many rows have come at `at`; rows without a time of day come evenly."""
        if rows[0].at == rows[-1].at:
            return len(rows) * hour // 24
        return sum(row.at <= at for row in rows)

    def _night(self, number: int, day: date, rows: list[Row]) -> Night:
        data, plan = self.data, self.plan
        file = f"rows-{day}.csv"
        data.write_rows(self.home / file, rows)
        self.open += rows
        self.loaded += rows
        commands: list[tuple[str, ...]] = [("ingest", "rows", file)]
        labels: list[Label] = []
        until = datetime.combine(day + timedelta(days=1), time(), UTC)
        if not plan.weekly_labels or day.weekday() == 6:
            labels = known_between(self.open, self.delivered_until, until)
            self.open = [row for row in self.open if row.labels[-1].known_at >= until]
            self.delivered_until = until
            data.write_labels(self.home / f"labels-{day}.csv", labels)
            commands.append(("ingest", plan.label_feed, f"labels-{day}.csv"))
        commands += [("train",), ("qualify",), ("rollout", "start")]
        night = Night(number, day.isoformat(), len(rows), len(labels))
        for command in commands:
            done = self.run(*command)
            if command[:2] == ("ingest", plan.label_feed) and done.status in (0, 1):
                self._note(labels)
            if command == ("train",) and done.status == 0:
                night.version, night.trained = done.document["version"], done.document["rows_trained"]
                night.differences += self._unlike_training(done.document)
            if command == ("qualify",) and isinstance(done.document, dict):
                gates = done.document.get("gates", ())
                night.failed_gates = [each["gate"] for each in gates if each["verdict"] != "pass"]
            if command == ("rollout", "start") and done.status == 0:
                night.rollout = done.document["state"]
            if done.status:
                night.stopped_at, night.error = " ".join(command), done.error or str(done.document)
                break
        return night

    def _note(self, labels: Iterable[Label]) -> None:
        self.known += [Known(each.key, each.value, round(each.known_at.timestamp() * 1e6)) for each in labels]

    def _unlike_training(self, document: dict[str, Any]) -> list[str]:
        """Return what is wrong about the number of rows that a version was trained on and evaluated with."""
        wanted = sum(self._has_label(row) and not is_ambiguous(row.at) for row in self.loaded)
        used = ("rows_trained", "rows_held_out", "rows_embargoed", "rows_not_due")
        found = sum(document[name] for name in used) + sum(document["dropped"].values())
        return [] if found == wanted else [f"train: {found} rows with a label, recomputed {wanted}"]

    def _has_label(self, row: Row) -> bool:
        return row.labels[0].known_at < self.delivered_until

    def _look(self, night: Night) -> None:
        """Look at what Holdfast shows after the night, as soon as it has the labels of the night."""
        delay_us = self.delay_us

        def is_settled() -> bool:
            status = json.loads(self.get("PAGE_PORT", "/api/status"))
            return not status_differences(status, self.responses, self.known, delay_us=delay_us)

        self.wait(is_settled)
        shown = self._shown()
        wrong = differences(shown, self.responses, self.known, delay_us=delay_us)
        night.differences += wrong
        status = shown.status
        night.suspects = [
            f"{each['feed']}: {each['state']}: {each['reason']}"
            for each in status["feed_states"]
            if each["state"] != "flowing"
        ]
        night.champion = status["plan"]["champion"]
        night.health = status["health"]["sentence"]
        champion = next(row for row in status["versions"] if row["version"] == night.champion)
        night.auc = champion["auc"]
        night.labelled, night.predictions = (status["coverage"][name] for name in ("labelled", "predictions"))

    def _shown(self) -> Shown:
        return Shown(
            self.run("status").document,
            json.loads(self.get("PAGE_PORT", "/api/status")),
            self.get("PAGE_PORT", "/"),
            {
                place: self.get(port, "/metrics")
                for place, port in (("page", "PAGE_PORT"), ("loop", "CONTROL_PORT"))
            },
        )

    def rollout_events(self) -> list[dict[str, Any]]:
        """Return every event of a rollout, oldest first."""
        lines = self.run("events", "--since", "0", "--json", as_json=False).document.splitlines()
        events = [json.loads(line) for line in lines]
        return [each for each in events if each["kind"].startswith("rollout.")]


ENDED = ("rollout.promoted", "rollout.rolled_back", "rollout.cancelled")


def rollout_ends(events: Iterable[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return for each version whose rollout was requested how it ended, and after how many hours; "open" if it did not.

    A version that waited and was replaced by a newer one is dropped.
    """
    found: dict[str, dict[str, Any]] = {}
    numbers: dict[str, str] = {}
    begun_us: dict[str, int] = {}

    def end(version: str, how: str, at_us: int, why: str) -> None:
        hours = (at_us - begun_us[version]) / 3.6e9
        found[version] = {"end": how, "hours": round(hours, 1), "why": why}

    for each in events:
        kind, text = each["kind"], each["explanation"]
        version = re.split(r"[ ,]", text)[0]
        if kind in ("rollout.pending", "rollout.queued"):
            begun_us.setdefault(version, each["at_us"])
            found.setdefault(version, {"end": "open", "hours": None, "why": ""})
        if kind == "rollout.pending":
            numbers[each["subject"]] = version
        elif kind == "rollout.dropped":
            end(version, "dropped", each["at_us"], text)
        elif kind in ENDED:
            end(numbers[each["subject"]], kind.partition(".")[2], each["at_us"], text)
    return found


def is_ambiguous(at: datetime) -> bool:
    """Return True if the clock showed this time twice: its row is quarantined, because no zone stands in the file."""
    return at.replace(fold=0).utcoffset() != at.replace(fold=1).utcoffset()


def as_name(header: str) -> str:
    """Return the name that a header has in a contract."""
    return re.sub(r"[^a-z0-9]+", "_", header.lower()).strip("_")


def _send(port: int, method: str, path: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, response.read().decode()
    except OSError:
        return 0, ""
    finally:
        connection.close()


def _declare_inspections(source: str) -> str:
    """Add the feed of inspections to the model file, as docs/how-to/labels-that-come-later.md describes it."""
    feed = """inspections = Feed(
    "inspections",
    Contract(
        Integer("record_no", unit="1", low=0),
        Boolean("damage"),
        Timestamp("inspected", tz="UTC", naive="local"),
        key=("record_no", "inspected"),
        event_time="inspected",
    ),
    labels_for="rows",
    csv=Csv(separator=";", dates=("d.m.yyyy",), true=("yes",), false=("no",)),
    headers={"Record No": "record_no", "Damage?": "damage", "Inspected": "inspected"},
)

model = Model("""
    for before, after in (
        ("from holdfast import (\n", "from holdfast import (\n    Boolean,\n"),
        ("model = Model(", feed),
        ("feeds=(rows,)", "feeds=(rows, inspections)"),
    ):
        assert source.count(before) >= 1, before
        source = source.replace(before, after, 1)
    return source


def _as_written(source: str) -> str:
    return source


DECLARED = {
    "loans": Plan(
        ("--label", "repaid", "--key", "id", "--event-time", "timestamp", "--tz", "Europe/Amsterdam",
         "--labels", "labels.csv"),
        "labels", weekly_labels=True, declare=_as_written, with_label_file=True,
    ),
    "strikes": Plan(
        ("--label", "Damage?", "--key", "Record No", "--event-time", "Flight Date"),
        "inspections", weekly_labels=False, declare=_declare_inspections, with_label_file=False,
    ),
}  # fmt: skip


def soak(
    data: str, nights: int, seed: int, directory: Path, report: Callable[[Night], None]
) -> dict[str, Any]:
    """Play `nights` nights and return what became of them."""
    player = Player(DATA_SETS[data], DECLARED[data], seed, directory)
    first = player.begin()
    try:
        found = []
        for number in range(1, nights + 1):
            found.append(player.play(number))
            report(found[-1])
        events = player.rollout_events()
    finally:
        player.end()
    return {
        "data": data, "seed": seed, "first_answer_seconds": round(first, 1), "responses": len(player.responses),
        "refused": player.refused, "nights": [asdict(each) for each in found],
        "rollouts": rollout_ends(events), "events": events,
    }  # fmt: skip


def figures_of(found: dict[str, Any]) -> dict[str, Any]:
    """Return the figures of one user's nights."""
    nights, rollouts = found["nights"], found["rollouts"].values()
    ended = {
        end: [each["hours"] for each in rollouts if each["end"] == end]
        for end in ("promoted", "rolled_back", "cancelled", "dropped", "open")
    }
    return {
        "nights": len(nights),
        "seconds to the first prediction": found["first_answer_seconds"],
        "predictions over HTTP": found["responses"],
        "refused requests": len(found["refused"]),
        "labels loaded, weeks later": sum(each["labels"] for each in nights),
        "nights with a suspect feed": sum(bool(each["suspects"]) for each in nights),
        "figures that differ": sum(len(each["differences"]) for each in nights),
        "nights that need attention": sum(not each["health"].startswith("healthy") for each in nights),
        "nights that ended at a gate": sum(each["stopped_at"] == "qualify" for each in nights),
        "nights that ended otherwise": sum(each["stopped_at"] not in ("", "qualify") for each in nights),
        "rollouts promoted": len(ended["promoted"]),
        "rollouts rolled back": len(ended["rolled_back"]),
        "rollouts dropped for a newer version": len(ended["dropped"]) + len(ended["cancelled"]),
        "rollouts still open": len(ended["open"]),
        "most hours from request to promotion": max(ended["promoted"], default=None),
        "rows trained, first night and last": [nights[0]["trained"], nights[-1]["trained"]],
    }


def is_well(figures: dict[str, Any]) -> bool:
    """Return True if nothing was suspect, refused or different; the last rollout, and one that waits, may be open."""
    wrong = (
        "refused requests",
        "nights with a suspect feed",
        "figures that differ",
        "nights that ended otherwise",
    )
    return not any(figures[each] for each in wrong) and figures["rollouts still open"] <= 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Play nights and print one line for each; the last line is the JSON of all."""
    command = Command("tests.soak.nights", __doc__)
    command.size("--nights", 60, 1, help="nights to play")
    command.size(
        "--data", "both", "strikes", choices=[*sorted(DATA_SETS), "both"], help="the users; both play at once"
    )
    command.option("--seed", type=int, default=1)
    command.option("--keep", type=Path, help="a new directory for the projects, which is kept")
    command.option("--json", type=Path, help="a file for everything that was found")
    given = command.parse(arguments)
    directory = given.keep or Path(tempfile.mkdtemp(prefix="nights-"))
    users = sorted(DATA_SETS) if given.data == "both" else [given.data]

    def play(data: str) -> dict[str, Any]:
        (place := directory / data).mkdir(parents=True)
        return soak(data, given.nights, given.seed, place, lambda night: _report(data, night))

    with ThreadPoolExecutor(len(users)) as pool:
        found = dict(zip(users, pool.map(play, users), strict=True))
    if given.json:
        given.json.write_text(json.dumps(found, indent=1))
    if given.keep is None:
        shutil.rmtree(directory)
    figures = {data: figures_of(each) for data, each in found.items()}
    table = {name: {data: its[name] for data, its in figures.items()} for name in figures[users[0]]}
    return command.finish({"seed": given.seed, "users": table}, passed=all(map(is_well, figures.values())))


def _report(data: str, night: Night) -> None:
    print(
        f"{data} {night.night:3} {night.day} rows {night.rows} labels {night.labels} {night.version or '-'} "
        f"trained {night.trained} {night.rollout or 'stopped at ' + night.stopped_at} champion {night.champion} "
        f"auc {night.auc} of {night.labelled}/{night.predictions} suspects {len(night.suspects)} "
        f"differences {len(night.differences)} {night.seconds:.0f} s",
        *night.suspects, *night.differences, *([night.error] if night.stopped_at else []),
        sep="\n    ", flush=True,
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
