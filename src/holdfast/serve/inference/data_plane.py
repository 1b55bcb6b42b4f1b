"""The data plane: from decoded requests to answers, without any transport.

A request is checked against the contract, its aggregates are filled, its arm is drawn by hash, a version answers, the answer
is logged, and only then given out. Requests that are handed over together run as one batch per version. Whoever fails
is answered for: the champion for the challenger; the previous version and then the heuristic for the champion.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from time import perf_counter, thread_time
from typing import Any, TypeAlias

from holdfast.errors import HoldfastError, NotFoundError, UnavailableError
from holdfast.features import OnlineTable
from holdfast.records import Arm, TrafficPlan
from holdfast.rollout import arm_of
from holdfast.serve.inference.active_plan import Serving
from holdfast.serve.inference.loaded_model import Probabilities, empty_rows, unfit
from holdfast.serve.inference.metrics import Counters
from holdfast.serve.inference.request_schema import Endpoint, Row
from holdfast.serve.inference.shadow import Copy, ShadowThread
from holdfast.serve.protocol.oip import InferAnswer, InferRequest, RequestError, decode_request
from holdfast.store.serving.log_writer import LogWriter
from holdfast.store.serving.prediction_log import PredictionRecord, frame


@dataclass(slots=True)
class Call:
    """One request as it came: its body, the header length of the binary extension, a version if the caller names one."""

    body: bytes | bytearray
    header_length: bytes | None
    pinned: str | None
    received: float
    """When its last byte came, on the clock of `perf_counter`."""


Outcome: TypeAlias = tuple[InferAnswer, bool] | HoldfastError
"""An answer and whether it is wanted in binary; or why there is none."""


@dataclass(slots=True)
class _Job:
    place: int
    request: InferRequest
    endpoint: Endpoint
    """By whose contract `rows` and `received_rows` are."""
    rows: list[Row]
    received_rows: list[tuple[Any, ...]]
    moments: list[int]
    unit: bytes
    id: str
    version: str
    probe: bool
    rollout: int | None
    seconds: float
    pinned: bool
    challenger_failed: str = ""
    champion_failed: str = ""
    answered: str = ""
    probabilities: Probabilities | None = None


@dataclass(slots=True)
class Plane:
    """Everything that answering needs. It belongs to one thread; other threads may replace `serving` and add to `table`.

    Parameters
    ----------
    model
        The model's name.
    log
        Where answers are written before they are given out.
    clock_us
        Microseconds since 1970 UTC.
    """

    model: str
    log: LogWriter
    clock_us: Callable[[], int]
    table: OnlineTable = field(default_factory=OnlineTable)
    counters: Counters = field(default_factory=Counters)
    serving: Serving | None = None
    shadow: ShadowThread | None = None
    """Who answers copies; None when nobody may."""
    _answered: tuple[Serving, list[_Job], Sequence[Call]] | None = None
    _mirrored: Serving | None = None

    def answer(self, calls: Sequence[Call]) -> list[Outcome]:
        """One outcome for each call, in order. Nothing that a client sends makes this raise."""
        serving = self.serving
        if serving is None:
            return [_unavailable("no version is loaded yet") for _ in calls]
        if self.shadow is not None:
            self.shadow.answering = True  # until `mirror`
        outcomes: list[Outcome | None] = [None] * len(calls)
        frames: list[bytes] = []
        jobs: dict[str, list[_Job]] = {}
        for place, call in enumerate(calls):
            job = self._prepare(serving, place, call, frames)
            if isinstance(job, _Job):
                jobs.setdefault(job.version, []).append(job)
            else:
                outcomes[place] = job
        done: list[_Job] = []
        # The champion first: a slow challenger must not be seen in the latency of the champion's requests.
        for version in sorted(jobs, key=lambda name: name != serving.plan.champion):
            self._run(serving, version, jobs[version])
            done += jobs[version]
        now_us = self.clock_us()
        frames += [self._frame(serving, job, now_us) for job in done if not job.probe]
        logged = self.log.write(frames) if frames else True
        if not logged:
            self.log.drop(len(frames))
        self._answered = (serving, done, calls)
        ended = perf_counter()
        for job in done:
            outcomes[job.place] = self._outcome(serving, job, logged, ended - calls[job.place].received)
        return [
            outcome if outcome is not None else _unavailable("the request was lost") for outcome in outcomes
        ]

    def mirror(self) -> None:
        """Give the shadow, if there is one, copies of what was answered last. To be called when the answers are out."""
        answered, self._answered = self._answered, None
        if self.shadow is None:
            return
        self.shadow.answering = False
        if answered is None:
            return
        serving, jobs, calls = answered
        if serving is not self._mirrored:
            self.shadow.cast(serving.cast(self.table))
            self._mirrored = serving
        plan = serving.plan
        if plan.shadow is None:
            return
        for job in jobs:
            if job.probe or job.pinned:
                continue
            if arm_of(job.unit, serving.shadow_salt, plan.shadow_ppm) is Arm.CHALLENGER:
                self.shadow.offer(_copy(plan, job, len(calls[job.place].body)))

    def keep_shadowed(self) -> None:
        """Log what the shadow has finished."""
        frames = [] if self.shadow is None else self.shadow.take()
        if frames and not self.log.write(frames):
            self.log.drop(len(frames))

    # --- one request --------------------------------------------------------------------------------------------------

    def _prepare(self, serving: Serving, place: int, call: Call, frames: list[bytes]) -> _Job | HoldfastError:
        began = thread_time()
        plan, endpoint = serving.plan, serving.endpoint
        try:
            if call.pinned is not None:
                if call.pinned not in serving.versions:
                    return NotFoundError("HF303", f"version {call.pinned[:64]!r} is not loaded here")
                endpoint = serving.endpoints[call.pinned]
            request = decode_request(call.body, call.header_length, endpoint.specs)
            if request.rows:
                rows, moments = endpoint.admit(request, self.counters.violations)
                received_rows = endpoint.received(request)
            else:  # a probe that leaves the rows to us
                rows, received_rows, moments = empty_rows(1), [()], [0]
        except RequestError as error:
            self.counters.violations.update(error.uncounted)
            self._refused(serving, call, "malformed" if error.code == "HF508" else "contract", frames)
            return error
        except UnavailableError as error:
            self._refused(serving, call, "unavailable", frames)
            return error
        prediction = "" if request.probe else self.log.next_id(len(rows))
        unit_text = request.unit or request.id or prediction
        unit = blake2b(unit_text.encode(), digest_size=8).digest()
        version, rollout = plan.champion, None
        if call.pinned is not None:
            version = call.pinned
        elif request.probe:
            version = serving.intended
        elif plan.challenger is not None:
            rollout = plan.rollout_id
            if arm_of(unit, serving.salt, plan.share_ppm) is Arm.CHALLENGER:
                version = plan.challenger
        seconds = thread_time() - began
        return _Job(
            place, request, endpoint, rows, received_rows, moments, unit, prediction, version, request.probe, rollout,
            seconds, call.pinned is not None,
        )  # fmt: skip

    def _refused(self, serving: Serving, call: Call, result: str, frames: list[bytes]) -> None:
        version = call.pinned or serving.plan.champion
        arm = serving.arm(version)
        now_us = self.clock_us()
        seconds = perf_counter() - call.received
        self.counters.count(version, arm, result, 0, seconds)
        frames.append(
            frame(
                PredictionRecord(
                    self.log.next_id(0),
                    now_us,
                    now_us,
                    b"",
                    arm,
                    version,
                    "",
                    None,
                    result,
                    int(seconds * 1e6),
                    [],
                    [],
                )
            )
        )

    # --- a batch of one version ---------------------------------------------------------------------------------------

    def _run(self, serving: Serving, version: str, jobs: list[_Job]) -> None:
        """Answer `jobs`, and charge each the part of the batch's time that its rows are of all rows.

        The arm with the smaller share of the traffic has the smaller batches. Charged the whole batch, its requests would
        look faster than those of the other arm; so they look slower by their greater part in the fixed cost of a call,
        some ten microseconds, which no bound on latency is near.

        It is this thread's own processor time. Waiting for a processor that somebody else has takes milliseconds, whatever
        the batch: shared by many rows it is below the bound, charged to one row it is above, and the arm with the smaller
        batches would look slow on every busy machine.
        """
        began = thread_time()
        failure = self._try(serving, version, jobs)
        per_row = (thread_time() - began) / sum(len(job.rows) for job in jobs)
        for job in jobs:
            job.seconds += per_row * len(job.rows)
        if failure:
            # One request may have spoilt it for the others: each alone, and then each by whoever stands in.
            for job in jobs:
                began = thread_time()
                self._run_alone(serving, version, job)
                job.seconds += thread_time() - began

    def _run_alone(self, serving: Serving, version: str, job: _Job) -> None:
        candidates = [version] if job.pinned else [version, *serving.stand_ins(version)]
        for candidate in candidates:
            failure = self._try(serving, candidate, [job])
            if not failure:
                return
            if candidate == serving.plan.challenger:
                job.challenger_failed = failure
                self.counters.challenger_failures[candidate, failure] += 1
            elif candidate == serving.plan.champion:
                job.champion_failed = failure

    def _try(self, serving: Serving, name: str, jobs: list[_Job]) -> str:
        """Let version `name` answer `jobs`; the kind of failure, or an empty text."""
        version = serving.versions[name]
        try:
            rows, moments = _gathered(serving.endpoints[name], jobs)
        except RequestError:
            return "contract"
        try:
            version.fill_aggregates(rows, moments, self.table)
            found = version.run(rows)
        except Exception:  # whatever it is, a request must be answered; the kind is counted and logged
            return "exception"
        if kind := unfit(found, len(rows)):
            return kind
        begin = 0
        for job in jobs:
            end = begin + len(job.rows)
            job.probabilities = found[begin:end]
            job.answered = version.name
            begin = end
        return ""

    # --- what is written and given out --------------------------------------------------------------------------------

    def _frame(self, serving: Serving, job: _Job, now_us: int) -> bytes:
        answered = job.probabilities is not None
        version = _charged(serving, job)
        received, own = job.received_rows, serving.endpoints[version]
        if own is not job.endpoint and job.request.rows:
            # The log holds rows in the order and the units of the contract that answered.
            received = own.received(_as_told_to(own, job))
        record = PredictionRecord(
            job.id,
            now_us,
            job.moments[0],
            job.unit,
            serving.arm(version),
            version,
            job.challenger_failed,
            job.rollout,
            _result(job),
            int(job.seconds * 1e6),
            job.probabilities.tolist() if job.probabilities is not None else [],
            received if answered else [],  # type: ignore[arg-type]  # tuples are written as lists are
        )
        try:
            return frame(record)
        except OverflowError:  # an integer beyond 64 bits in a Number column
            inputs = [[float(value) if type(value) is int else value for value in row] for row in received]
            return frame(_with_inputs(record, inputs))

    def _outcome(self, serving: Serving, job: _Job, logged: bool, seconds: float) -> Outcome:
        version = _charged(serving, job)
        arm = serving.arm(version)
        if job.probe:
            self.counters.probes += 1
        else:
            self.counters.count(version, arm, _result(job), len(job.rows) if job.answered else 0, seconds)
        if job.probabilities is None:
            return _unavailable("no version could answer")
        prediction = None if job.probe or not logged else job.id
        plan = serving.plan.plan_id if job.probe else None
        answer = InferAnswer(self.model, version, job.request.id, prediction, arm, plan, job.probabilities)
        return answer, job.request.binary_output


def _copy(plan: TrafficPlan, job: _Job, size_bytes: int) -> Copy:
    return Copy(
        job.id,
        job.unit,
        plan.rollout_id,
        size_bytes,
        lambda endpoint: _gathered(endpoint, [job]),
        job.answered or plan.champion,
        job.champion_failed or _result(job),
        int(job.seconds * 1e6),
        [] if job.probabilities is None else job.probabilities.tolist(),
    )


def _gathered(endpoint: Endpoint, jobs: list[_Job]) -> tuple[list[Row], list[int]]:
    """The rows of `jobs` and their moments; raises `RequestError` when one breaks the contract of `endpoint`.

    A job was checked by one contract already; by another it is checked again, without the columns that it does not know.
    """
    if len(jobs) == 1 and jobs[0].endpoint is endpoint:
        return jobs[0].rows, jobs[0].moments
    rows: list[Row] = []
    moments: list[int] = []
    for job in jobs:
        own, at = (job.rows, job.moments) if job.endpoint is endpoint else _checked_by(endpoint, job)
        rows += own
        moments += at
    return rows, moments


def _checked_by(endpoint: Endpoint, job: _Job) -> tuple[list[Row], list[int]]:
    if not job.request.rows:  # a probe that leaves the rows to us
        return job.rows, job.moments
    return endpoint.admit(_as_told_to(endpoint, job), Counter())


def _as_told_to(endpoint: Endpoint, job: _Job) -> InferRequest:
    """The request for another contract than it was made for: what it left unsaid was said by that contract."""
    known = {name: values for name, values in job.request.columns.items() if name in endpoint.specs}
    facts = endpoint.unlike(job.endpoint) | (job.request.facts or {})
    return replace(job.request, columns=known, facts=facts or None)


def _charged(serving: Serving, job: _Job) -> str:
    """Whose the request was in the end: who answered, or when nobody could, who was named, else the champion."""
    return job.answered or (job.version if job.pinned else serving.plan.champion)


def _result(job: _Job) -> str:
    if job.probabilities is None:
        return "unavailable"
    return "champion_failed" if job.champion_failed else "ok"


def _with_inputs(record: PredictionRecord, inputs: list[list[Any]]) -> PredictionRecord:
    values = {name: getattr(record, name) for name in record.__struct_fields__}
    return PredictionRecord(**{**values, "inputs": inputs})


def _unavailable(why: str) -> UnavailableError:
    return UnavailableError("HF503", why)
