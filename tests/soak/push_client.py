"""The callers of the flights model: a process that asks about real flights, day after day, and tells the truth a day later.

A day of the flights lasts as long as its requests take. What became of a flight is told when all flights of the day after it
have been asked about: the true delay of the labels, a day, compressed by the same factor as the days. The unit is the flight.

    python push_client.py ADDRESS ROWS CONNECTIONS RATE

RATE is how many requests are sent in a second at most. ROWS has a JSON object a line: `day`, `body` (of a request), `late`
(the truth). Questions come on standard input, a JSON object a line, and each is answered by one on standard output:

    {"ask": "totals"}                               how many requests, by status and by version
    {"ask": "answers", "version": V}                which rows V has answered: how often, and its newest probability
    {"ask": "pinned", "version": V, "rows": [...]}  what V says to these rows
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
    told: int = 0
    answered: dict[str, dict[int, tuple[int, float]]] = field(default_factory=dict)
    next_at: float = field(default_factory=time.monotonic)

    async def go_round(self) -> None:
        """Ask about every day, and from the first again, until this task is cancelled."""
        days = [
            [at for at, _ in found] for _, found in groupby(enumerate(self.rows), lambda each: each[1]["day"])
        ]
        connections = [Connection(self.host, self.port) for _ in range(self.connections)]
        teller = Connection(self.host, self.port)
        untold: list[tuple[str, bool]] = []
        telling: asyncio.Task[None] | None = None
        while True:
            for day in days:
                places = iter(day)
                asked = await asyncio.gather(*(self._ask(each, places) for each in connections))
                self.days += 1
                if telling is not None:
                    await telling
                telling = asyncio.create_task(self._tell(teller, untold))
                untold = [pair for pairs in asked for pair in pairs]

    async def _ask(self, connection: Connection, places: Iterator[int]) -> list[tuple[str, bool]]:
        answers = []
        for place in places:  # shared: whichever connection is free takes the next
            row = self.rows[place]
            await self._wait_for_turn()
            status, answer = await connection.post(f"{MODEL_PATH}/infer", row["body"])
            self.statuses[status] += 1
            if status != 200:
                continue
            version = answer["model_version"]
            self.versions[version] += 1
            known = self.answered.setdefault(version, {})
            known[place] = (known.get(place, (0, 0.0))[0] + 1, answer["outputs"][0]["data"][0])
            name = answer["parameters"].get("prediction_id")
            if name is not None:
                answers.append((name, row["late"]))
        return answers

    async def _wait_for_turn(self) -> None:
        """Requests that could not be sent in their time are not made up for."""
        now = time.monotonic()
        self.next_at = max(self.next_at + 1.0 / self.rate, now - 1.0 / self.rate)
        if self.next_at > now:
            await asyncio.sleep(self.next_at - now)

    async def _tell(self, connection: Connection, labels: list[tuple[str, bool]]) -> None:
        for start in range(0, len(labels), LABELS_AT_ONCE):
            part = labels[start : start + LABELS_AT_ONCE]
            feedback = [{"id": name, "value": value, "source": "arrivals"} for name, value in part]
            status, _ = await connection.post(
                f"{MODEL_PATH}/feedback", json.dumps({"feedback": feedback}).encode()
            )
            self.told += len(part) if status < 300 else 0

    async def pinned(self, version: str, places: list[int]) -> list[float | None]:
        """What `version` says to these rows, whoever has the traffic; None where it does not answer."""
        connection = Connection(self.host, self.port)
        found: list[float | None] = []
        for place in places:
            path = f"{MODEL_PATH}/versions/{version}/infer"
            status, answer = await connection.post(path, self.rows[place]["body"])
            found.append(answer["outputs"][0]["data"][0] if status == 200 else None)
        return found

    async def answer(self, question: dict[str, Any]) -> dict[str, Any]:
        """The answer to one question of standard input."""
        match question:
            case {"ask": "totals"}:
                return {
                    "requests": self.statuses.total(),
                    "statuses": self.statuses,
                    "versions": self.versions,
                    "days": self.days,
                    "told": self.told,
                }
            case {"ask": "answers", "version": version}:
                return {"rows": [[row, *known] for row, known in self.answered.get(version, {}).items()]}
            case {"ask": "pinned", "version": version, "rows": places}:
                return {"probabilities": await self.pinned(version, places)}
            case _:
                raise ValueError(f"no such question: {question}")


async def main(address: str, rows: Path, connections: int, rate: float) -> None:
    """Ask until standard input ends."""
    host, port = address.removeprefix("http://").split(":")
    known = [json.loads(line) for line in rows.read_text().splitlines()]
    rows_asked = [row | {"body": row["body"].encode()} for row in known]
    callers = Callers(host, int(port), rows_asked, connections, rate)
    asking = asyncio.create_task(callers.go_round())
    questions = asyncio.StreamReader(limit=1 << 24)
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(questions), sys.stdin
    )
    while line := await questions.readline():
        if asking.done():
            asking.result()
        answer = await callers.answer(json.loads(line))
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
    asking.cancel()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])))
