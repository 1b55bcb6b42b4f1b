"""The data plane: from decoded requests to responses, without any transport.

A request is checked against the contract, its aggregates are filled, and its arm is drawn by hash. A version
predicts, the prediction is logged, and only then the response is returned. Requests that arrive together run as one
batch per version. When a version fails, another answers: the champion for the challenger; the previous version and
then the heuristic for the champion.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from time import perf_counter, thread_time
from typing import Any, Final, TypeAlias

import msgspec

from holdfast.errors import HoldfastError, NotFoundError, UnavailableError
from holdfast.features import OnlineTable
from holdfast.feedback import LabelRules
from holdfast.feedback.probe_token import probe_token
from holdfast.records import DAY_US, Arm, TrafficPlan
from holdfast.rollout.model.assignment import arm_of
from holdfast.serve.inference.active_plan import ActivePlan
from holdfast.serve.inference.batch_run import Runner
from holdfast.serve.inference.job import (
    Job,
    check_new_columns,
    has_valid_new_columns,
    piece_of,
    request_for,
    rows_for,
    without_foreign_columns,
)
from holdfast.serve.inference.loaded_model import empty_rows
from holdfast.serve.inference.metrics import Counters
from holdfast.serve.inference.request_errors import RequestErrors
from holdfast.serve.inference.request_schema import BrokenRows, RequestSchema, Row
from holdfast.serve.inference.shadow import ShadowCopy, ShadowThread
from holdfast.serve.protocol.bearer_token import bears_token
from holdfast.serve.protocol.large_body import decode_in_steps
from holdfast.serve.protocol.oip import InferRequest, InferResponse, RequestError, decode_request
from holdfast.store.serving.log_writer import LogWriter, is_place
from holdfast.store.serving.prediction_log import PredictionRecord, ShadowRecord, frame

_OWN_FAULT: Final = (
    "the server failed on this request, by a defect of its own; the operator's log has the kind"
)
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
    authorization: bytes = b""
    """Its header of this name. A probe with rows needs the token of probes there."""


PIECE_ROWS: Final = 250
"""So many rows of a large request are checked or predicted in one step: about a millisecond."""

Outcome: TypeAlias = tuple[InferResponse, bool] | HoldfastError
"""A response and whether it is requested in binary; or the error."""


@dataclass(slots=True)
class LargeRequest:
    """A large request under way. `seconds` is the processor time of its steps."""

    steps: Generator[None, None, Outcome] = field(init=False)
    seconds: float = 0.0

    def advance(self) -> Outcome | None:
        """Do one step; return the outcome after the last."""
        began = thread_time()
        try:
            next(self.steps)
        except StopIteration as ended:
            outcome: Outcome = ended.value
            return outcome
        finally:
            self.seconds += thread_time() - began
        return None


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
    errors: RequestErrors = field(init=False)
    label_rules: LabelRules = field(default_factory=LabelRules)
    """What decides over labels; replaced as a whole by `use_label_rules`."""
    _runner: Runner = field(init=False)
    shadow: ShadowThread | None = None
    """The shadow's thread; None if the server has none."""
    _last_batch: tuple[ActivePlan, list[Job], Sequence[InferenceCall]] | None = None
    _mirrored: ActivePlan | None = None

    def __post_init__(self) -> None:
        self.errors = RequestErrors(self.clock_us)
        self._runner = Runner(self.table, self.counters, self.errors)

    def infer(self, calls: Sequence[InferenceCall]) -> list[Outcome]:
        """Return one outcome for each call, in order. Nothing that a client sends makes this raise, or fails another call."""
        active = self.active
        if active is None:
            return [_unavailable("no version is loaded yet") for _ in calls]
        if self.shadow is not None:
            self.shadow.is_path_busy = True  # until `mirror`
        outcomes: list[Outcome | None] = [None] * len(calls)
        frames: list[bytes] = []
        jobs: dict[str, list[Job]] = {}
        for index, call in enumerate(calls):
            job = self._prepare(active, index, call, frames)
            if isinstance(job, Job):
                jobs.setdefault(job.version, []).append(job)
            else:
                outcomes[index] = job
        done: list[Job] = []
        # The champion first: a slow challenger must not be seen in the latency of the champion's requests.
        for version in sorted(jobs, key=lambda name: name != active.plan.champion):
            self._runner.run(active, version, jobs[version])
            done += jobs[version]
        now_us = self.clock_us()
        logged_at = perf_counter()
        for job in done:
            self._add_frame(active, job, now_us, logged_at - calls[job.index].received, frames)
        logged = self._write(frames)
        self._last_batch = (active, done, calls)
        ended = perf_counter()
        for job in done:
            outcomes[job.index] = self._outcome(active, job, logged, ended - calls[job.index].received)
        return [
            outcome if outcome is not None else _unavailable("the request was lost") for outcome in outcomes
        ]

    def use_label_rules(self, rules: LabelRules) -> None:
        """Decide over labels by `rules` from now on, and tag prediction ids by their key if they have one."""
        self.label_rules = rules
        if rules.key is not None:
            self.log.tag_with(rules.key)

    def start_large(self, call: InferenceCall) -> LargeRequest:
        """Return a large call as work in steps, each a few milliseconds at most. Nothing that it holds makes a step raise."""
        work = LargeRequest()
        work.steps = self._infer_large(call, work)
        return work

    def _infer_large(self, call: InferenceCall, work: LargeRequest) -> Generator[None, None, Outcome]:
        while True:
            active = self.active
            if active is None:
                return _unavailable("no version is loaded yet")
            try:
                job, pieces = yield from self._prepare_large(active, call)
                yield from self._runner.run_pieces(active, job, pieces)
            except Exception as error:
                if self.active is not active:
                    continue
                frames: list[bytes] = []
                refused = self._refuse(active, call, error, frames)
                self._write(frames)
                return refused
            # After a switch nothing may be answered under the plan before it: a rollback is confirmed at once.
            if self.active is active:
                return self._finish_large(active, call, job, work.seconds)

    def _finish_large(self, active: ActivePlan, call: InferenceCall, job: Job, seconds: float) -> Outcome:
        job.seconds = seconds
        frames: list[bytes] = []
        self._add_frame(active, job, self.clock_us(), perf_counter() - call.received, frames)
        if not job.probe and not is_place(job.id):
            # It began while there was no log. A segment may have begun since, but the id has no place in it.
            job.id = ""
            self.log.drop(len(frames))
            frames = []
            self.log.write(frames)  # begins a segment once there is room
        logged = self._write(frames)
        self._last_batch = (active, [job], [call])
        return self._outcome(active, job, logged, perf_counter() - call.received)

    def _prepare_large(
        self, active: ActivePlan, call: InferenceCall
    ) -> Generator[None, None, tuple[Job, list[Job]]]:
        """As `_prepare`, in steps: return the job, and the pieces in which it runs. Raises what refuses the call."""
        schema = _schema_for(active, call)
        specs = active.specs[_checked_as(active, call)]
        request = yield from decode_in_steps(call.body, call.header_length, specs)
        broken = BrokenRows()
        parts: list[tuple[InferRequest, list[Row], list[int], list[tuple[Any, ...]]]] = []
        for begin in range(0, request.rows, PIECE_ROWS):
            yield
            part = piece_of(request, begin, begin + PIECE_ROWS)
            parts.append((part, *self._check(active, call, schema, part, begin, broken)))
        if broken.count:
            raise broken.error()
        self._refuse_foreign_probe(request, call)
        if not request.rows:  # a probe that leaves the rows to us
            parts.append((request, empty_rows(1), [0], [()]))
        rows = [row for part in parts for row in part[1]]
        event_times = [at for part in parts for at in part[2]]
        received_rows = [row for part in parts for row in part[3]]
        job = self._job(active, 0, call, request, schema, (rows, event_times, received_rows))
        pieces = [
            replace(job, request=part[0], rows=part[1], event_times=part[2], received_rows=part[3])
            for part in parts
        ]
        return job, pieces

    def _write(self, frames: list[bytes]) -> bool:
        """Hand records to the log; return False, and count them as dropped, if it does not take them."""
        logged = self.log.write(frames) if frames else True
        if not logged:
            self.log.drop(len(frames))
        return logged

    def mirror(self) -> None:
        """Copy the last batch to the shadow, if there is one. To be called when the responses are out."""
        try:
            self._mirror()
        except Exception as error:
            self.errors.count("copy", error)

    def _mirror(self) -> None:
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
            if job.probe or job.pinned or not job.id:
                continue
            try:
                drawn = arm_of(job.unit, active.shadow_salt, plan.shadow_ppm) is Arm.CHALLENGER
                # A value that a caller got wrong in a column that only the shadow reads is no evidence against the shadow.
                if drawn and has_valid_new_columns(active.schemas[plan.shadow], job):
                    self.shadow.offer(_shadow_copy(plan, plan.shadow, job, len(calls[job.index].body)))
            except Exception as error:
                self.errors.count("copy", error)

    def log_shadow_records(self) -> None:
        """Log the results that the shadow has finished."""
        self._write([] if self.shadow is None else self.shadow.take())

    # --- one request --------------------------------------------------------------------------------------------------

    def _refuse_foreign_probe(self, request: InferRequest, call: InferenceCall) -> None:
        """Raise `RequestError` HF510 for a probe with rows of a caller: its predictions would be in no log."""
        if not (request.probe and request.rows):
            return
        if not bears_token(call.authorization, probe_token(self.label_rules.secret).encode()):
            raise RequestError(
                "HF510",
                "a probe with rows is not logged, so only the control loop may send one; without inputs every caller may",
            )

    def _prepare(
        self, active: ActivePlan, index: int, call: InferenceCall, frames: list[bytes]
    ) -> Job | HoldfastError:
        began = thread_time()
        try:
            schema = _schema_for(active, call)
            request = decode_request(call.body, call.header_length, active.specs[_checked_as(active, call)])
            self._refuse_foreign_probe(request, call)
            if request.rows:
                rows, event_times, received_rows = self._check(active, call, schema, request)
            else:  # a probe that leaves the rows to us
                rows, received_rows, event_times = empty_rows(1), [()], [0]
            job = self._job(active, index, call, request, schema, (rows, event_times, received_rows))
        except Exception as error:
            return self._refuse(active, call, error, frames)
        job.seconds = thread_time() - began
        return job

    def _job(
        self,
        active: ActivePlan,
        index: int,
        call: InferenceCall,
        request: InferRequest,
        schema: RequestSchema,
        checked: tuple[list[Row], list[int], list[tuple[Any, ...]]],
    ) -> Job:
        """Return a checked request as a job with its id and its arm. `checked` is as `_check` returns it."""
        rows, event_times, received_rows = checked
        gives_id = self.log.gives_ids
        prediction = "" if request.probe else self.log.next_id(len(rows))
        unit, version, rollout = _draw(active, call, request, prediction)
        return Job(
            index, request, schema, rows, received_rows, event_times, unit, prediction, version, request.probe, rollout, 0.0,
            call.pinned is not None, gives_id=gives_id,
        )  # fmt: skip

    def _check(
        self,
        active: ActivePlan,
        call: InferenceCall,
        schema: RequestSchema,
        request: InferRequest,
        first_row: int = 0,
        broken: BrokenRows | None = None,
    ) -> tuple[list[Row], list[int], list[tuple[Any, ...]]]:
        """Return the rows of a request, their event times, and the rows as received; raise when one breaks a contract."""
        violations = self.counters.violations
        own = (
            request
            if request.columns.keys() <= schema.specs.keys()
            else without_foreign_columns(schema, request)
        )
        rows, event_times = schema.accept(own, violations, first_row=first_row, broken=broken)
        received_rows = schema.received_rows(request)
        challenger = active.plan.challenger
        if own is not request and call.pinned is None and challenger is not None:
            # Both arms are checked, so that the draw does not decide over the refusal.
            check_new_columns(active.schemas[challenger], schema, request, violations, first_row)
        return rows, event_times, received_rows

    def _refuse(
        self, active: ActivePlan, call: InferenceCall, error: Exception, frames: list[bytes]
    ) -> HoldfastError:
        """Return the response of a call that is refused, or that failed; count it and add its record to `frames`."""
        refused: HoldfastError
        match error:
            case NotFoundError():
                return error  # it named a version that is not here, so no version is charged
            case RequestError():
                self.counters.violations.update(error.uncounted)
                result, rules, refused = (
                    "malformed" if error.code == "HF508" else "contract",
                    error.rules,
                    error,
                )
            case UnavailableError():
                result, rules, refused = "unavailable", [], error
            case _:
                self.errors.count("prepare", error)
                result, rules, refused = "unavailable", [], _unavailable(_OWN_FAULT)
        try:
            self._reject(active, call, result, frames, rules)
        except Exception as failed:
            self.errors.count("log", failed)
        return refused

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

    # --- what is logged and returned ------------------------------------------------------------------------------------

    def _add_frame(
        self, active: ActivePlan, job: Job, now_us: int, seconds: float, frames: list[bytes]
    ) -> None:
        """Add the record of a job; a job whose record cannot be made is answered without an id."""
        if job.probe:
            return
        try:
            frames.append(self._frame(active, job, now_us, seconds))
        except Exception as error:
            job.id = ""
            self.log.drop(1)
            self.errors.count("log", error)

    def _frame(self, active: ActivePlan, job: Job, now_us: int, seconds: float) -> bytes:
        version = _charged(active, job)
        received, own = job.received_rows, active.schemas[version]
        if own is not job.schema and job.request.rows:
            # The log holds rows in the order and the units of the contract that answered.
            received = own.received_rows(request_for(own, job.request, job.schema))
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
            share_ppm=None if job.rollout is None else active.plan.share_ppm,
        )
        try:
            return frame(record)
        except OverflowError:  # an integer beyond 64 bits in a Number column
            inputs = [[float(value) if type(value) is int else value for value in row] for row in received]
            return frame(msgspec.structs.replace(record, inputs=inputs))

    def _outcome(self, active: ActivePlan, job: Job, logged: bool, seconds: float) -> Outcome:
        version = _charged(active, job)
        arm = active.arm(version)
        try:
            self._count(active, job, version, arm, seconds)
        except Exception as error:
            self.errors.count("count", error)
        if job.probabilities is None:
            return _unavailable("no version could answer")
        prediction = job.id or None if logged and job.gives_id else None
        plan = active.plan.plan_id if job.probe else None
        response = InferResponse(
            self.model, version, job.request.id, prediction, arm, plan, job.probabilities
        )
        return response, job.request.binary_output

    def _count(self, active: ActivePlan, job: Job, version: str, arm: Arm, seconds: float) -> None:
        if job.probe:
            self.counters.probes += 1
            return
        self.counters.distant_events += abs(job.event_times[0] - self.clock_us()) > DAY_US
        self.counters.count(version, arm, _result(job), len(job.rows) if job.served_by else 0, seconds)
        if job.served_by:
            self._count_unseen_words(active, job)

    def _count_unseen_words(self, active: ActivePlan, job: Job) -> None:
        """Count the rows with a word that the version has no code for (R25). Whole columns are compared: most have none."""
        for column, known in active.versions[job.served_by].not_unseen:
            values = job.request.columns.get(column)
            if values is not None and not known.issuperset(values):
                unseen = sum(value not in known for value in values)
                self.counters.unseen_words[job.served_by, column] += unseen


