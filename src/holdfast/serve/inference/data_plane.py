"""The data plane: from decoded requests to responses, without any transport.

A request is checked against the contract, its aggregates are filled, and its arm is drawn by hash. A version
predicts, the prediction is logged, and only then the response is returned. Requests that arrive together run as one
batch per version. When a version fails, another answers: the champion for the challenger; the previous version and
then the heuristic for the champion.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from time import perf_counter, thread_time
from typing import Any, Final, TypeAlias

import msgspec

from holdfast.errors import HoldfastError, NotFoundError, UnavailableError
from holdfast.features import OnlineTable
from holdfast.records import DAY_US, Arm, TrafficPlan
from holdfast.rollout.model.assignment import arm_of
from holdfast.serve.inference.active_plan import ActivePlan
from holdfast.serve.inference.loaded_model import Probabilities, empty_rows, invalid_reason
from holdfast.serve.inference.metrics import Counters
from holdfast.serve.inference.request_schema import RequestSchema, Row
from holdfast.serve.inference.shadow import ShadowCopy, ShadowThread
from holdfast.serve.protocol.oip import InferRequest, InferResponse, RequestError, decode_request
from holdfast.store.serving.log_writer import LogWriter
from holdfast.store.serving.prediction_log import PredictionRecord, ShadowRecord, frame

MAX_LOGGED_RULES: Final = 5
"""How many of the rules that a rejected request broke are in the log."""


@dataclass(slots=True)
class InferenceCall:
    """One request as received: its body, the header length of the binary extension, and the version it names, if any."""

    body: bytes | bytearray
    header_length: bytes | None
    pinned: str | None
    received: float
    """When its last byte came, on the clock of `perf_counter`."""


Outcome: TypeAlias = tuple[InferResponse, bool] | HoldfastError
"""A response and whether it is requested in binary; or the error."""


@dataclass(slots=True)
class _Job:
    index: int
    request: InferRequest
    schema: RequestSchema
    """The schema of `rows` and `received_rows`."""
    rows: list[Row]
    received_rows: list[tuple[Any, ...]]
    event_times: list[int]
    unit: bytes
    id: str
    version: str
    probe: bool
    rollout: int | None
    seconds: float
    pinned: bool
    challenger_failed: str = ""
    champion_failed: str = ""
    served_by: str = ""
    probabilities: Probabilities | None = None

    @property
    def predictions(self) -> list[float]:
        """Return the probabilities of its rows; empty if no version could answer."""
        return [] if self.probabilities is None else self.probabilities.tolist()


@dataclass(slots=True)
class DataPlane:
    """Answers inference requests. It belongs to one thread; others may replace `active` and add to `table`.

    Parameters
    ----------
    model
        The model's name.
    log
        The prediction log, written before responses are returned.
    clock_us
        Microseconds since 1970 UTC.
    """

    model: str
    log: LogWriter
    clock_us: Callable[[], int]
    table: OnlineTable = field(default_factory=OnlineTable)
    counters: Counters = field(default_factory=Counters)
    active: ActivePlan | None = None
    shadow: ShadowThread | None = None
    """The shadow's thread; None if the server has none."""
    _last_batch: tuple[ActivePlan, list[_Job], Sequence[InferenceCall]] | None = None
    _mirrored: ActivePlan | None = None

    def infer(self, calls: Sequence[InferenceCall]) -> list[Outcome]:
        """Return one outcome for each call, in order. Nothing that a client sends makes this raise."""
        active = self.active
        if active is None:
            return [_unavailable("no version is loaded yet") for _ in calls]
        if self.shadow is not None:
            self.shadow.is_path_busy = True  # until `mirror`
        outcomes: list[Outcome | None] = [None] * len(calls)
        frames: list[bytes] = []
        jobs: dict[str, list[_Job]] = {}
        for index, call in enumerate(calls):
            job = self._prepare(active, index, call, frames)
            if isinstance(job, _Job):
                jobs.setdefault(job.version, []).append(job)
            else:
                outcomes[index] = job
        done: list[_Job] = []
        # The champion first: a slow challenger must not be seen in the latency of the champion's requests.
        for version in sorted(jobs, key=lambda name: name != active.plan.champion):
            self._run(active, version, jobs[version])
            done += jobs[version]
        now_us = self.clock_us()
        logged_at = perf_counter()
        frames += [
            self._frame(active, job, now_us, logged_at - calls[job.index].received)
            for job in done
            if not job.probe
        ]
        logged = self.log.write(frames) if frames else True
        if not logged:
            self.log.drop(len(frames))
        self._last_batch = (active, done, calls)
        ended = perf_counter()
        for job in done:
            outcomes[job.index] = self._outcome(active, job, logged, ended - calls[job.index].received)
        return [
            outcome if outcome is not None else _unavailable("the request was lost") for outcome in outcomes
        ]

    def mirror(self) -> None:
        """Copy the last batch to the shadow, if there is one. To be called when the responses are out."""
        last_batch, self._last_batch = self._last_batch, None
        if self.shadow is None:
            return
        self.shadow.is_path_busy = False
        if last_batch is None:
            return
        active, jobs, calls = last_batch
        if active is not self._mirrored:
            self.shadow.set_target(active.shadow_target(self.table))
            self._mirrored = active
        plan = active.plan
        if plan.shadow is None:
            return
        for job in jobs:
            if job.probe or job.pinned:
                continue
            drawn = arm_of(job.unit, active.shadow_salt, plan.shadow_ppm) is Arm.CHALLENGER
            # A value that a caller got wrong in a column that only the shadow reads is no evidence against the shadow.
            if drawn and _has_valid_new_columns(active.schemas[plan.shadow], job):
                self.shadow.offer(_shadow_copy(plan, plan.shadow, job, len(calls[job.index].body)))

    def log_shadow_records(self) -> None:
        """Log the results that the shadow has finished."""
        frames = [] if self.shadow is None else self.shadow.take()
        if frames and not self.log.write(frames):
            self.log.drop(len(frames))

    # --- one request --------------------------------------------------------------------------------------------------

    def _prepare(
        self, active: ActivePlan, index: int, call: InferenceCall, frames: list[bytes]
    ) -> _Job | HoldfastError:
        began = thread_time()
        plan, schema = active.plan, active.schema
        try:
            if call.pinned is not None:
                if call.pinned not in active.versions:
                    return NotFoundError("HF303", f"version {call.pinned[:64]!r} is not loaded here")
                schema = active.schemas[call.pinned]
            specs = active.specs[call.pinned or plan.champion]
            request = decode_request(call.body, call.header_length, specs)
            if request.rows:
                own = request if request.columns.keys() <= schema.specs.keys() else _own(schema, request)
                rows, event_times = schema.accept(own, self.counters.violations)
                received_rows = schema.received_rows(request)
                if own is not request and call.pinned is None and plan.challenger is not None:
                    # Both arms are checked, so that the draw does not decide over the refusal.
                    new = active.schemas[plan.challenger]
                    _check_new_columns(new, schema, request, self.counters.violations)
            else:  # a probe that leaves the rows to us
                rows, received_rows, event_times = empty_rows(1), [()], [0]
        except RequestError as error:
            self.counters.violations.update(error.uncounted)
            result = "malformed" if error.code == "HF508" else "contract"
            self._reject(active, call, result, frames, error.rules)
            return error
        except UnavailableError as error:
            self._reject(active, call, "unavailable", frames)
            return error
        prediction = "" if request.probe else self.log.next_id(len(rows))
        unit_text = request.unit or request.id or prediction
        unit = blake2b(unit_text.encode(), digest_size=8).digest()
        version, rollout = plan.champion, None
        if call.pinned is not None:
            version = call.pinned
        elif request.probe:
            version = active.intended
        elif plan.challenger is not None:
            rollout = plan.rollout_id
            if arm_of(unit, active.salt, plan.share_ppm) is Arm.CHALLENGER:
                version = plan.challenger
        seconds = thread_time() - began
        return _Job(
            index, request, schema, rows, received_rows, event_times, unit, prediction, version, request.probe, rollout,
            seconds, call.pinned is not None,
        )  # fmt: skip

    def _reject(
        self,
        active: ActivePlan,
        call: InferenceCall,
        result: str,
        frames: list[bytes],
        rules: Sequence[str] = (),
    ) -> None:
        version = call.pinned or active.plan.champion
        arm = active.arm(version)
        now_us = self.clock_us()
        seconds = perf_counter() - call.received
        self.counters.count(version, arm, result, 0, seconds)
        number, latency_us = self.log.next_id(0), int(seconds * 1e6)
        rejected = PredictionRecord(
            number, now_us, now_us, b"", arm, version, "", None, result, latency_us, [], [], latency_us,
            list(rules[:MAX_LOGGED_RULES]),
        )  # fmt: skip
        frames.append(frame(rejected))

    # --- a batch of one version ---------------------------------------------------------------------------------------

    def _run(self, active: ActivePlan, version: str, jobs: list[_Job]) -> None:
        """Predict `jobs`, and charge each its rows' share of the batch's time.

        The arm with the smaller share of the traffic has the smaller batches. Charged for the whole batch, its
        requests would look faster than those of the other arm. So they look slower, by their greater part of a call's
        fixed cost: some ten microseconds, far below any bound on latency.

        It is this thread's own processor time. Waiting for a busy processor takes milliseconds, whatever the batch.
        Shared by many rows that is below the bound, charged to one row it is above: the arm with the smaller batches
        would look slow on a busy machine.
        """
        began = thread_time()
        failure = self._try(active, version, jobs)
        per_row = (thread_time() - began) / sum(len(job.rows) for job in jobs)
        for job in jobs:
            job.seconds += per_row * len(job.rows)
        if failure:
            # One request may have failed the whole batch: run each alone, then each with its fallbacks.
            for job in jobs:
                began = thread_time()
                self._run_alone(active, version, job)
                job.seconds += thread_time() - began

    def _run_alone(self, active: ActivePlan, version: str, job: _Job) -> None:
        candidates = [version] if job.pinned else [version, *active.fallbacks(version)]
        for candidate in candidates:
            failure = self._try(active, candidate, [job])
            if not failure:
                return
            if candidate == active.plan.challenger:
                job.challenger_failed = failure
                self.counters.challenger_failures[candidate, failure] += 1
            elif candidate == active.plan.champion:
                job.champion_failed = failure

    def _try(self, active: ActivePlan, name: str, jobs: list[_Job]) -> str:
        """Predict `jobs` with version `name`; return the kind of failure, or an empty text."""
        version = active.versions[name]
        try:
            rows, event_times = _rows_for(active.schemas[name], jobs)
        except (RequestError, UnavailableError):
            # One request must not be the fate of the batch: not even with a unit whose definition is not read yet.
            return "contract"
        try:
            version.fill_aggregates(rows, event_times, self.table)
            found = version.run(rows)
        except Exception:  # whatever it is, a request must be answered; the kind is counted and logged
            return "exception"
        if kind := invalid_reason(found, len(rows)):
            return kind
        begin = 0
        for job in jobs:
            end = begin + len(job.rows)
            job.probabilities = found[begin:end]
            job.served_by = version.name
            begin = end
        return ""

    # --- what is logged and returned ------------------------------------------------------------------------------------

    def _frame(self, active: ActivePlan, job: _Job, now_us: int, seconds: float) -> bytes:
        version = _charged(active, job)
        received, own = job.received_rows, active.schemas[version]
        if own is not job.schema and job.request.rows:
            # The log holds rows in the order and the units of the contract that answered.
            received = own.received_rows(_request_for(own, job.request, job.schema))
        record = PredictionRecord(
            job.id,
            now_us,
            job.event_times[0],
            job.unit,
            active.arm(version),
            version,
            job.challenger_failed,
            job.rollout,
            _result(job),
            int(job.seconds * 1e6),
            job.predictions,
            received if job.served_by else [],  # type: ignore[arg-type]  # tuples are written as lists are
            int(seconds * 1e6),
        )
        try:
            return frame(record)
        except OverflowError:  # an integer beyond 64 bits in a Number column
            inputs = [[float(value) if type(value) is int else value for value in row] for row in received]
            return frame(msgspec.structs.replace(record, inputs=inputs))

    def _outcome(self, active: ActivePlan, job: _Job, logged: bool, seconds: float) -> Outcome:
        version = _charged(active, job)
        arm = active.arm(version)
        if job.probe:
            self.counters.probes += 1
        else:
            self.counters.distant_events += abs(job.event_times[0] - self.clock_us()) > DAY_US
            self.counters.count(version, arm, _result(job), len(job.rows) if job.served_by else 0, seconds)
            if job.served_by:
                self._count_unseen_words(active, job)
        if job.probabilities is None:
            return _unavailable("no version could answer")
        prediction = None if job.probe or not logged else job.id
        plan = active.plan.plan_id if job.probe else None
        response = InferResponse(
            self.model, version, job.request.id, prediction, arm, plan, job.probabilities
        )
        return response, job.request.binary_output

    def _count_unseen_words(self, active: ActivePlan, job: _Job) -> None:
        """Count the rows with a word that the version has no code for (R25). Whole columns are compared: most have none."""
        for column, known in active.versions[job.served_by].not_unseen:
            values = job.request.columns.get(column)
            if values is not None and not known.issuperset(values):
                unseen = sum(value not in known for value in values)
                self.counters.unseen_words[job.served_by, column] += unseen


