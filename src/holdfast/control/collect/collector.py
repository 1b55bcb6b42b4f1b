"""What the servers did, brought home: their logs collected, their labels joined.

Level-triggered: what is left to do is read from the logs and the ledger each time, so a round may be killed
anywhere.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from holdfast.control.collect.log_context import Reading, reading_of
from holdfast.control.collect.log_summary import Tally, tally
from holdfast.errors import IntegrityError
from holdfast.feedback import Waiting, parse_id
from holdfast.store import Store
from holdfast.store.db import events
from holdfast.store.db.leases import Lease
from holdfast.store.durability.failpoints import fault_point
from holdfast.store.files.staging import staged
from holdfast.store.serving import log_directory, prediction_log, servers
from holdfast.store.serving.servers import Server
from holdfast.store.telemetry import labels, log_collection, log_positions, prediction_files, shadow_files
from holdfast.store.telemetry.log_collection import Stretch
from holdfast.store.telemetry.log_positions import Position

KEPT_LOG_BYTES: Final = 1024**3
"""How much of what was collected stays in each server's log directory, for a person who wants to look."""

STRETCHES_AT_ONCE: Final = 4
"""How many stretches of each server's log one round collects: what else the loop does must not wait for a backlog."""

LABELS_AT_ONCE: Final = 20_000
"""How many labels one transaction joins."""

JOINS_AT_ONCE: Final = 4
"""After how many transactions that settled something a round leaves the rest to the next."""


def collect(store: Store, model: str, lease: Lease, *, now_us: int) -> int:
    """Read what the servers of `model` have logged since the last time; the number of records.

    A segment that is damaged is told once in an event; what lies before the damage is kept, the file is left as
    it is, and the others go on. Raises `ConflictError`
    HF304 when `lease` has gone to another loop, or another has collected the same stretch: it is then not
    counted again.
    """
    reading = reading_of(store, model)
    found = servers.registered(store, model)
    return sum(_collect_server(store, server, reading, lease, now_us) for server in found)


def join(store: Store, model: str, lease: Lease, *, now_us: int) -> int:
    """Join the labels that wait with their answers; how many were settled, joined or given up.

    A label whose answer was not collected yet goes on waiting, and so does one whose answer lies in a file that
    is damaged, which is told once in an event. One that can have no answer is told in an
    event and removed. Raises `ConflictError` HF304 when `lease` has gone to another loop.
    """
    others = {each.server for each in servers.registered(store) if each.model != model}
    done = joins = 0
    last = ""
    while joins < JOINS_AT_ONCE:
        with store.ledger.read() as connection:
            waiting = labels.waiting(connection, after=last, limit=LABELS_AT_ONCE)
        if not waiting:
            return done
        last = waiting[-1].prediction_id
        ours = [label for label in waiting if not others or _server(label.prediction_id) not in others]
        if ours:
            settled = log_collection.join(store, lease, ours, now_us=now_us)
            many = sum(1 for each in settled if not isinstance(each, Waiting))
            done += many
            joins += many > 0
    return done


def _server(prediction: str) -> str:
    place = parse_id(prediction)
    return "" if place is None else place.server


def _collect_server(store: Store, server: Server, reading: Reading, lease: Lease, now_us: int) -> int:
    listed = log_directory.segments(server.log_directory)
    known = log_positions.positions(store, server.server)
    records = stretches = 0
    finished: list[Path] = []
    for number, path in listed:
        position = known.get(number, Position(server.server, number, 0))
        try:
            while stretches < STRETCHES_AT_ONCE and position.collected_bytes != path.stat().st_size:
                found, end = prediction_log.read(path, position.collected_bytes)
                if end == position.collected_bytes:
                    break
                counted = tally(found, reading)
                _keep(store, server, position, counted, end, lease, now_us)
                records += len(found)
                stretches += 1
                position = Position(position.server, position.segment, end)
        except IntegrityError as error:
            events.tell_once(
                store,
                at_us=now_us,
                kind="log.damaged",
                subject=f"log/{server.server}/{number}",
                explanation=str(error),
            )
            continue
        if stretches >= STRETCHES_AT_ONCE:
            break
        if number != listed[-1][0]:
            finished.append(path)
    log_positions.retire(finished, keep_bytes=KEPT_LOG_BYTES)
    return records


def _keep(
    store: Store, server: Server, position: Position, counted: Tally, end: int, lease: Lease, now_us: int
) -> None:
    with staged(store.root) as stage:
        file = None
        if not counted.answers.is_empty():
            file = prediction_files.write(
                stage,
                counted.answers,
                model=server.model,
                server=server.server,
                segment=position.segment,
                numbers=counted.numbers,
            )
        shadow_file = None
        if not counted.copies.is_empty():
            shadow_file = shadow_files.write(
                stage,
                counted.copies,
                model=server.model,
                server=server.server,
                segment=position.segment,
            )
        if file is not None or shadow_file is not None:
            stage.seal()
        fault_point("collect.written")
        stretch = Stretch(
            model=server.model,
            position=position,
            end_bytes=end,
            predictions=counted.predictions,
            file=file,
            usage=counted.usage,
            windows=counted.windows,
            feedback=counted.feedback,
            shadow_file=shadow_file,
            pairs=counted.pairs,
            shadowed=tuple(shadow_files.pairs_of(counted.copies)),
        )
        log_collection.keep(store, lease, stretch, now_us=now_us)
