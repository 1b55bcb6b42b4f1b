"""Rows of `key_labels`: labels that callers sent by the business key of a row, each with all its corrections."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from sqlalchemy import Connection, func, insert, select

from holdfast.records import sha256_hex
from holdfast.store.db.schema import key_labels


@dataclass(frozen=True, slots=True)
class KeyLabel:
    """One label. `key_json` is the key as canonical JSON: its columns and their values."""

    key_json: str
    value: float
    source: str
    received_at_us: int


def add(connection: Connection, model: str, received: Sequence[KeyLabel]) -> None:
    """Append labels in the order in which they came. One that repeats the newest value of its key counts once."""
    newest: dict[str, float | None] = {}
    for label in received:
        digest = sha256_hex(label.key_json)
        if digest not in newest:
            query = (
                select(key_labels.c.value)
                .where(key_labels.c.model == model, key_labels.c.key_digest == digest)
                .order_by(key_labels.c.key_label_id.desc())
                .limit(1)
            )
            newest[digest] = connection.execute(query).scalar_one_or_none()
        if newest[digest] != label.value:
            newest[digest] = label.value
            connection.execute(insert(key_labels), asdict(label) | {"model": model, "key_digest": digest})


def since(connection: Connection, model: str, key_label_id: int) -> list[KeyLabel]:
    """Return the labels of `model` after the one with that number, in order."""
    columns = (
        key_labels.c.key_json,
        key_labels.c.value,
        key_labels.c.source,
        key_labels.c.received_at_us,
    )
    query = (
        select(*columns)
        .where(key_labels.c.model == model, key_labels.c.key_label_id > key_label_id)
        .order_by(key_labels.c.key_label_id)
    )
    return [KeyLabel(*row) for row in connection.execute(query)]


def newest(connection: Connection, model: str) -> int:
    """Return the number of the model's newest such label; 0 if there is none."""
    query = select(func.coalesce(func.max(key_labels.c.key_label_id), 0)).where(key_labels.c.model == model)
    return int(connection.execute(query).scalar_one())