def _shadow_copy(plan: TrafficPlan, version: str, job: _Job, size_bytes: int) -> ShadowCopy:
    champion, result = job.served_by or plan.champion, job.champion_failed or _result(job)
    latency_us = int(job.seconds * 1e6)
    pair = ShadowRecord(
        job.id, 0, job.unit, plan.rollout_id, version, "", 0, None, [], champion, result, latency_us, job.predictions
    )  # fmt: skip
    return ShadowCopy(pair, size_bytes, lambda schema: _rows_for(schema, [job]))


def _rows_for(schema: RequestSchema, jobs: list[_Job]) -> tuple[list[Row], list[int]]:
    """Return the rows of `jobs` and their event times; raise `RequestError` when one breaks the contract of `schema`.

    A job is checked by one contract already. Another contract checks it again, without the columns that it does not have.
    """
    if len(jobs) == 1 and jobs[0].schema is schema:
        return jobs[0].rows, jobs[0].event_times
    rows: list[Row] = []
    event_times: list[int] = []
    for job in jobs:
        own, at = (job.rows, job.event_times) if job.schema is schema else _checked_by(schema, job)
        rows += own
        event_times += at
    return rows, event_times


def _checked_by(schema: RequestSchema, job: _Job) -> tuple[list[Row], list[int]]:
    if not job.request.rows:  # a probe that leaves the rows to us
        return job.rows, job.event_times
    return schema.accept(_request_for(schema, job.request, job.schema), Counter())


