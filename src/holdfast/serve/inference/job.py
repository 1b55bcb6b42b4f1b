"""One request on its way through the data plane, and its rows as the contract of each version reads them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

from holdfast.contract.row.aliases import map_columns
from holdfast.errors import UnavailableError
from holdfast.serve.inference.loaded_model import Probabilities
from holdfast.serve.inference.request_schema import RequestSchema, Row
from holdfast.serve.protocol.oip import InferRequest, RequestError


@dataclass(slots=True)
class Job:
    """A checked request: its rows, the version that it is routed to, and what came of it.

    `seconds` is the processor time it is charged for. `id` is empty for a probe, and when it has no record in the log.
    """

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
    gives_id: bool = True
    """Whether the caller may get the id: decided with its tag, because the key of tags can come in between."""

    @property
    def predictions(self) -> list[float]:
        """Return the probabilities of its rows; empty if no version could answer."""
        return [] if self.probabilities is None else self.probabilities.tolist()


def rows_for(schema: RequestSchema, jobs: list[Job]) -> tuple[list[Row], list[int]]:
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


def _checked_by(schema: RequestSchema, job: Job) -> tuple[list[Row], list[int]]:
    if not job.request.rows:  # a probe that leaves the rows to us
        return job.rows, job.event_times
    return schema.accept(request_for(schema, job.request, job.schema), Counter())


def without_foreign_columns(schema: RequestSchema, request: InferRequest) -> InferRequest:
    """Return the request without the inputs that only another version has."""
    columns = {name: values for name, values in request.columns.items() if name in schema.specs}
    return replace(request, columns=columns)


def check_new_columns(
    new: RequestSchema,
    known: RequestSchema,
    request: InferRequest,
    violations: Counter[str],
    first_row: int = 0,
) -> None:
    """Check the columns of the request that the schema `new` has and `known` does not.

    A bad value in one is the caller's fault, as in any other column. Found only when the version of `new` predicts, it
    would count as a failure of that version.
    """
    added = request.columns.keys() & (new.specs.keys() - known.specs.keys())
    if added:
        new.check_columns(request_for(new, request, known), added, violations, first_row=first_row)


def has_valid_new_columns(schema: RequestSchema, job: Job) -> bool:
    """Return True if the columns that only `schema` has are valid in the job's request."""
    try:
        check_new_columns(schema, job.schema, job.request, Counter())
    except (RequestError, UnavailableError):
        return False
    return True


def request_for(schema: RequestSchema, request: InferRequest, made_for: RequestSchema) -> InferRequest:
    """Return the request for another contract.

    Units that it does not state, and aliases, are those of the contract that it was made for.
    """
    facts = schema.differing_facts(made_for) | (request.facts or {})
    own = without_foreign_columns(schema, request)
    aliases = schema.differing_aliases(made_for)
    columns = map_columns(own.columns, aliases) if aliases else own.columns
    return replace(own, columns=columns, facts=facts or None)


def piece_of(request: InferRequest, begin: int, end: int) -> InferRequest:
    """Return the rows of a request from `begin` up to `end`."""
    columns = {name: values[begin:end] for name, values in request.columns.items()}
    return replace(request, rows=min(end, request.rows) - begin, columns=columns)
