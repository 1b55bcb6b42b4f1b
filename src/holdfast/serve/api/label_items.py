"""Read the labels of a feedback request: each names its prediction by id, or the row by its business key."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import msgspec

from holdfast.errors import NotFoundError, UnavailableError
from holdfast.feedback import (
    FEED_SOURCE,
    IdCheck,
    PredictionId,
    full_id,
    names_row,
    parse_id,
    rows_reason,
)
from holdfast.records import canonical_json
from holdfast.serve.inference.data_plane import DataPlane
from holdfast.serve.protocol.large_body import TooManyValuesError, count_structure
from holdfast.serve.protocol.oip import RequestError, run_to_end
from holdfast.serve.protocol.repeated_names import count_members, find_repeated_name
from holdfast.store.serving.prediction_log import FeedbackRecord, KeyFeedbackRecord

MAX_LABELS: Final = 1000
"""Labels in one feedback request."""
SOURCE_CHARACTERS: Final = 63
_SHOWN_CHARACTERS: Final = 60
_MOST_VALUES: Final = 64
"""Values of one label, its key's included."""

LabelRecord = FeedbackRecord | KeyFeedbackRecord


class _Label(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    value: Any
    id: str | None = None
    key: dict[str, Any] | None = None
    source: str = "client"


class _Labels(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    feedback: list[Any]


_read_json: Final = msgspec.json.Decoder().decode


@dataclass(frozen=True, slots=True)
class LabelItems:
    """The labels of a request, not read yet. `is_list` is True for a list, False for one label alone."""

    items: list[Any]
    is_list: bool


def parse_labels(body: bytes) -> LabelItems:
    """Return the labels of a body. Its parsed form decides which of the two it is; the text of a value never does."""
    try:
        run_to_end(count_structure(memoryview(body), MAX_LABELS * _MOST_VALUES))
    except TooManyValuesError:
        raise RequestError("HF511", f"the body has more values than {MAX_LABELS} labels") from None
    try:
        document = _read_json(body)
        if why := find_repeated_name(body, count_members(document)):
            raise RequestError("HF511", why)
        if isinstance(document, dict) and "feedback" in document:
            items = LabelItems(msgspec.convert(document, _Labels).feedback, is_list=True)
        else:
            items = LabelItems([document], is_list=False)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise RequestError("HF511", f"the body is not feedback: {error}") from None
    except RecursionError:
        raise RequestError("HF511", "the body is nested too deeply") from None
    if not 1 <= len(items.items) <= MAX_LABELS:
        raise RequestError("HF511", f"a request brings 1 to {MAX_LABELS} labels")
    return items


def name_of(item: object) -> dict[str, object]:
    """Return what names the label in its result: its id or its key, as sent."""
    if isinstance(item, dict) and "key" in item and "id" not in item:
        return {"key": item["key"]}
    return {"id": item.get("id") if isinstance(item, dict) else None}


def subject_of(record: LabelRecord) -> str:
    """Return what a label is about: the id of the prediction, or the key as JSON."""
    return record.key if isinstance(record, KeyFeedbackRecord) else record.prediction


def read_label(item: object, plane: DataPlane, now_us: int) -> LabelRecord:
    """Return the label of one item.

    Raises
    ------
    RequestError
        HF511 when it is none.
    NotFoundError
        HF505 when no server issued the prediction id.
    UnavailableError
        HF503 for a key while no version is loaded.
    """
    try:
        label = msgspec.convert(item, _Label)
    except msgspec.MsgspecError as error:
        raise RequestError("HF511", f"this is not feedback: {error}") from None
    if (label.id is None) == (label.key is None):
        raise RequestError("HF511", 'a label has an "id" or a "key", and a "value"')
    if not (1 <= len(label.source) <= SOURCE_CHARACTERS and label.source.isprintable()):
        raise RequestError("HF511", f"a source is a text of 1 to {SOURCE_CHARACTERS} printable characters")
    if label.source == FEED_SOURCE:
        raise RequestError("HF511", f"the source {FEED_SOURCE!r} is reserved for labels of label feeds")
    if label.key is not None:
        return _by_key(label.key, label, plane, now_us)
    assert label.id is not None
    return _by_id(label.id, label, plane, now_us)


def _by_id(text: str, label: _Label, plane: DataPlane, now_us: int) -> FeedbackRecord:
    place = parse_id(full_id(text))
    if place is None:
        raise RequestError(
            "HF511", "an id is the prediction_id of a response; '/' and a row number may follow"
        )
    if not _can_be_issued(place, plane):
        raise NotFoundError("HF505", f"{full_id(text)} was never issued")
    name = text if names_row(text) else _with_row(text, place, plane)
    value = label.value
    if not isinstance(value, bool | int | float) or not 0 <= value <= 1:
        raise RequestError(
            "HF511", f"{name}: a value is true, false or a number from 0 to 1, not {_show(value)}"
        )
    return FeedbackRecord(name, float(value), label.source, now_us)


def _with_row(text: str, place: PredictionId, plane: DataPlane) -> str:
    """Return the id with its row; unchanged if the rows of its request are not known here: the control loop counts them."""
    rows = plane.log.count_rows(place.segment, place.number) if place.server == plane.log.server else None
    if rows is None:
        return text
    if rows > 1:
        raise RequestError("HF511", rows_reason(text, rows))
    return full_id(text)


def _can_be_issued(place: PredictionId, plane: DataPlane) -> bool:
    """Return False if it is known that no caller got this id. If that is unknown, the label waits for the collected log."""
    if plane.label_rules.check_id(place) is IdCheck.NOT_ISSUED:
        return False
    log = plane.log
    if place.server != log.server:
        return True
    has_no_tag = not place.tag and place.segment >= log.first_segment
    return not has_no_tag and log.has_issued(place.segment, place.number, place.row)


def _by_key(key: dict[str, Any], label: _Label, plane: DataPlane, now_us: int) -> KeyFeedbackRecord:
    active = plane.active
    if active is None:
        raise UnavailableError("HF503", "no version is loaded yet, so the key of a row is not known")
    if label.value not in (0, 1):
        raise RequestError(
            "HF511", f"the value of a label by key is true, false, 1 or 0, not {_show(label.value)}"
        )
    names = active.schema.contract.key
    if key.keys() != set(names):
        raise RequestError("HF511", f"the key of a row is {', '.join(names)}, each once and nothing else")
    read = active.schema.read_key(key)
    return KeyFeedbackRecord(canonical_json(read), float(label.value), label.source, now_us)


def _show(value: object) -> str:
    shown = repr(value[:_SHOWN_CHARACTERS] if isinstance(value, str) else value)
    return shown if len(shown) <= _SHOWN_CHARACTERS else f"{shown[: _SHOWN_CHARACTERS - 3]}..."