def _own(schema: RequestSchema, request: InferRequest) -> InferRequest:
    """Return the request without the inputs that only another version has."""
    columns = {name: values for name, values in request.columns.items() if name in schema.specs}
    return replace(request, columns=columns)


def _check_new_columns(
    new: RequestSchema, known: RequestSchema, request: InferRequest, violations: Counter[str]
) -> None:
    """Check the columns of the request that the schema `new` has and `known` does not.

    A bad value in one is the caller's fault, as in any other column. Found only when the version of `new` predicts, it
    would count as a failure of that version.
    """
    added = request.columns.keys() & (new.specs.keys() - known.specs.keys())
    if added:
        new.check_columns(_request_for(new, request, known), added, violations)


def _has_valid_new_columns(schema: RequestSchema, job: _Job) -> bool:
    try:
        _check_new_columns(schema, job.schema, job.request, Counter())
    except (RequestError, UnavailableError):
        return False
    return True


def _request_for(schema: RequestSchema, request: InferRequest, made_for: RequestSchema) -> InferRequest:
    """Return the request for another contract; units that it does not state are those of the contract it was made for."""
    facts = schema.differing_facts(made_for) | (request.facts or {})
    return replace(_own(schema, request), facts=facts or None)


def _charged(active: ActivePlan, job: _Job) -> str:
    """Return the version that is charged: the one that answered, else the one that was named, else the champion."""
    return job.served_by or (job.version if job.pinned else active.plan.champion)


def _result(job: _Job) -> str:
    if job.probabilities is None:
        return "unavailable"
    return "champion_failed" if job.champion_failed else "ok"


def _unavailable(why: str) -> UnavailableError:
    return UnavailableError("HF503", why)
