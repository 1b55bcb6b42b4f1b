"""Call the model over HTTP as callers would, and send the labels later."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final

from holdfast.contract import Contract
from holdfast.control.http.client import Client
from holdfast.control.http.open_inference import inference_request
from holdfast.errors import UnavailableError

THREADS: Final = 4
TIMEOUT_SECONDS: Final = 10.0


@dataclass(slots=True)
class Tally:
    """Counts of responses."""

    requests: int = 0
    http_5xx: int = 0
    http_4xx: int = 0
    by_version: dict[str, int] = field(default_factory=dict)

    def add(self, status: int, version: str | None) -> None:
        """Count one response."""
        self.requests += 1
        self.http_5xx += status >= 500
        self.http_4xx += 400 <= status < 500
        if version is not None:
            self.by_version[version] = self.by_version.get(version, 0) + 1


class ModelClient:
    """A client of one model.

    Parameters
    ----------
    host, port
        The address of the server.
    model, contract
        The model and the contract of its rows.
    """

    def __init__(self, host: str, port: int, model: str, contract: Contract) -> None:
        self._host, self._port = host, port
        self._path = f"/v2/models/{model}"
        self._columns = contract.request_columns
        self.address = f"http://{host}:{port}{self._path}"
        self.tally = Tally()

    def predict(self, rows: Sequence[Mapping[str, Any]], units: Sequence[str]) -> list[str | None]:
        """Send each row as one request, in order, over a few connections; return the prediction ids.

        The id of a row without a response is None. Raises `UnavailableError` HF506 if the server is gone.
        """
        ids: list[str | None] = [None] * len(rows)

        def send(lane: int) -> list[tuple[int, str | None]]:
            responses = []
            with self._client() as client:
                for position in range(lane, len(rows), THREADS):
                    body = inference_request(self._columns, rows[position], units[position])
                    response = client.request("POST", f"{self._path}/infer", body)
                    document = response.document()
                    responses.append((response.status, document.get("model_version")))
                    # A server whose log is full responds without an id: such a prediction can get no label.
                    ids[position] = document.get("parameters", {}).get("prediction_id")
            return responses

        try:
            with ThreadPoolExecutor(THREADS) as pool:
                for lane in pool.map(send, range(THREADS)):
                    for status, version in lane:
                        self.tally.add(status, version)
        except (OSError, ValueError) as error:
            raise UnavailableError(
                "HF506", f"the server at {self._host}:{self._port} went away: {error}"
            ) from error
        return ids

    def send_labels(self, labels: Sequence[tuple[str, bool]], source: str) -> None:
        """Send labels, many per request."""
        with self._client() as client:
            for start in range(0, len(labels), 500):
                part = [
                    {"id": name, "value": value, "source": source}
                    for name, value in labels[start : start + 500]
                ]
                response = client.request("POST", f"{self._path}/feedback", json.dumps({"feedback": part}))
                self.tally.http_5xx += response.status >= 500

    def wait_until_ready(self, seconds: float) -> None:
        """Wait until the model is ready. Raises `UnavailableError` HF506 after `seconds`."""
        late = f"no server became ready at {self._host}:{self._port}"
        self._wait(lambda: self.get(f"{self._path}/ready")[0] == 200, seconds, late)

    def wait_for_tables(self, table_version: int, seconds: float) -> None:
        """Wait until the server reads online features of at least `table_version`."""
        late = f"the server did not see table version {table_version}"
        self._wait(
            lambda: self.get("/holdfast/status")[1].get("table_version", 0) >= table_version, seconds, late
        )

    def _wait(self, holds: Callable[[], bool], seconds: float, late: str) -> None:
        deadline = time.monotonic() + seconds
        while not holds():
            if time.monotonic() > deadline:
                raise UnavailableError("HF506", f"{late} within {seconds:g} s")
            time.sleep(0.01)

    def get(self, path: str) -> tuple[int, dict[str, Any]]:
        """Send one GET; return its status and JSON document, (0, {}) without a response."""
        try:
            with self._client() as client:
                response = client.request("GET", path)
        except OSError:
            return 0, {}
        return response.status, response.document() if response.body.startswith(b"{") else {}

    def _client(self) -> Client:
        return Client(f"http://{self._host}:{self._port}", timeout_seconds=TIMEOUT_SECONDS)
