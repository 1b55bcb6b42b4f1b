"""Requests that know the grammar of every input, in the same batches as those of a good client, which is the oracle.

The server's own connection, routes and data plane run in this process. Every round gives them a batch: some drawn requests,
each on a connection of its own, and two of a good client on a connection that it keeps; most of them without a socket, which
is fast. A share of the rounds (`--sockets`) goes through sockets, the good client's too. Drawn are tensors of
every datatype in JSON and in binary, shapes, units by their grammar, timestamps, parameters, outputs, large bodies, feedback by
id and by key, paths, methods, encodings, and any of these with flipped bytes. The champion has a challenger of another contract
that raises on some rows, so that fallbacks run too.

`good_wrong` are responses of the good client that differ from those before the first drawn request, `good_failed` those without
status 200. A status of 500 or more for a drawn request is a defect as well, and so is a log that the control loop cannot read.
`rss_growth_mb` is what the resident memory grew by after the first `warm_up_requests`: a tenth of all, at least 50,000 if these
are less than half. By then the bounded caches are full (recent labels, units, the allocator's arenas).

Run: python -m benchmarks.fuzz --seeds 20 --requests 100000
"""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import os
import random
import struct
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from benchmarks.command import Command
from holdfast.contract import Contract, Number
from holdfast.contract.schema.units import load_definitions
from holdfast.control.collect.log_summary import LogContext, summarise
from holdfast.records import TrafficPlan, sha256_hex
from holdfast.rollout.model.serving_config import ConnectionLimits
from holdfast.serve.api.routes import Routes
from holdfast.serve.http.listener import Listener
from holdfast.serve.http.request_guard import RequestGuard
from holdfast.serve.inference.active_plan import ActivePlan
from holdfast.serve.inference.data_plane import DataPlane
from holdfast.serve.inference.loaded_model import load
from holdfast.serve.inference.metrics import ServerFacts
from holdfast.store.serving.log_directory import segments
from holdfast.store.serving.log_writer import LogWriter
from holdfast.store.serving.prediction_log import read
from tests.support.serving_world import CONTRACT, MODEL, packed, row, tensors

INFER: Final = f"/v2/models/{MODEL}/infer"
FEEDBACK: Final = f"/v2/models/{MODEL}/feedback"
BATCH: Final = 12
PATIENCE_SECONDS: Final = 120.0
GOOD_IN_BATCH: Final = 2
CHECK_ROUNDS: Final = 500
WARM_UP_REQUESTS: Final = 50_000

INTEGERS: Final = ("INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64")
DATATYPES: Final = (*INTEGERS, "FP16", "FP32", "FP64", "BOOL", "BYTES", "", "JSON")
FORMATS: Final = {
    "INT8": "b", "INT16": "h", "INT32": "i", "INT64": "q", "UINT8": "B", "UINT16": "H", "UINT32": "I", "UINT64": "Q",
    "FP32": "f", "FP64": "d", "BOOL": "?",
}  # fmt: skip
UNIT_WORDS: Final = tuple(
    "ppm % Ym ym m mile mi km ft degF degC delta_degC K bit byte rad dB dBm count USD h min kg J e octave decibel neper pH 1 "  # noqa: SIM905
    "permille µ_0 speed_of_light quettameter planck_length parsec dimensionless minutes °F _x 9 kilo".split()
)
NUMBERS: Final = (
    0, 1, -1, 0.5, 500.0, 5500.0, 120, 6001, -0.0, 1e-320, 1e308, 2**31, 2**53, 2**53 + 1, 2**63, 2**64, 10**30, 1 / 3,
)  # fmt: skip
TEXTS: Final = (
    "", "UA", "AA", "ZZ", "EWR", "é", "\x00", "\u202e", "a" * 21, "a" * 5000, "1", "null", "\U0001f6eb", '"', "\\", "s1-1-1",
)  # fmt: skip
TIMES: Final = (
    "2013-03-02T07:15:00-05:00", "2013-03-10T02:30:00", "2013-11-03T01:30:00", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z",
    "2013-03-02", "2013-02-30T00:00:00Z", "2013-03-02T24:00:00Z", "2013-03-02T07:15:60Z", "1969-12-31T23:59:59.999999999Z",
    "2013-03-02T07:15:00+99:99", "2013-03-02T07:15:00+23:59", "now", "1362226500", "-2013-03-02T07:15:00Z",
)  # fmt: skip


