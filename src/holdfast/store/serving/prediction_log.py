"""The prediction log: the requests that a server answered, on its own disk, as records in segments.

A record is its length and its CRC-32 (two little-endian 32-bit numbers), then MessagePack. `log_writer` writes
segments. A torn tail, which a dying server leaves, differs from damage: no record follows it.
"""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path
from typing import Final

import msgspec

from holdfast.errors import IntegrityError

READ_BYTES: Final = 4 * 1024 * 1024
"""How much of a segment one call of `read` takes."""
_HEAD: Final = struct.Struct("<II")
Scalar = float | int | str | bool | None


class PredictionRecord(msgspec.Struct, frozen=True, array_like=True, tag="P", gc=False):
    """One answered request.

    `arm` and `version` name the version that answered. `challenger_failed` is not empty if the request was the
    challenger's and the champion answered for it. `result` is "ok", "champion_failed" (another version answered for
    the champion), or the kind of error. A rejected request has `rollout` None: it is no evidence about either side.
    `latency_us` is the processor time of the request itself: reading, checking, and its rows' share of the batch's
    time in the model. `inputs` are the rows as received, in the order of the contract's request columns. `response_us` is the
    time from the last byte of the request to its response, None in logs of before; `reasons` are the rules that a rejected
    request broke, "<column>|<rule>" of the contract. `share_ppm` is the challenger's share of the plan by which the server
    drew the arm, parts per million; None without a rollout, and in logs of before.
    """

    id: str
    at_us: int
    event_time_us: int
    unit: bytes
    arm: str
    version: str
    challenger_failed: str
    rollout: int | None
    result: str
    latency_us: int
    probabilities: list[float]
    inputs: list[list[Scalar]]
    response_us: int | None = None
    reasons: list[str] = []  # msgspec gives each record its own
    share_ppm: int | None = None


class FeedbackRecord(msgspec.Struct, frozen=True, array_like=True, tag="F", gc=False):
    """A label for row `<prediction id>/<row>`."""

    prediction: str
    value: float
    source: str
    at_us: int


class KeyFeedbackRecord(msgspec.Struct, frozen=True, array_like=True, tag="K", gc=False):
    """A label for the row with the business key `key`: canonical JSON of its columns and their values."""

    key: str
    value: float
    source: str
    at_us: int


class ShadowRecord(msgspec.Struct, frozen=True, array_like=True, tag="S", gc=False):
    """A shadow's result for a copy of the request `id`, and the response that went out: both sides of the pair.

    `result` is "ok" or the shadow's kind of failure. `latency_us` is the shadow's processor time, `champion_rerun_us` that of
    the version that had answered, run again for the same rows; None if it was not run again. `champion` names the
    version that answered the user, with its result, its time in the request path, and its probabilities: none if no
    version could answer.
    """

    id: str
    at_us: int
    unit: bytes
    rollout: int | None
    version: str
    result: str
    latency_us: int
    champion_rerun_us: int | None
    probabilities: list[float]
    champion: str
    champion_result: str
    champion_latency_us: int
    champion_probabilities: list[float]


Record = PredictionRecord | FeedbackRecord | KeyFeedbackRecord | ShadowRecord
_ENCODE: Final = msgspec.msgpack.Encoder().encode
_DECODE: Final = msgspec.msgpack.Decoder(Record).decode
# How an encoded record begins: an array of as many elements as the struct has fields and the tag.
_BEGINNINGS: Final = (
    b"\x9d\xa1P",
    b"\x9f\xa1P",
    b"\xdc\x00\x10\xa1P",
    b"\x95\xa1F",
    b"\x95\xa1K",
    b"\x9e\xa1S",
)


def frame(record: Record) -> bytes:
    """Return `record` framed for a segment."""
    payload = _ENCODE(record)
    return _HEAD.pack(len(payload), zlib.crc32(payload)) + payload


def read(path: Path, offset: int = 0, *, limit_bytes: int = READ_BYTES) -> tuple[list[Record], int]:
    """Read the records of the segment `path` from byte `offset` on; return them and the offset behind the last.

    Reads about `limit_bytes`: call again with the new offset until it does not grow. Stops before a torn tail, a
    record that a dying or running writer has not finished. Damage before the tail, with complete records after it,
    also ends the records, so that those before it are kept. Called at the damage itself, `read` raises
    `IntegrityError` HF316.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if offset > size:
            raise IntegrityError("HF316", f"{path} has {size} bytes, but {offset} of it were read before")
        file.seek(offset)
        data = file.read(min(limit_bytes, size - offset))
        records, used = _parse(data)
        if not used and offset + len(data) < size:
            data += file.read(
                size - offset - len(data)
            )  # a record longer than the limit, or a damaged length
            records, used = _parse(data)
    # Bytes that do not parse are a torn tail only if no intact record comes after them.
    if not used and (_record_end(data, 0) or _has_record_after(data, 0)):
        raise IntegrityError(
            "HF316",
            f"{path} is damaged at byte {offset}: intact records follow",
            state="the records before it can be read",
            next_command="holdfast verify",
        )
    return records, offset + used


def _parse(data: bytes) -> tuple[list[Record], int]:
    """Return the records of `data` up to the first that is incomplete or unreadable, and the bytes that they take."""
    records: list[Record] = []
    position = 0
    while (following := _record_end(data, position)) > 0:
        try:
            records.append(_DECODE(data[position + _HEAD.size : following]))
        except msgspec.MsgspecError:
            break
        position = following
    return records, position


def _record_end(data: bytes, position: int) -> int:
    """Return the end of the intact record at `position`; 0 if there is none."""
    begin = position + _HEAD.size
    if begin > len(data):
        return 0
    length, checksum = _HEAD.unpack_from(data, position)
    end: int = begin + length
    if length == 0 or end > len(data) or zlib.crc32(memoryview(data)[begin:end]) != checksum:
        return 0
    return end


def _has_record_after(data: bytes, position: int) -> bool:
    for beginning in _BEGINNINGS:
        found = data.find(beginning, position + 1)
        while found >= 0:
            if found - _HEAD.size > position and _record_end(data, found - _HEAD.size):
                return True
            found = data.find(beginning, found + 1)
    return False
