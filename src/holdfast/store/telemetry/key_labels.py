"""Rows of `key_labels`: labels that callers sent by the business key of a row, each with all its corrections."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields, replace

from sqlalchemy import Connection, func, insert, select

from holdfast.feedback import Arrival, KnownLabel, compare_labels, correction_time_us
from holdfast.records import sha256_hex
from holdfast.store.db.schema import key_labels
from holdfast.store.telemetry.quarantined_labels import QuarantinedLabel


@dataclass(frozen=True, slots=True)
class KeyLabel:
    """One label. `key_json` is the key as canonical JSON: its columns and their values."""

    key_json: str
    value: float
    source: str
    received_at_us: int


def add(
    connection: Connection, model: str, received: Sequence[KeyLabel], reason: Callable[[KnownLabel], str]
) -> list[QuarantinedLabel]:
    """Append labels in the order in which they came, and return those that contradict the label of another source.

    One that repeats the newest value of its key counts once. `reason` returns why a label is quarantined, from the one that
    stands.
    """
    newest: dict[str, KnownLabel | None] = {}
    quarantined: list[QuarantinedLabel] = []
    for label in received:
        digest = sha256_hex(label.key_json)
        if digest not in newest:
            newest[digest] = _newest_of(connection, model, digest)
        known, arrived = newest[digest], KnownLabel(label.value, label.source, label.received_at_us)
        match compare_labels(arrived, known, "latest"):
            case Arrival.REPEATED:
                continue
            case Arrival.QUARANTINED:
                assert known is not None, "it contradicts a label"
                quarantined.append(
                    QuarantinedLabel(
                        None, label.key_json, label.value, label.source, label.received_at_us, reason(known)
                    )
                )
                continue
        at_us = label.received_at_us if known is None else correction_time_us(arrived, known)
        newest[digest] = replace(arrived, received_at_us=at_us)
        values = asdict(label) | {"model": model, "key_digest": digest, "received_at_us": at_us}
        connection.execute(insert(key_labels), values)
    return quarantined


def _newest_of(connection: Connection, model: str, digest: str) -> KnownLabel | None:
    query = (
        select(key_labels.c.value, key_labels.c.source, key_labels.c.received_at_us)
        .where(key_labels.c.model == model, key_labels.c.key_digest == digest)
        .order_by(key_labels.c.key_label_id.desc())
        .limit(1)
    )
    found = connection.execute(query).one_or_none()
    return None if found is None else KnownLabel(*found)


def since(
    connection: Connection,
    model: str,
    key_label_id: int,
    *,
    until: int | None = None,
    since_us: int | None = None,
) -> list[KeyLabel]:
    """Return the labels of `model` after the one with that number, in order.

    Only those up to number `until`, and those that were received after `since_us`, microseconds UTC; None for all.
    """
    query = (
        select(*(key_labels.c[field.name] for field in fields(KeyLabel)))
        .where(key_labels.c.model == model, key_labels.c.key_label_id > key_label_id)
        .order_by(key_labels.c.key_label_id)
    )
    if until is not None:
        query = query.where(key_labels.c.key_label_id <= until)
    if since_us is not None:
        query = query.where(key_labels.c.received_at_us > since_us)
    return [KeyLabel(*row) for row in connection.execute(query)]


def newest(connection: Connection, model: str) -> int:
    """Return the number of the model's newest such label; 0 if there is none."""
    query = select(func.coalesce(func.max(key_labels.c.key_label_id), 0)).where(key_labels.c.model == model)
    return int(connection.execute(query).scalar_one())
