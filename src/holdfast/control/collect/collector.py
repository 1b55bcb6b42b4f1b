"""Collect the servers' prediction logs and join their labels.

Level-triggered: each round reads from the logs and the ledger what is left to do, so it may be killed anywhere.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from holdfast.control.collect.commit import Stretch, commit_join, commit_stretch
from holdfast.control.collect.log_context import LogContext, read_context
from holdfast.control.collect.log_summary import LogSummary, summarise
from holdfast.errors import IntegrityError
from holdfast.feedback import Waiting, parse_id
from holdfast.store import Store
from holdfast.store.db import events
from holdfast.store.db.leases import Lease
from holdfast.store.durability.failpoints import failpoint
from holdfast.store.files.staging import staged
from holdfast.store.serving import log_directory, prediction_log, servers
from holdfast.store.serving.servers import Server
from holdfast.store.telemetry import collected_files, labels, log_positions
from holdfast.store.telemetry.collected_files import PREDICTIONS, SHADOWS
from holdfast.store.telemetry.log_positions import Position

RETAINED_LOG_BYTES: Final = 1024**3
"""How much of the collected log stays in each server's directory, for the operator to look at."""

MAX_STRETCHES: Final = 4
"""How many parts of each server's log one round collects: the loop's other work must not wait for a backlog."""

MAX_LABELS: Final = 20_000
"""How many labels one transaction joins."""

MAX_JOINS: Final = 4
"""How many transactions that settle labels one round makes."""


def collect(store: Store, model: str, lease: Lease, *, now_us: int) -> int:
    """Collect what the servers of `model` have logged since the last round; return the number of records.

    A damaged segment is one event: the records before the damage are collected, the file stays as it is, and the other
    segments are collected.

    Parameters
    ----------
    store, model
        The store, and the name of the model.
    lease
        The lease of the control loop.
    now_us
        The current time, microseconds since 1970 UTC.

    Raises
    ------
    ConflictError
        HF304 if another loop has the lease or has collected the same part, which is then not counted again.
    """
    context = read_context(store, model)
    with store.ledger.read() as connection:
        found = servers.registered(connection, model)
    return sum(_collect_server(store, server, context, lease, now_us) for server in found)


def join(store: Store, model: str, lease: Lease, *, now_us: int) -> int:
    """Join waiting labels with their predictions; return how many were settled, joined or deleted.

    A label waits until its prediction is collected, or until a damaged file that may contain it is restored. A label
    without a possible prediction is deleted; an event names it.

    Parameters
    ----------
    store, model
        The store, and the name of the model.
    lease
        The lease of the control loop.
    now_us
        The current time, microseconds since 1970 UTC.

    Raises
    ------
    ConflictError
        HF304 if another loop has the lease.
    """
    with store.ledger.read() as connection:
        others = {each.server for each in servers.registered(connection) if each.model != model}
    done = joins = 0
    last = ""
    while joins < MAX_JOINS:
        with store.ledger.read() as connection:
            waiting = labels.waiting(connection, after=last, limit=MAX_LABELS)
        if not waiting:
            return done
        last = waiting[-1].prediction_id
        ours = [label for label in waiting if not others or _server(label.prediction_id) not in others]
        if ours:
            settled = commit_join(store, lease, ours, now_us=now_us)
            many = sum(1 for each in settled if not isinstance(each, Waiting))
            done += many
            joins += many > 0
    return done


def _server(prediction: str) -> str:
    place = parse_id(prediction)
    return "" if place is None else place.server


def _collect_server(store: Store, server: Server, context: LogContext, lease: Lease, now_us: int) -> int:
    listed = log_directory.segments(server.log_directory)
    with store.ledger.read() as connection:
        known = log_positions.positions(connection, server.server)
    records = stretches = 0
    finished: list[Path] = []
    for number, path in listed:
        position = known.get(number, Position(server.server, number, 0))
        try:
            while stretches < MAX_STRETCHES and position.collected_bytes != path.stat().st_size:
                found, end = prediction_log.read(path, position.collected_bytes)
                if end == position.collected_bytes:
                    break
                summary = summarise(found, context)
                _store(store, server, position, summary, end, lease, now_us)
                records += len(found)
                stretches += 1
                position = Position(position.server, position.segment, end)
        except IntegrityError as error:
            with store.ledger.write() as connection:
                events.append_once(
                    connection,
                    at_us=now_us,
                    kind="log.damaged",
                    subject=f"log/{server.server}/{number}",
                    explanation=str(error),
                )
            continue
        if stretches >= MAX_STRETCHES:
            break
        if number != listed[-1][0]:
            finished.append(path)
    log_positions.delete_collected(finished, keep_bytes=RETAINED_LOG_BYTES)
    return records


def _store(
    store: Store, server: Server, position: Position, summary: LogSummary, end: int, lease: Lease, now_us: int
) -> None:
    segment = position.segment
    with staged(store.root) as stage:
        file = shadow_file = None
        if not summary.rows.is_empty():
            file = collected_files.write(
                stage, PREDICTIONS, summary.rows,
                model=server.model, server=server.server, segment=segment, numbers=summary.numbers,
            )  # fmt: skip
        if not summary.shadow_rows.is_empty():
            shadow_file = collected_files.write(
                stage, SHADOWS, summary.shadow_rows, model=server.model, server=server.server, segment=segment
            )
        if file is not None or shadow_file is not None:
            stage.sync()
        failpoint("collect.written")
        stretch = Stretch(
            model=server.model,
            position=position,
            end_bytes=end,
            predictions=summary.predictions,
            file=file,
            usage=summary.usage,
            windows=summary.windows,
            feedback=summary.feedback,
            shadow_file=shadow_file,
            pair_windows=summary.pair_windows,
            pairs=tuple(collected_files.shadow_pairs(summary.shadow_rows)),
        )
        commit_stretch(store, lease, stretch, now_us=now_us)
