"""The datatypes of the Open Inference Protocol: what each can hold, and how binary tensors are read.

A tensor in JSON is held to its datatype as a binary tensor is: INT8 holds no 300, however it is written.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

INTEGERS: Final = ("INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64")
TIMESTAMP: Final = ("BYTES", "INT64")
"""The datatypes of a timestamp: RFC 3339 text, or microseconds since 1970 UTC."""
NUMPY: Final = {
    "BOOL": np.dtype("?"),
    **{name: np.dtype(name.lower()).newbyteorder("<") for name in INTEGERS},
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
}
"""The datatypes of binary tensors but BYTES, whose values have no fixed length."""

_BOUNDS: Final = {
    name: (int(np.iinfo(name.lower()).min), int(np.iinfo(name.lower()).max)) for name in INTEGERS
}
_LARGEST_FP32: Final = 3.4028235677973366e38
"""From this magnitude on a number rounds to infinity in single precision."""
_EXACT: Final = 2**53
_LONGEST_VALUE: Final = 40
_LENGTH: Final = struct.Struct("<I")


def find_unfit(datatype: str, values: Sequence[Any]) -> tuple[str, str] | None:
    """Return the rule that the first value breaks which `datatype` cannot hold, and both in words; None if all fit.

    The rule is "type" for what is no such number at all, else "datatype". None is a missing value, which fits.

    >>> find_unfit("INT8", [1, 300])
    ('datatype', 'INT8 holds whole numbers from -128 to 127, and value 1 is 300')
    >>> find_unfit("INT8", [1.0]), find_unfit("INT8", [1.5])
    (None, ('type', 'INT8 holds whole numbers from -128 to 127, and value 0 is 1.5'))
    >>> find_unfit("FP32", [True])
    ('type', 'FP32 holds numbers of magnitude up to 3.4028235e+38, and value 0 is True')
    """
    if datatype in _BOUNDS:
        low, high = _BOUNDS[datatype]
        known = [value for value in values if value is not None]
        if (
            set(map(type, known)) <= {int, float}
            and all(map(_is_whole, known))
            and (not known or (low <= min(known) and max(known) <= high))
        ):
            return None
        holds = f"whole numbers from {low} to {high}"
        fits = [value is None or (_is_whole(value) and low <= value <= high) for value in values]
    elif datatype == "FP32":
        holds = "numbers of magnitude up to 3.4028235e+38"
        fits = [value is None or _fits_single(value) for value in values]
    else:
        return None  # text, a truth value and a double are what the contract reads as they are
    if all(fits):
        return None
    place = fits.index(False)
    kinds = (int, float) if datatype == "FP32" else (int,)
    rule = "datatype" if type(values[place]) in kinds else "type"
    return rule, f"{datatype} holds {holds}, and value {place} is {_show(values[place])}"


def _is_whole(value: object) -> bool:
    """Return True for an integer, and for a whole number in double precision that no other integer rounds to."""
    return type(value) is int or (type(value) is float and value.is_integer() and abs(value) <= _EXACT)


def _fits_single(value: object) -> bool:
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and -_LARGEST_FP32 < value < _LARGEST_FP32
    )


def _show(value: object) -> str:
    if isinstance(value, int) and value.bit_length() > 128:  # Python refuses to format very long integers
        return f"an integer of {value.bit_length()} bits"
    shown = repr(value[:_LONGEST_VALUE] if isinstance(value, str) else value)
    return shown if len(shown) <= _LONGEST_VALUE else f"{shown[: _LONGEST_VALUE - 3]}..."


def read_tensor(datatype: str, raw: memoryview, count: int) -> list[Any]:
    """Return the `count` values of a binary tensor. Raises `ValueError` with the reason if `raw` does not hold them."""
    if datatype == "BYTES":
        return _read_texts(raw, count)
    dtype = NUMPY[datatype]
    if len(raw) != count * dtype.itemsize:
        raise ValueError(f"{len(raw)} bytes are not {count} values of {datatype}")
    if datatype == "BOOL" and raw.tobytes().strip(b"\x00\x01"):
        raise ValueError("a BOOL is 0 or 1")
    values: list[Any] = np.frombuffer(raw, dtype).tolist()
    return values


def _read_texts(raw: memoryview, count: int) -> list[str]:
    data = raw.tobytes()
    texts: list[str] = []
    position, size = 0, len(data)
    try:
        while position < size and len(texts) < count:
            (length,) = _LENGTH.unpack_from(data, position)
            begin = position + 4
            position = begin + length
            texts.append(data[begin:position].decode())
    except (struct.error, UnicodeDecodeError) as error:
        raise ValueError(str(error)) from None
    if position != size or len(texts) != count:
        raise ValueError(f"the bytes are not {count} texts with their lengths")
    return texts
