"""The callers of the flights model: a process that asks about real flights, day after day, and reports the truth a day later.

A day of the flights lasts as long as its requests take. What became of a flight is reported when all flights of the day after
have been requested: the true delay of the labels, a day, compressed by the same factor as the days. The unit is the flight.

    python push_client.py ADDRESS ROWS CONNECTIONS RATE

RATE is how many requests are sent in a second at most. ROWS has a JSON object a line: `day`, `body` (of a request), `late`
(the truth). Questions come on standard input, a JSON object a line, and each is answered by one on standard output:

    {"ask": "totals"}                               how many requests, by status and by version
    {"ask": "answers", "version": V}                which rows V has answered: how often, and its newest probability
    {"ask": "pinned", "version": V, "rows": [...]}  what V predicts for these rows
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

MODEL_PATH = "/v2/models/flight-delay"
LABELS_AT_ONCE = 500


class Connection:
    """One connection that is kept; one request at a time."""

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def post(self, path: str, body: bytes) -> tuple[int, dict[str, Any]]:
        """Status and document of one answer; 599 when the connection ended without one."""
        try:
            return await self._post(path, body)
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            self._reader = None
            await asyncio.sleep(0.05)
            return 599, {}

    async def _post(self, path: str, body: bytes) -> tuple[int, dict[str, Any]]:
        if self._reader is None or self._writer is None:
            self._reader, self._writer = await asyncio.open_connection(self._host, self._port)
        self._writer.write(
            b"POST %s HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
            % (path.encode(), self._host.encode(), len(body))
            + body
        )
        head = await self._reader.readuntil(b"\r\n\r\n")
        fields = dict(line.lower().split(b":", 1) for line in head.split(b"\r\n")[1:] if line)
        content = await self._reader.readexactly(int(fields[b"content-length"]))
        return int(head[9:12]), json.loads(content) if content else {}


@dataclass
class Callers:
    """Many connections that ask, and what they were answered."""

    host: str
    port: int
    rows: list[dict[str, Any]]
    connections: int
    rate: float
    statuses: Counter[int] = field(default_factory=Counter)
    versions: Counter[str] = field(default_factory=Counter)
    days: int = 0
    reported: int = 0
    responded: dict[str, dict[int, tuple[int, float]]] = field(default_factory=dict)
    next_at: float = field(default_factory=time.monotonic)

    async def go_round(self) -> None:
        """Ask about every day, and from the first again, until this task is cancelled."""
        days = [
            [at for at, _ in found] for _, found in groupby(enumerate(self.rows), lambda each: each[1]["day"])
        ]
        connections = [Connection(self.host, self.port) for _ in range(self.connections)]
        teller = Connection(self.host, self.port)
        untold: list[tuple[str, bool]] = []
        reporting: asyncio.Task[None] | None = None
        while True:
            for day in days:
                places = iter(day)
                requested = await asyncio.gather(*(self._ask(each, places) for each in connections))
                self.days += 1
                if reporting is not None:
                    await reporting
                reporting = asyncio.create_task(self._report(teller, untold))
                untold = [pair for pairs in requested for pair in pairs]

    async def _ask(self, connection: Connection, places: Iterator[int]) -> list[tuple[str, bool]]:
        responses = []
        for place in places:  # shared: whichever connection is free takes the next
            row = self.rows[place]
            await self._wait_for_turn()
            status, response = await connection.post(f"{MODEL_PATH}/infer", row["body"])
            self.statuses[status] += 1
            if status != 200:
                continue
            version = response["model_version"]
            self.versions[version] += 1
            known = self.responded.setdefault(version, {})
            known[place] = (known.get(place, (0, 0.0))[0] + 1, response["outputs"][0]["data"][0])
            name = response["parameters"].get("prediction_id")
            if name is not None:
                responses.append((name, row["late"]))
        return responses

    async def _wait_for_turn(self) -> None:
        """Requests that could not be sent in their time are not made up for."""
        now = time.monotonic()
        self.next_at = max(self.next_at + 1.0 / self.rate, now - 1.0 / self.rate)
        if self.next_at > now:
            await asyncio.sleep(self.next_at - now)

    async def _report(self, connection: Connection, labels: list[tuple[str, bool]]) -> None:
        for start in range(0, len(labels), LABELS_AT_ONCE):
            part = labels[start : start + LABELS_AT_ONCE]
            feedback = [{"id": name, "value": value, "source": "arrivals"} for name, value in part]
            status, _ = await connection.post(
                f"{MODEL_PATH}/feedback", json.dumps({"feedback": feedback}).encode()
            )
            self.reported += len(part) if status < 300 else 0

    async def pinned(self, version: str, places: list[int]) -> list[float | None]:
        """What `version` predicts for these rows, whichever version has the traffic; None without a prediction."""
        connection = Connection(self.host, self.port)
        found: list[float | None] = []
        for place in places:
            path = f"{MODEL_PATH}/versions/{version}/infer"
            status, response = await connection.post(path, self.rows[place]["body"])
            found.append(response["outputs"][0]["data"][0] if status == 200 else None)
        return found

    async def response(self, question: dict[str, Any]) -> dict[str, Any]:
        """The answer to one question of standard input."""
        match question:
            case {"ask": "totals"}:
                return {
                    "requests": self.statuses.total(),
                    "statuses": self.statuses,
                    "versions": self.versions,
                    "days": self.days,
                    "reported": self.reported,
                }
            case {"ask": "answers", "version": version}:
                return {"rows": [[row, *known] for row, known in self.responded.get(version, {}).items()]}
            case {"ask": "pinned", "version": version, "rows": places}:
                return {"probabilities": await self.pinned(version, places)}
            case _:
                raise ValueError(f"no such question: {question}")


async def main(address: str, rows: Path, connections: int, rate: float) -> None:
    """Ask until standard input ends."""
    host, port = address.removeprefix("http://").split(":")
    known = [json.loads(line) for line in rows.read_text().splitlines()]
    rows_requested = [row | {"body": row["body"].encode()} for row in known]
    callers = Callers(host, int(port), rows_requested, connections, rate)
    requesting = asyncio.create_task(callers.go_round())
    questions = asyncio.StreamReader(limit=1 << 24)
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(questions), sys.stdin
    )
    while line := await questions.readline():
        if requesting.done():
            requesting.result()
        response = await callers.response(json.loads(line))
        sys.stdout.write(json.dumps(response) + "\n")
        sys.stdout.flush()
    requesting.cancel()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])))