class Drawn:
    """Draws requests.

    Parameters
    ----------
    seed
        Of the random numbers.
    """

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.chance = self.random.random
        self.pick = self.random.choice

    def request(self) -> bytes:
        """One request as bytes on the wire."""
        kind = self.chance()
        if kind < 0.72:
            method, path, body, headers = self.inference()
        elif kind < 0.9:
            method, path, body, headers = "POST", FEEDBACK, self.feedback(), {}
        elif kind < 0.97:
            method, path, body, headers = self.pick(["GET", "HEAD", "POST", "PUT"]), self.path(), b"", {}
        else:
            return self.flipped(b"POST %b HTTP/1.1\r\nHost: localhost\r\n\r\n" % self.path().encode())
        if self.chance() < 0.06:
            body = self.flipped(body)
        if self.chance() < 0.03:
            body, headers["Content-Encoding"] = gzip.compress(body, 1), "gzip"
            body = self.flipped(body) if self.chance() < 0.3 else body
        lines = [f"{method} {path} HTTP/1.1", "Host: localhost", f"Content-Length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        return "\r\n".join([*lines, "", ""]).encode() + body

    def flipped(self, body: bytes) -> bytes:
        """The same with some bytes changed, cut or repeated."""
        changed = bytearray(body or b"{")
        for _ in range(self.random.randint(1, 4)):
            place = self.random.randrange(len(changed))
            match self.random.randrange(3):
                case 0:
                    changed[place] = self.random.randrange(256)
                case 1:
                    del changed[place : place + self.random.randint(1, 8)]
                case _:
                    changed[place:place] = changed[max(0, place - 20) : place]
            changed = changed or bytearray(b"[")
        return bytes(changed)

    def path(self) -> str:
        """A path, of the server's or near them."""
        known = (
            "/v2",
            "/v2/health/live",
            "/v2/health/ready",
            f"/v2/models/{MODEL}",
            "/holdfast/status",
            "/holdfast/abort",
            INFER,
        )
        others = (
            f"/v2/models/{MODEL}/versions/half/infer", f"/v2/models/{MODEL}/versions/half/ready", "/%2e%2e/etc", "//", "/\x7f",
            f"/v2/models/{MODEL}/versions/x", "http://localhost/v2", "*", "/v2?" + "a" * 200, "/v2/models/other/infer",
        )  # fmt: skip
        return self.pick(known + others)

    # --- values -------------------------------------------------------------------------------------------------------

    def unit(self) -> str:
        """A unit by the grammar of the texts that are passed to Pint, with powers and repetition."""

        def word() -> str:
            power = self.pick(
                ["", "", f"^{self.random.randint(1, 9)}", f"**-{self.random.randint(1, 9)}", "^-9"]
            )
            return self.pick(UNIT_WORDS) + power

        if self.chance() < 0.1:
            return " ".join([word()] * self.random.randint(2, 7))
        count = self.pick([1, 1, 1, 2, 3, 6, 8])
        joined = "".join(word() + self.pick([" ", "*", "/"]) for _ in range(count))[:-1]
        return self.pick(["", "", "", "1/"]) + joined

    def json_value(self, depth: int = 0) -> Any:
        """Any JSON value."""
        match self.random.randrange(8 if depth < 4 else 6):
            case 0 | 1:
                return self.pick(NUMBERS)
            case 2 | 3:
                return self.pick(TEXTS)
            case 4:
                return self.pick([True, False, None])
            case 5:
                return self.pick(TIMES)
            case 6:
                return [self.json_value(depth + 1) for _ in range(self.random.randrange(4))]
            case _:
                return {self.pick(TEXTS): self.json_value(depth + 1) for _ in range(self.random.randrange(3))}

    def value(self, name: str, usual: object) -> Any:
        """A value of a column: mostly a usual one, else one at its edge or of another kind."""
        drawn = self.chance()
        if drawn < 0.8:
            return usual
        if drawn < 0.95:
            pools: dict[str, Sequence[Any]] = {"scheduled": TIMES, "distance": NUMBERS, "seats": NUMBERS}
            return self.pick(pools.get(name, TEXTS))
        return self.json_value()

    # --- inference ----------------------------------------------------------------------------------------------------

    def inference(self) -> tuple[str, str, bytes, dict[str, str]]:
        """An inference request: JSON, or JSON with binary tensors behind it."""
        path = (
            INFER
            if self.chance() < 0.95
            else f"/v2/models/{MODEL}/versions/{self.pick(['half', 'none', 'tenth'])}/infer"
        )
        count = self.pick([1, 1, 1, 1, 2, 5, 30]) if self.chance() < 0.99 else self.random.randint(200, 1500)
        base = row()
        if self.chance() < 0.3:
            base["wind"] = 3.5
        # One bad value is enough to refuse a request, so most have one column that is drawn at all.
        odd = self.pick(list(base)) if self.chance() < 0.6 else ""
        inputs, tail = [], b""
        for name, usual in base.items():
            if self.chance() < 0.01:
                continue
            values = [self.value(name, usual) if name == odd else usual for _ in range(count)]
            tensor = tensors([{name: usual}])["inputs"][0] | {"shape": [count], "data": values}
            tail += self.changed(tensor, odd == name)
            inputs.append(tensor)
        if self.chance() < 0.02:
            inputs.append(self.pick(inputs) if inputs else self.json_value())
        self.random.shuffle(inputs)
        body: dict[str, Any] = {"inputs": inputs}
        if self.chance() < 0.2:
            names = ("unit", "probe", "binary_data_output", "other")
            body["parameters"] = {self.pick(names): self.pick([True, "u1", 7, self.json_value()])}
        if self.chance() < 0.1:
            body["id"] = self.pick([*TEXTS, 7])
        if self.chance() < 0.05:
            body["outputs"] = [
                {"name": self.pick(["probability", "x"]), "parameters": {"binary_data": self.json_value()}}
            ]
        if self.chance() < 0.03:
            body[self.pick(["inputs", "id", "outputs", "parameters"])] = self.json_value()
        text = json.dumps(body, ensure_ascii=self.chance() < 0.5, separators=(",", ":")).encode(
            "utf-8", "surrogatepass"
        )
        if not tail and self.chance() < 0.97:
            return "POST", path, text, {}
        length = len(text) if self.chance() < 0.95 else self.random.randint(-1, len(text) + 9)
        return "POST", path, text + tail, {"Inference-Header-Content-Length": str(length)}

    def changed(self, tensor: dict[str, Any], is_odd: bool) -> bytes:
        """Change a tensor's form, in place; return its binary data, if it has any."""
        drawn = self.chance()
        if drawn < 0.04 or (is_odd and drawn < 0.3):
            tensor["parameters"] = {
                self.pick(["unit", "unit", "unit", "semantic", "window", "content_type"]): self.pick(
                    [self.unit(), self.unit(), self.unit(), "base64", "5min", self.json_value()]
                )
            }
        if is_odd and self.chance() < 0.15:
            tensor["datatype"] = self.pick(DATATYPES)
        if self.chance() < 0.03:
            rows = tensor["shape"][0]
            shapes = ([rows, 1], [1, rows], [], [0], [-1], [2**31, 2**33], [10**18], [rows + 1], "x")
            tensor["shape"] = self.pick(shapes)
            if tensor["shape"] == [rows, 1] and self.chance() < 0.7:
                tensor["data"] = [[value] for value in tensor["data"]]
        if self.chance() < 0.9:
            return b""
        raw = self.binary(str(tensor["datatype"]), tensor.pop("data"))
        size = len(raw) if self.chance() < 0.9 else self.random.randint(-1, len(raw) + 5)
        tensor["parameters"] = {**tensor.get("parameters", {}), "binary_data_size": size}
        return raw

    def binary(self, datatype: str, values: list[Any]) -> bytes:
        """The values as a binary tensor; those that do not fit become random bytes."""
        parts = []
        for value in values:
            if datatype == "BYTES":
                text = str(value).encode("utf-8", "surrogatepass")
                length = len(text) if self.chance() < 0.99 else self.random.randrange(2**32)
                parts.append(struct.pack("<I", length) + text)
                continue
            form = "<" + FORMATS.get(datatype, "d")
            try:
                parts.append(struct.pack(form, value if "f" in form or "d" in form else int(value)))
            except (struct.error, OverflowError, TypeError, ValueError):
                parts.append(self.random.randbytes(struct.calcsize(form)))
        return b"".join(parts)

    # --- feedback -----------------------------------------------------------------------------------------------------

    def feedback(self) -> bytes:
        """Labels by id or by key, one or many, in their form or near it."""
        if self.chance() < 0.05:
            return json.dumps(self.json_value()).encode("utf-8", "surrogatepass")
        labels = [self.label() for _ in range(self.pick([1, 1, 2, 5, 40]))]
        body = {"feedback": labels} if len(labels) > 1 or self.chance() < 0.5 else labels[0]
        return json.dumps(body).encode("utf-8", "surrogatepass")

    def label(self) -> Any:
        """One label."""
        made: dict[str, Any] = {
            "value": self.pick([True, False, 0, 1, 0.5, 2, None, "1", 10**400, self.json_value()])
        }
        if self.chance() < 0.6:
            number = self.random.randint(0, 3000)
            made["id"] = self.pick(
                [f"s1-1-{number}", f"s1-1-{number}/0", f"s1-1-{number}-{'a' * 16}", "s2-1-1", *TEXTS]
            )
        else:
            made["key"] = {"flight_id": self.value("flight_id", f"F{self.random.randint(0, 50)}")}
            if self.chance() < 0.1:
                made["key"] = self.json_value()
        if self.chance() < 0.2:
            made["source"] = self.pick([*TEXTS, "labels", "feed", self.json_value()])
        if self.chance() < 0.05:
            made[self.pick(TEXTS)] = self.json_value()
        return made


# --- the server -------------------------------------------------------------------------------------------------------


class Peer(asyncio.Transport):
    """A client's side of a connection: keeps what the server writes."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 1)})
        self.received = b""
        self.has_ended = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Keep `data`."""
        self.received += bytes(data)

    def can_write_eof(self) -> bool:
        """A response may be followed by the end of the stream."""
        return True

    def write_eof(self) -> None:
        """End."""
        self.has_ended = True

    def close(self) -> None:
        """End."""
        self.has_ended = True

    def abort(self) -> None:
        """End."""
        self.has_ended = True

    def pause_reading(self) -> None:
        """Nothing is read from here."""

    def resume_reading(self) -> None:
        """Nothing is read from here."""


def other_contract() -> Contract:
    """The challenger's: kilometres for miles, and a column more."""
    columns = [
        replace(each, unit="km", high=9700.0)
        if isinstance(each, Number) and each.name == "distance"
        else each
        for each in CONTRACT.request_columns
    ]
    wind = Number("wind", unit="m/s", low=0, high=90, missing="keep")
    return Contract(*columns, wind, key="flight_id", event_time="scheduled", label=CONTRACT.label)


def plan() -> ActivePlan:
    """Half of the units on a challenger that raises for long distances."""
    files = {"half": packed("half"), "broken": packed("broken", other_contract()), "tenth": packed("tenth")}
    versions = {name: load(name, sha256_hex(data), data, created_at_us=1) for name, data in files.items()}
    return ActivePlan.of(TrafficPlan(MODEL, 1, "half", "broken", 500_000, "tenth", None, 1), versions)


PROBABILITIES: Final = {"half": 0.5, "broken": 0.875, "tenth": 0.1}
"""What each version of the plan predicts for the good client's row."""


@dataclass
class Found:
    """What the clients saw."""

    requests: int = 0
    on_sockets: int = 0
    good: int = 0
    good_wrong: int = 0
    good_failed: int = 0
    server_errors: int = 0
    silent: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    unreadable: int = 0
    worst_ms: float = 0.0
    examples: list[bytes] = field(default_factory=list)


class Ground:
    """The server's parts in this process, and the good client's connection."""

    def __init__(self, directory: Path) -> None:
        self.log = LogWriter(directory, "s1", MODEL, segment_bytes=4 * 1024 * 1024)
        self.plane = DataPlane(MODEL, self.log, lambda: time.time_ns() // 1000)
        self.plane.active = plan()
        self.directory = directory
        limits = ConnectionLimits(queue_seconds=3600.0)
        self.routes = Routes(
            self.plane, dict, lambda: ServerFacts(MODEL, 1.0, {}), "0", RequestGuard([]),
            lambda exchange: exchange.refuse(403, "HF510", "off"), lambda: limits,
        )  # fmt: skip
        self.listener = Listener(
            self.routes, limits, lambda: b"Thu, 01 Jan 1970 00:00:00 GMT", self.routes.refusal
        )
        self.server: asyncio.Server | None = None
        self.socket_client: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self.good = Peer()
        self.client = self.listener.connection()
        self.client.connection_made(self.good)
        self.found = Found()
        self.number = 0

    async def round(self, drawn: Sequence[bytes]) -> None:
        """Give the server a batch of drawn requests with the good client's between them; wait for the responses."""
        began = time.perf_counter()
        peers = []
        for place, wire in enumerate(drawn):
            if place % (BATCH // GOOD_IN_BATCH) == 1:
                self.ask()
            peer, connection = Peer(), self.listener.connection()
            connection.connection_made(peer)
            connection.data_received(wire)
            # An unfinished request gets no response before its deadline, for which nothing here waits.
            peer.has_ended |= not connection.busy or connection.is_slow(float("inf"), 0.0)
            peers.append((wire, peer, connection))
        await self.until(lambda: self.good.received.count(b"HTTP/1.1 ") >= self.asked)
        self.judge()
        await self.until(lambda: all(peer.received or peer.has_ended for _, peer, _ in peers))
        self.found.worst_ms = max(self.found.worst_ms, 1000 * (time.perf_counter() - began))
        for wire, peer, connection in peers:
            self.found.requests += 1
            self.count(wire, peer.received)
            self.found.silent += (
                not peer.received and b"\r\n\r\n" in wire and not connection.busy and not peer.has_ended
            )
            connection.connection_lost(None)

    async def listen(self) -> None:
        """Listen on a free port, and connect the good client."""
        loop = asyncio.get_running_loop()
        self.server = await loop.create_server(self.listener.connection, "127.0.0.1", 0)
        self.socket_client = await asyncio.open_connection(*self.server.sockets[0].getsockname())

    async def round_on_sockets(self, drawn: Sequence[bytes]) -> None:
        """As `round`, through sockets: all at once, each drawn request followed by the end of the stream."""
        began = time.perf_counter()
        received, _ = await asyncio.gather(asyncio.gather(*map(self.exchange, drawn)), self.ask_on_socket())
        self.found.worst_ms = max(self.found.worst_ms, 1000 * (time.perf_counter() - began))
        for wire, response in zip(drawn, received, strict=True):
            self.found.requests += 1
            self.found.on_sockets += 1
            self.count(wire, response)

    async def exchange(self, wire: bytes) -> bytes:
        """Send `wire` on a connection of its own, and return what the server wrote before it closed."""
        assert self.server is not None
        reader, writer = await asyncio.open_connection(*self.server.sockets[0].getsockname())
        received = b""
        try:
            writer.write(wire)
            writer.write_eof()
            async with asyncio.timeout(PATIENCE_SECONDS):
                while part := await reader.read(65536):
                    received += part
        except ConnectionError:  # reset: a refused request whose rest was not read
            pass
        finally:
            writer.close()
        return received

    async def ask_on_socket(self) -> None:
        """Send one request of the good client through its socket, and judge the response."""
        assert self.socket_client is not None
        reader, writer = self.socket_client
        self.number += 1
        self.found.good += 1
        writer.write(self.good_request())
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
                body = await reader.readexactly(length)
        except (OSError, EOFError, TimeoutError):
            self.found.good_failed += 1
            return
        self.judge_one(self.number, head[9:] + body)

    def count(self, wire: bytes, response: bytes) -> None:
        """Count a drawn request by its status."""
        status = int(response[9:12] or 0)
        self.found.statuses[status] += 1
        if status >= 500 and status != 505:  # 505 is what another version of HTTP gets
            self.found.server_errors += 1
            self.found.examples.append(wire)

    asked = 0

    def ask(self) -> None:
        """Send one request of the good client."""
        self.number += 1
        self.asked += 1
        self.client.data_received(self.good_request())

    def good_request(self) -> bytes:
        """The good client's newest request."""
        body = json.dumps({**tensors([row()]), "id": f"g{self.number}"}).encode()
        head = f"POST {INFER} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        return head + body

    def judge(self) -> None:
        """Compare the good client's responses with what each version predicts for its row."""
        first = self.number - self.asked + 1
        parts = self.good.received.split(b"HTTP/1.1 ")[1:]
        for number, part in enumerate(parts, first):
            self.found.good += 1
            self.judge_one(number, part)
        self.found.good_failed += self.asked - len(parts)
        self.good.received, self.asked = b"", 0

    def judge_one(self, number: int, part: bytes) -> None:
        """Judge the response to request number `number`, from its status on."""
        if not part.startswith(b"200"):
            self.found.good_failed += 1
            return
        response = json.loads(part.partition(b"\r\n\r\n")[2])
        [probability] = response["outputs"][0]["data"]
        expected = PROBABILITIES[response["model_version"]]
        self.found.good_wrong += response["id"] != f"g{number}" or abs(probability - expected) > 1e-6

    async def until(self, holds: Callable[[], bool]) -> None:
        """Run the loop until `holds`, or give up."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not holds() and time.monotonic() < deadline:
            await asyncio.sleep(0)

    def read_log(self) -> None:
        """Read what the control loop would collect, and delete the segments that are complete."""
        found = segments(self.directory)
        for number, path in found:
            offset = 0
            while True:
                try:
                    records, following = read(path, offset)
                    summarise(records, LogContext())
                except Exception as error:
                    self.found.unreadable += 1
                    self.found.examples.append(repr(error).encode())
                    break
                if following == offset:
                    break
                offset = following
            if number != self.log.segment:
                path.unlink()

    def close(self) -> None:
        """Stop."""
        if self.server is not None and self.socket_client is not None:
            self.socket_client[1].close()
            self.server.close()
        self.listener.close()
        self.routes.close()
        self.log.close()


def resident_mb() -> float:
    """The resident memory of this process."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


async def run(seeds: Sequence[int], requests: int, sockets: float, directory: Path) -> dict[str, Any]:
    """Every seed on one server; memory is compared with that after the warm-up."""
    ground = Ground(directory)
    await ground.listen()
    rounds = max(1, requests // BATCH)
    all_rounds = len(seeds) * rounds
    warm_rounds = max(1, all_rounds // 10, min(WARM_UP_REQUESTS // BATCH, all_rounds // 2))
    warm_mb = 0.0
    done = 0
    for seed in seeds:
        drawn = Drawn(seed)
        for _ in range(rounds):
            batch = [drawn.request() for _ in range(BATCH)]
            await (ground.round_on_sockets if drawn.chance() < sockets else ground.round)(batch)
            done += 1
            if done % CHECK_ROUNDS == 0:
                ground.read_log()
            if done == warm_rounds:
                warm_mb = resident_mb()
        print(
            f"seed {seed}: {ground.found.requests:,} requests, {dict(sorted(ground.found.statuses.items()))}",
            flush=True,
        )
    ground.read_log()
    found = ground.found
    growth = resident_mb() - warm_mb
    errors = dict(ground.plane.errors.by_step)
    ground.close()
    for wire in found.examples[:5]:
        print(repr(wire[:600]), file=sys.stderr)
    return {
        "requests": found.requests,
        "good_requests": found.good,
        "good_wrong": found.good_wrong,
        "good_failed": found.good_failed,
        "server_errors": found.server_errors,
        "silent": found.silent,
        "own_defects": sum(errors.values()),
        "unreadable_logs": found.unreadable,
        "rss_growth_mb": round(growth, 1),
        "warm_up_requests": warm_rounds * BATCH,
        "requests_on_sockets": found.on_sockets,
        "worst_batch_ms": round(found.worst_ms, 1),
        "seeds": len(seeds),
        "statuses": {str(status): {"requests": number} for status, number in sorted(found.statuses.items())},
    }


@contextmanager
def _only_errors_logged() -> Iterator[None]:
    logger = logging.getLogger("holdfast")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def main(arguments: Sequence[str] | None = None) -> int:
    """Fuzz, and print the figures."""
    command = Command("benchmarks.fuzz", __doc__)
    command.size("--seeds", 20, 1, help="seeds, one after the other")
    command.size("--requests", 100_000, 600, help="drawn requests a seed")
    command.size("--growth", 64.0, 256.0, help="the most megabytes that memory may grow")
    command.size("--sockets", 0.1, 0.3, help="share of the rounds that go through sockets")
    command.option("--first-seed", type=int, default=1)
    given = command.parse(arguments)
    load_definitions()
    with _only_errors_logged(), tempfile.TemporaryDirectory(prefix="holdfast-fuzz-") as directory:
        seeds = range(given.first_seed, given.first_seed + given.seeds)
        found = asyncio.run(run(seeds, given.requests, given.sockets, Path(directory)))
    bad = ("good_wrong", "good_failed", "server_errors", "silent", "own_defects", "unreadable_logs")
    return command.finish(
        found, passed=not any(found[name] for name in bad) and found["rss_growth_mb"] <= given.growth
    )


if __name__ == "__main__":
    sys.exit(main())
