"""The prediction log: what each server answered, on its own disk, as records in segments.

A record is its length and its CRC-32 (two little-endian 32-bit numbers), then MessagePack. Segments are written by
`log_writer`; what a dying server leaves at the end of one, a torn tail, is told from damage, because nothing follows it.
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

    `arm` and `version` name who answered. `challenger_failed` is not empty when the request was the challenger's and the
    champion had to answer for it. `result` is "ok", "champion_failed" (another version answered for the champion), or
    the kind of error when there is no answer; a request that was refused has `rollout` None, because it is no evidence
    about either side. `latency_us` is the processor time that the request itself took: reading and checking it, and of
    its batch's time in the model the part of its rows. `inputs` are the rows as received, in the order of the contract's
    request columns.
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


class FeedbackRecord(msgspec.Struct, frozen=True, array_like=True, tag="F", gc=False):
    """What came back for row `<prediction id>/<row>`."""

    prediction: str
    value: float
    source: str
    at_us: int


class ShadowRecord(msgspec.Struct, frozen=True, array_like=True, tag="S", gc=False):
    """What a shadow made of a copy of the request `id`, and the answer that was given: both sides of the pair.

    `result` is "ok" or the shadow's kind of failure; `latency_us` is the processor time that it took, and `beside_us`
    that of the version that had answered, there and for the same rows, None when it was not run again.
    `champion` names the version that answered the user, with its result, its time in the answer's path, and its
    probabilities: none when nobody could answer.
    """

    id: str
    at_us: int
    unit: bytes
    rollout: int | None
    version: str
    result: str
    latency_us: int
    beside_us: int | None
    probabilities: list[float]
    champion: str
    champion_result: str
    champion_latency_us: int
    champion_probabilities: list[float]


Record = PredictionRecord | FeedbackRecord | ShadowRecord
_ENCODE: Final = msgspec.msgpack.Encoder().encode
_DECODE: Final = msgspec.msgpack.Decoder(Record).decode
# How an encoded record begins: an array of as many elements as the struct has fields and the tag.
_BEGINNINGS: Final = (b"\x9d\xa1P", b"\x95\xa1F", b"\x9e\xa1S")


def frame(record: Record) -> bytes:
    """`record` as it stands in a segment."""
    payload = _ENCODE(record)
    return _HEAD.pack(len(payload), zlib.crc32(payload)) + payload


def read(path: Path, offset: int = 0, *, limit_bytes: int = READ_BYTES) -> tuple[list[Record], int]:
    """The records of the segment `path` from byte `offset` on, and the offset behind the last of them.

    Takes about `limit_bytes` at once: call again with the new offset until it does not grow. Stops before a torn tail (a
    record that a dying or still running writer has not finished). What is damaged before the tail (whole records follow
    it) ends the records likewise, so that those before it are kept; called at its own offset, `read` raises
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
    # Bytes that do not parse are a torn tail only if nothing whole comes after them.
    if not used and (_record_end(data, 0) or _whole_record_after(data, 0)):
        raise IntegrityError(
            "HF316",
            f"{path} is damaged at byte {offset}: whole records follow",
            state="the records before it can be read",
            next_command="holdfast verify",
        )
    return records, offset + used


def _parse(data: bytes) -> tuple[list[Record], int]:
    """The records from the beginning of `data` up to the first that is not whole or cannot be understood."""
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
    """Where the whole, undamaged record at `position` ends; 0 when there is none."""
    begin = position + _HEAD.size
    if begin > len(data):
        return 0
    length, checksum = _HEAD.unpack_from(data, position)
    end: int = begin + length
    if length == 0 or end > len(data) or zlib.crc32(memoryview(data)[begin:end]) != checksum:
        return 0
    return end


def _whole_record_after(data: bytes, position: int) -> bool:
    for beginning in _BEGINNINGS:
        found = data.find(beginning, position + 1)
        while found >= 0:
            if found - _HEAD.size > position and _record_end(data, found - _HEAD.size):
                return True
            found = data.find(beginning, found + 1)
    return False