def _shadow_copy(plan: TrafficPlan, version: str, job: Job, size_bytes: int) -> ShadowCopy:
    champion, result = job.served_by or plan.champion, job.champion_failed or _result(job)
    latency_us = int(job.seconds * 1e6)
    pair = ShadowRecord(
        job.id, 0, job.unit, plan.rollout_id, version, "", 0, None, [], champion, result, latency_us, job.predictions
    )  # fmt: skip
    return ShadowCopy(pair, size_bytes, lambda schema: rows_for(schema, [job]))


def _checked_as(active: ActivePlan, call: InferenceCall) -> str:
    """Return the version whose contract checks the call: the one that it names, else the champion."""
    return call.pinned or active.plan.champion


def _schema_for(active: ActivePlan, call: InferenceCall) -> RequestSchema:
    if call.pinned is None:
        return active.schema
    if call.pinned not in active.versions:
        raise NotFoundError("HF303", f"version {call.pinned[:64]!r} is not loaded here")
    return active.schemas[call.pinned]


def _draw(
    active: ActivePlan, call: InferenceCall, request: InferRequest, prediction: str
) -> tuple[bytes, str, int | None]:
    """Return the hash of the unit, the version that the request is routed to, and the rollout that it is evidence of."""
    plan = active.plan
    unit = blake2b((request.unit or request.id or prediction).encode(), digest_size=8).digest()
    if call.pinned is not None:
        return unit, call.pinned, None
    if request.probe:
        return unit, active.intended, None
    if plan.challenger is None:
        return unit, plan.champion, None
    moved = arm_of(unit, active.salt, plan.share_ppm) is Arm.CHALLENGER
    return unit, plan.challenger if moved else plan.champion, plan.rollout_id


def _charged(active: ActivePlan, job: Job) -> str:
    """Return the version that is charged: the one that answered, else the one that was named, else the champion."""
    return job.served_by or (job.version if job.pinned else active.plan.champion)


def _result(job: Job) -> str:
    if job.probabilities is None:
        return "unavailable"
    return "champion_failed" if job.champion_failed else "ok"


def _unavailable(why: str) -> UnavailableError:
    return UnavailableError("HF503", why)
