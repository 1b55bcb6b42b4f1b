"""Operations on tables as OpenLineage run events, so that an existing catalog can show them.

Each operation is a run of a job: a load, a snapshot, a training, a back-out. A load that was refused or failed
and a training that failed are runs that failed. Its run id
is derived from its content, so sending it twice reports the same run. By the specification 2-0-2 of OpenLineage
(https://openlineage.io/spec/2-0-2/OpenLineage.json) and its facets. The schemas of the custom facets, which begin with
`holdfast_`, are in docs/reference/openlineage-facets.json.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal, TypeAlias, assert_never

PRODUCER: Final = "urn:holdfast"
NAMESPACE: Final = "holdfast"
"""The namespace of jobs and datasets unless the settings name another."""

_SPEC: Final = "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunEvent"
_FACETS: Final = "https://openlineage.io/spec/facets"
_SCHEMAS: Final = {
    "schema": f"{_FACETS}/1-2-0/SchemaDatasetFacet.json#/$defs/SchemaDatasetFacet",
    "dataSource": f"{_FACETS}/1-0-1/DatasourceDatasetFacet.json#/$defs/DatasourceDatasetFacet",
    "version": f"{_FACETS}/1-0-1/DatasetVersionDatasetFacet.json#/$defs/DatasetVersionDatasetFacet",
    "lifecycleStateChange": (
        f"{_FACETS}/1-0-1/LifecycleStateChangeDatasetFacet.json#/$defs/LifecycleStateChangeDatasetFacet"
    ),
    "dataQualityMetrics": (
        f"{_FACETS}/1-0-3/DataQualityMetricsInputDatasetFacet.json#/$defs/DataQualityMetricsInputDatasetFacet"
    ),
    "outputStatistics": (
        f"{_FACETS}/1-0-2/OutputStatisticsOutputDatasetFacet.json#/$defs/OutputStatisticsOutputDatasetFacet"
    ),
    "jobType": f"{_FACETS}/2-0-4/JobTypeJobFacet.json#/$defs/JobTypeJobFacet",
    "errorMessage": f"{_FACETS}/1-0-1/ErrorMessageRunFacet.json#/$defs/ErrorMessageRunFacet",
}
_RUNS: Final = uuid.uuid5(uuid.NAMESPACE_URL, PRODUCER)

Json: TypeAlias = dict[str, Any]


@dataclass(frozen=True, slots=True)
class TableRows:
    """A table at a table version, and the number of rows that the operation read or wrote."""

    table: str
    table_version: int
    rows: int
    files: int


@dataclass(frozen=True, slots=True)
class LoadFacts:
    """A load. `fields` are the columns of its contract, name and type; empty if the contract is not kept."""

    at_us: int
    feed: str
    batch: str
    epoch: int
    source: str
    digest: str
    contract_hash: str
    rows_quarantined: int
    wrote: TableRows
    fields: tuple[tuple[str, str], ...]
    begun_us: int | None = None


@dataclass(frozen=True, slots=True)
class FailedLoadFacts:
    """A load that was refused or failed, or whose process was killed, and why. `source` is empty if it is not known."""

    at_us: int
    feed: str
    batch: str
    reason: str
    outcome: Literal["refused", "failed", "interrupted"] = "refused"
    source: str = ""
    begun_us: int | None = None


@dataclass(frozen=True, slots=True)
class SnapshotFacts:
    """A snapshot, and its rows of each table."""

    at_us: int
    snapshot: str
    read: tuple[TableRows, ...]
    tainted: bool
    begun_us: int | None = None


@dataclass(frozen=True, slots=True)
class TrainFacts:
    """A trained version."""

    at_us: int
    model: str
    version: str
    snapshot: str
    learner: str
    role: str
    digest: str
    tainted: bool
    begun_us: int | None = None


@dataclass(frozen=True, slots=True)
class FailedTrainingFacts:
    """A training that failed, and why."""

    at_us: int
    model: str
    snapshot: str
    reason: str
    begun_us: int | None = None


@dataclass(frozen=True, slots=True)
class BackoutFacts:
    """A back-out from its request `begun_us` to its last step: the removed loads, and what they tainted."""

    begun_us: int
    at_us: int
    feed: str
    batch: str
    backout_id: int
    reason: str
    actor: str
    removed: tuple[TableRows, ...]
    snapshots: tuple[str, ...]
    versions: tuple[str, ...]


Facts: TypeAlias = (
    LoadFacts | FailedLoadFacts | SnapshotFacts | TrainFacts | FailedTrainingFacts | BackoutFacts
)
"""An operation that ended at `at_us` and began at `begun_us`, microseconds since 1970 UTC; None if that is not known."""


def run_events(facts: Facts, *, namespace: str = NAMESPACE) -> list[Json]:
    """Return the events of one run: its start, and its completion or failure, each with inputs and outputs.

    The same facts give the same events, to the byte. An operation of an earlier release has no begin in the ledger: its
    start is one microsecond before its end, so that a catalog has both in their order. A killed load is an ABORT.
    """
    reason, ending = "", "COMPLETE"
    match facts:
        case LoadFacts():
            job, key = f"load.{facts.feed}", f"{facts.batch}@{facts.epoch}"
            inputs, outputs = _load(facts, namespace)
        case FailedLoadFacts():
            job, key = f"load.{facts.feed}", f"{facts.batch}@{facts.outcome}"
            inputs = [_source(facts.source)] if facts.source else []
            outputs = [_dataset(namespace, facts.feed, {})]
            reason, ending = facts.reason, "ABORT" if facts.outcome == "interrupted" else "FAIL"
        case SnapshotFacts():
            job, key = "snapshot", facts.snapshot
            inputs, outputs = _snapshot(facts, namespace)
        case TrainFacts():
            job, key = f"train.{facts.model}", facts.version
            inputs, outputs = _train(facts, namespace)
        case FailedTrainingFacts():
            job, key = f"train.{facts.model}", f"{facts.snapshot}@failed"
            inputs = [_snapshot_read(facts.snapshot, namespace)]
            outputs = [_dataset(namespace, f"model/{facts.model}", {})]
            reason, ending = facts.reason, "FAIL"
        case BackoutFacts():
            job, key = f"back-out.{facts.feed}", str(facts.backout_id)
            inputs, outputs = _backout(facts, namespace)
        case _:
            assert_never(facts)
    # The time of the last step of a back-out changes while it is under way, so its id has that of the request.
    known_us = facts.begun_us if isinstance(facts, BackoutFacts) else facts.at_us
    run_id = str(uuid.uuid5(_RUNS, f"{namespace}/{job}/{key}/{known_us}"))
    begun_us = min(known_us if facts.begun_us is None else facts.begun_us, facts.at_us - 1)
    kind = _facet("jobType", processingType="BATCH", integration="HOLDFAST", jobType="JOB")
    common: Json = {
        "producer": PRODUCER,
        "schemaURL": _SPEC,
        "job": {"namespace": namespace, "name": job, "facets": {"jobType": kind}},
    }
    failed: Json = {}
    if reason:
        failed["errorMessage"] = _facet("errorMessage", message=reason, programmingLanguage="PYTHON")
    started = {
        "eventType": "START",
        "eventTime": _time(begun_us),
        "run": {"runId": run_id, "facets": {}},
        "inputs": [_named(each) for each in inputs],
        "outputs": [_named(each) for each in outputs],
    }
    ended = {
        "eventType": ending,
        "eventTime": _time(facts.at_us),
        "run": {"runId": run_id, "facets": failed},
        "inputs": inputs,
        "outputs": outputs,
    }
    return [common | started, common | ended]


def _time(at_us: int) -> str:
    seconds, rest = divmod(at_us, 1_000_000)
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest).isoformat(timespec="microseconds")


def _named(dataset: Json) -> Json:
    """Return `dataset` as it is known before the run: its name alone."""
    return {"namespace": dataset["namespace"], "name": dataset["name"], "facets": {}}


def _load(facts: LoadFacts, namespace: str) -> tuple[list[Json], list[Json]]:
    facets = _table_facets(facts.wrote, namespace) | {
        "lifecycleStateChange": _facet("lifecycleStateChange", lifecycleStateChange="ALTER"),
        "holdfast_load": _own_facet(
            "load",
            batch=facts.batch,
            epoch=facts.epoch,
            digest=facts.digest,
            contractHash=facts.contract_hash,
            rowsQuarantined=facts.rows_quarantined,
        ),
    }
    if facts.fields:
        named = [{"name": name, "type": kind} for name, kind in facts.fields]
        facets["schema"] = _facet("schema", fields=named)
    written = _facet("outputStatistics", rowCount=facts.wrote.rows, fileCount=facts.wrote.files)
    return [_source(facts.source)], [
        _dataset(namespace, facts.feed, facets) | {"outputFacets": {"outputStatistics": written}}
    ]


def _snapshot(facts: SnapshotFacts, namespace: str) -> tuple[list[Json], list[Json]]:
    made = _dataset(
        namespace,
        f"snapshot/{facts.snapshot}",
        {
            "version": _facet("version", datasetVersion=facts.snapshot),
            "lifecycleStateChange": _facet("lifecycleStateChange", lifecycleStateChange="CREATE"),
            "holdfast_taint": _own_facet("taint", tainted=facts.tainted),
        },
    )
    rows = sum(each.rows for each in facts.read)
    made["outputFacets"] = {"outputStatistics": _facet("outputStatistics", rowCount=rows)}
    return [_read(each, namespace) for each in facts.read], [made]


def _train(facts: TrainFacts, namespace: str) -> tuple[list[Json], list[Json]]:
    about = _own_facet(
        "version",
        version=facts.version,
        learner=facts.learner,
        role=facts.role,
        digest=facts.digest,
        tainted=facts.tainted,
    )
    made = {
        "version": _facet("version", datasetVersion=facts.version),
        "lifecycleStateChange": _facet("lifecycleStateChange", lifecycleStateChange="CREATE"),
        "holdfast_version": about,
    }
    read = _snapshot_read(facts.snapshot, namespace)
    return [read], [_dataset(namespace, f"model/{facts.model}", made)]


def _snapshot_read(snapshot: str, namespace: str) -> Json:
    version = _facet("version", datasetVersion=snapshot)
    return _dataset(namespace, f"snapshot/{snapshot}", {"version": version})


def _backout(facts: BackoutFacts, namespace: str) -> tuple[list[Json], list[Json]]:
    about = _own_facet(
        "backout",
        batch=f"{facts.feed}/{facts.batch}",
        reason=facts.reason,
        actor=facts.actor,
        snapshotsTainted=list(facts.snapshots),
        versionsTainted=list(facts.versions),
    )
    changed = _facet("lifecycleStateChange", lifecycleStateChange="ALTER")
    return [_read(each, namespace) for each in facts.removed], [
        _dataset(
            namespace,
            each.table,
            _table_facets(each, namespace)
            | {
                "lifecycleStateChange": changed,
                "holdfast_backout": about | {"rowsRemoved": each.rows},
            },
        )
        for each in facts.removed
    ]


def _read(each: TableRows, namespace: str) -> Json:
    quality = _facet("dataQualityMetrics", rowCount=each.rows, fileCount=each.files, columnMetrics={})
    facets = _table_facets(each, namespace)
    return _dataset(namespace, each.table, facets) | {"inputFacets": {"dataQualityMetrics": quality}}


def _table_facets(each: TableRows, namespace: str) -> Json:
    return {
        "dataSource": _facet("dataSource", name=namespace, uri=f"holdfast://{namespace}"),
        "version": _facet("version", datasetVersion=str(each.table_version)),
    }


def _source(source: str) -> Json:
    """Return a delivery as a dataset.

    By OpenLineage's naming, scheme and authority are the namespace, the rest is the name.
    """
    scheme, found, rest = source.partition("://")
    authority, _, name = rest.partition("/")
    space = f"{scheme}://{authority}" if found else "file"
    return _dataset(
        space,
        name or source,
        {"dataSource": _facet("dataSource", name=space, uri=source if found else f"file:{source}")},
    )


def _dataset(namespace: str, name: str, facets: Json) -> Json:
    return {"namespace": namespace, "name": name, "facets": facets}


def _facet(kind: str, **content: Any) -> Json:
    return {"_producer": PRODUCER, "_schemaURL": _SCHEMAS[kind], **content}


def _own_facet(kind: str, **content: Any) -> Json:
    name = f"Holdfast{kind.capitalize()}DatasetFacet"
    return {"_producer": PRODUCER, "_schemaURL": f"{PRODUCER}:openlineage-facets:1#/$defs/{name}", **content}
