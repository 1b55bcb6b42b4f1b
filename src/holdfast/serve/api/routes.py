"""Route HTTP requests to the data plane, and write its outcomes as responses.

Inference requests take turns (`inference_queue`). Every other request is answered at once, feedback as soon as it is on disk.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import msgspec

from holdfast.errors import HoldfastError
from holdfast.rollout.model.serving_config import ConnectionLimits
from holdfast.serve.api.inference_queue import InferenceQueue
from holdfast.serve.api.label_items import LabelItems, parse_labels, read_label
from holdfast.serve.api.recent_labels import RecentLabels
from holdfast.serve.api.source_quota import SourceQuota
from holdfast.serve.api.taken_labels import TakenLabels
from holdfast.serve.http.content_coding import ContentDecoder
from holdfast.serve.http.exchange import Exchange, Refusal
from holdfast.serve.http.request_guard import RequestGuard
from holdfast.serve.http.responses import OCTETS, status_of
from holdfast.serve.http.target import origin_form
from holdfast.serve.inference import metrics
from holdfast.serve.inference.data_plane import DataPlane, InferenceCall, Outcome
from holdfast.serve.protocol.metadata import model_metadata, server_metadata
from holdfast.serve.protocol.oip import RequestError, encode_response
from holdfast.store.serving.prediction_log import frame

Handler = Callable[[Exchange], None]


_encode: Final = msgspec.json.Encoder().encode


class Routes:
    """The application behind a `Listener`.

    Parameters
    ----------
    plane
        The data plane.
    status
        Returns the facts of `/holdfast/status`.
    scrape
        Returns the facts of `/metrics`.
    release
        This release's name, for the server's metadata.
    guard
        Decides which requests may change something.
    abort
        Handles `/holdfast/abort`.
    limits
        Returns the limits of now.
    """

    def __init__(
        self,
        plane: DataPlane,
        status: Callable[[], dict[str, object]],
        scrape: Callable[[], metrics.ServerFacts],
        release: str,
        guard: RequestGuard,
        abort: Handler,
        limits: Callable[[], ConnectionLimits],
    ) -> None:
        self.draining = False
        self._plane = plane
        self._guard = guard
        self._decoder = ContentDecoder(limits, lambda exchange, error: self._fail(exchange, "decode", error))
        self._status = status
        self._scrape = scrape
        self._server_metadata = server_metadata(release)
        self._loop = asyncio.get_running_loop()
        self._queue = InferenceQueue(plane, self._loop, limits, self._respond, self._store_labels)
        self._recent_labels = RecentLabels()
        self._quota = SourceQuota(lambda: limits().labels_per_hour)
        self._model_path = f"/v2/models/{plane.model}".encode()
        self._ready_body = _encode({"name": plane.model, "ready": True})
        self._infer_path = self._model_path + b"/infer"
        self._routes: dict[bytes, tuple[bytes, Handler]] = {
            b"/v2": (b"GET", self._server),
            b"/v2/health/live": (b"GET", lambda exchange: exchange.send(200, b'{"live":true}')),
            b"/v2/health/ready": (b"GET", self._ready),
            self._model_path: (b"GET", self._model),
            self._model_path + b"/ready": (b"GET", self._model_ready),
            self._infer_path: (b"POST", self._infer),
            self._model_path + b"/feedback": (b"POST", self._queue.add_labels),
            b"/holdfast/status": (b"GET", lambda exchange: exchange.send(200, _encode(self._status()))),
            b"/holdfast/abort": (b"POST", abort),
            b"/metrics": (b"GET", self._metrics),
        }

    def close(self) -> None:
        """Let no compressed body wait any more."""
        self._decoder.close()

    @property
    def ready(self) -> bool:
        """Return True if the server takes requests."""
        return self._plane.active is not None and not self.draining

    def __call__(self, exchange: Exchange) -> None:
        """Answer `exchange`, now or at the end of this turn of the loop."""
        try:
            self._accept(exchange)
        except Exception as error:
            self._fail(exchange, "route", error)

    def _fail(self, exchange: Exchange, step: str, error: Exception) -> None:
        """Answer a request that met a defect of the server; no other request is affected."""
        self._plane.errors.count(step, error)
        exchange.refuse(503, "HF503", "the server failed on this request, by a defect of its own")

    def _respond(self, exchange: Exchange, outcome: Outcome) -> None:
        try:
            _send_outcome(exchange, outcome)
        except Exception as error:
            self._fail(exchange, "respond", error)

    def _accept(self, exchange: Exchange) -> None:
        if exchange.path[:1] != b"/" or b"%" in exchange.path:
            exchange.path, host = origin_form(exchange.path)
            if host is not None:
                exchange.headers = {**exchange.headers, b"host": host}
        # Reads too: a page whose foreign name points here would read them, and what is ready under a name infers under it.
        checked = self._guard.rejection if exchange.method == b"POST" else self._guard.host_rejection
        if (rejection := checked(exchange)) is not None:
            exchange.refuse(rejection[0], "HF509", rejection[1])
            return
        if exchange.method == b"POST" and (coding := exchange.headers.get(b"content-encoding")) is not None:
            self._decoder.decode(exchange, coding, self._dispatch)
            return
        self._route(exchange)

    def _dispatch(self, exchange: Exchange) -> None:
        """Route an exchange whose body was decompressed, maybe in a later turn of the loop."""
        try:
            self._route(exchange)
        except Exception as error:
            self._fail(exchange, "route", error)

    def _route(self, exchange: Exchange) -> None:
        if exchange.path == self._infer_path and exchange.method == b"POST":
            self._infer(exchange)
            return
        path = exchange.path.split(b"?", 1)[0].rstrip(b"/")
        found = self._routes.get(path) or self._versioned(path)
        if found is None:
            exchange.refuse(404, "HF509", self._not_found_reason(path))
        elif exchange.method == found[0] or (exchange.method == b"HEAD" and found[0] == b"GET"):
            found[1](exchange)
        else:
            allowed = b"GET, HEAD" if found[0] == b"GET" else found[0]
            exchange.refuse(405, "HF509", "this path has other methods", extra=b"allow: " + allowed + b"\r\n")

    def _not_found_reason(self, path: bytes) -> str:
        """Return why nothing is at `path`."""
        active = self._plane.active
        if path.startswith(self._model_path + b"/versions/") and active is not None:
            version = path.split(b"/")[5].decode("ascii", "replace")
            if version not in active.versions:
                return f"that version is not loaded here; these are: {', '.join(active.versions)}"
        if path.startswith(b"/v2/models/") and not path.startswith(self._model_path + b"/"):
            return f"this server has only the model {self._plane.model!r}"
        return "there is nothing at this path"

    # --- inference ----------------------------------------------------------------------------------------------------

    def _infer(self, exchange: Exchange, pinned: str | None = None) -> None:
        header_length = exchange.headers.get(b"inference-header-content-length")
        authorization = exchange.headers.get(b"authorization", b"")
        call = InferenceCall(exchange.body, header_length, pinned, exchange.received, authorization)
        self._queue.add(exchange, call)

    def refusal(self, path: bytes, length: int) -> Refusal | None:
        """Return why a request is refused before its body of `length` bytes is received; None if it is not."""
        return self._queue.refusal(length) if path.endswith(b"/infer") else None

    # --- health and metadata ------------------------------------------------------------------------------------------

    def _server(self, exchange: Exchange) -> None:
        exchange.send(200, self._server_metadata)

    def _ready(self, exchange: Exchange) -> None:
        # The protocol's text calls this member "live", its schema "ready".
        self._send_ready(exchange, b'{"live":true,"ready":true}')

    def _model_ready(self, exchange: Exchange) -> None:
        self._send_ready(exchange, self._ready_body)

    def _send_ready(self, exchange: Exchange, body: bytes) -> None:
        if self.ready:
            exchange.send(200, body)
        else:
            exchange.refuse(
                503, "HF504" if self.draining else "HF503", "this server does not take requests now"
            )

    def _model(self, exchange: Exchange, version: str | None = None) -> None:
        active = self._plane.active
        if active is None:
            exchange.refuse(503, "HF503", "no version is loaded yet")
            return
        loaded = active.versions[version or active.plan.champion]
        named = [version] if version else list(active.plan.versions())
        facts = {"contract_hash": loaded.contract.hash, "features_hash": loaded.facts.features_hash}
        wire = active.schemas[loaded.name].wire
        exchange.send(200, model_metadata(self._plane.model, named, wire, facts, loaded.words))

    def _metrics(self, exchange: Exchange) -> None:
        def send(encoded: asyncio.Future[tuple[bytes, bytes]]) -> None:
            if encoded.cancelled() or encoded.exception() is not None:
                exchange.refuse(503, "HF503", "the metrics could not be encoded")
            else:
                exchange.send(200, *encoded.result())

        # Counters are copied here, on the thread that counts; encoding takes milliseconds and no request waits for it.
        collector = metrics.ServerCollector(self._scrape(), self._plane.counters.copy())
        self._loop.run_in_executor(
            None, collector.encode, exchange.headers.get(b"accept", b"")
        ).add_done_callback(send)

    def _versioned(self, path: bytes) -> tuple[bytes, Handler] | None:
        prefix = self._model_path + b"/versions/"
        active = self._plane.active
        if active is None or not path.startswith(prefix):
            return None
        name, _, rest = path[len(prefix) :].partition(b"/")
        version = name.decode("ascii", "replace")
        if version not in active.versions:
            return None
        match rest:
            case b"":
                return b"GET", lambda exchange: self._model(exchange, version)
            case b"ready":
                return b"GET", self._model_ready
            case b"infer":
                return b"POST", lambda exchange: self._infer(exchange, version)
            case _:
                return None

    # --- feedback -----------------------------------------------------------------------------------------------------

    def _store_labels(self, exchange: Exchange) -> None:
        try:
            self._feedback(exchange)
        except Exception as error:
            self._fail(exchange, "route", error)

    def _feedback(self, exchange: Exchange) -> None:
        try:
            labels = self._take_labels(parse_labels(bytes(exchange.body)), exchange)
        except HoldfastError as error:
            _refuse(exchange, error)
            return
        records = labels.records
        if not labels.needs_disk:
            exchange.send(labels.status, _encode(labels.document))
            return
        log = self._plane.log
        if records and log.is_contested:
            why = "another process has the name of this server, or may have it; nothing was stored"
            exchange.refuse(503, "HF304", why)
            return
        if records and not log.write([frame(record) for record in records]):
            log.drop(len(records))
            exchange.refuse(503, "HF307", "the feedback could not be written; nothing was stored")
            return
        self._recent_labels.add(labels.newest, labels.quarantined)

        def respond(durable: asyncio.Future[bool]) -> None:
            if not durable.exception() and durable.result():
                self._plane.counters.labels += len(records)
                exchange.send(labels.status, _encode(labels.document))
            else:
                self._recent_labels.remove(labels.newest, labels.quarantined)
                exchange.refuse(503, "HF307", "the disk did not take the feedback; send it again")

        asyncio.wrap_future(log.durability(), loop=self._loop).add_done_callback(respond)

    def _take_labels(self, items: LabelItems, exchange: Exchange) -> TakenLabels:
        """Return the labels to store, with one result for each item. A label that comes alone raises its error."""
        now_us = self._plane.clock_us()
        taken = TakenLabels(
            items.is_list,
            self._plane.label_rules.corrections,
            self._recent_labels,
            lambda source: self._quota.take(exchange.address, source, now_us),
        )
        for item in items.items:
            try:
                taken.add(item, read_label(item, self._plane, now_us))
            except HoldfastError as error:
                if not items.is_list:
                    raise
                taken.reject(item, error)
        return taken


def _send_outcome(exchange: Exchange, outcome: Outcome) -> None:
    if isinstance(outcome, HoldfastError):
        _refuse(exchange, outcome)
        return
    response, as_tensors = outcome
    body, header_length = encode_response(response, as_tensors=as_tensors)
    if header_length is None:
        exchange.send(200, body)
    else:
        exchange.send(200, body, OCTETS, b"inference-header-content-length: %d\r\n" % header_length)


def _refuse(exchange: Exchange, error: HoldfastError) -> None:
    reasons = error.reasons if isinstance(error, RequestError) else []
    exchange.refuse(status_of(error), error.code, error.what, reasons)
