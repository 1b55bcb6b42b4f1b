"""Run a version on requests: those of one batch together, a large request piece by piece, and fallbacks for what fails."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from time import thread_time

import numpy as np

from holdfast.errors import UnavailableError
from holdfast.features import OnlineTable
from holdfast.serve.inference.active_plan import ActivePlan
from holdfast.serve.inference.job import Job, rows_for
from holdfast.serve.inference.loaded_model import invalid_reason
from holdfast.serve.inference.metrics import Counters
from holdfast.serve.inference.request_errors import RequestErrors
from holdfast.serve.protocol.oip import RequestError


class Runner:
    """Gives each job its probabilities and the version that they come from, or neither.

    Parameters
    ----------
    table
        The aggregates.
    counters
        Counts the failures of challengers.
    errors
        Logs what versions raise.
    """

    def __init__(self, table: OnlineTable, counters: Counters, errors: RequestErrors) -> None:
        self._table = table
        self._counters = counters
        self._errors = errors

    def run(self, active: ActivePlan, version: str, jobs: list[Job]) -> None:
        """Predict `jobs`, and charge each its rows' share of the batch's time.

        The arm with the smaller share of the traffic has the smaller batches. Charged for the whole batch, its
        requests would look faster than those of the other arm. So they look slower, by their greater part of a call's
        fixed cost: some ten microseconds, far below any bound on latency.

        It is this thread's own processor time. Waiting for a busy processor takes milliseconds, whatever the batch.
        Shared by many rows that is below the bound, charged to one row it is above: the arm with the smaller batches
        would look slow on a busy machine.
        """
        if self._try_timed(active, version, jobs):
            self._run_parts(active, version, jobs)

    def _run_parts(self, active: ActivePlan, version: str, jobs: list[Job]) -> None:
        """Run a batch that failed in halves, so that few bad requests cost few runs more; each bad one alone at the end."""
        if len(jobs) > 1:
            middle = len(jobs) // 2
            halves = jobs[:middle], jobs[middle:]
            failures = [self._try_timed(active, version, half) for half in halves]
            if not all(failures):
                for half, failure in zip(halves, failures, strict=True):
                    if failure:
                        self._run_parts(active, version, half)
                return
        for job in jobs:  # both halves failed: so does the version, most likely
            began = thread_time()
            self._run_alone(active, version, job)
            job.seconds += thread_time() - began

    def _try_timed(self, active: ActivePlan, version: str, jobs: list[Job]) -> str:
        """As `_try`; charge each job its rows' share of the time."""
        began = thread_time()
        failure = self._try(active, version, jobs)
        per_row = (thread_time() - began) / sum(len(job.rows) for job in jobs)
        for job in jobs:
            job.seconds += per_row * len(job.rows)
        return failure

    def _run_alone(self, active: ActivePlan, version: str, job: Job) -> None:
        for candidate in self._candidates(active, version, job):
            failure = self._try(active, candidate, [job])
            if not failure:
                return
            self._blame(active, candidate, failure, job)

    @staticmethod
    def _candidates(active: ActivePlan, version: str, job: Job) -> list[str]:
        return [version] if job.pinned else [version, *active.fallbacks(version)]

    def _blame(self, active: ActivePlan, candidate: str, failure: str, job: Job) -> None:
        if candidate == active.plan.challenger:
            job.challenger_failed = failure
            self._counters.challenger_failures[candidate, failure] += 1
        elif candidate == active.plan.champion:
            job.champion_failed = failure

    def _try(self, active: ActivePlan, name: str, jobs: list[Job]) -> str:
        """Predict `jobs` with version `name`; return the kind of failure, or an empty text."""
        version = active.versions[name]
        try:
            rows, event_times = rows_for(active.schemas[name], jobs)
        except (RequestError, UnavailableError):
            # One request must not be the fate of the batch: not even with a unit whose definition is not read yet.
            return "contract"
        except Exception as error:
            self._errors.log("predict", error)
            return "exception"
        try:
            version.fill_aggregates(rows, event_times, self._table)
            found = version.run(rows)
            kind = invalid_reason(found, len(rows))
        except (
            Exception
        ) as error:  # whatever it is, a request must be answered; the kind is counted and logged
            self._errors.log("predict", error)
            return "exception"
        if kind:
            return kind
        begin = 0
        for job in jobs:
            end = begin + len(job.rows)
            job.probabilities = found[begin:end]
            job.served_by = version.name
            begin = end
        return ""

    def run_pieces(self, active: ActivePlan, job: Job, pieces: Sequence[Job]) -> Generator[None, None, None]:
        """Predict a large job in its pieces, a step for each; all of them by one version."""
        for candidate in self._candidates(active, job.version, job):
            failure = ""
            for piece in pieces:
                yield
                if failure := self._try(active, candidate, [piece]):
                    break
            if not failure:
                job.served_by = candidate
                found = [piece.probabilities for piece in pieces if piece.probabilities is not None]
                job.probabilities = np.concatenate(found)
                return
            self._blame(active, candidate, failure, job)
