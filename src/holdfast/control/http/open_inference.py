"""Write requests of the Open Inference Protocol."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from holdfast.contract import Boolean, Column, Integer, Number

_DATATYPES: Final[Mapping[type, str]] = {Number: "FP64", Integer: "INT64", Boolean: "BOOL"}
"""The type of a tensor by the kind of its column; every other column is text."""


def inference_request(columns: Sequence[Column], row: Mapping[str, Any], unit: str | None) -> str:
    """Return the request for one row, randomised as `unit`; a missing value has no tensor.

    Without a unit it has no id, and the server gives it one of its own.
    """
    inputs = []
    for column in columns:
        value = row.get(column.name)
        if value is not None:
            data = value.isoformat() if isinstance(value, datetime) else value
            datatype = _DATATYPES.get(type(column), "BYTES")
            inputs.append({"name": column.name, "shape": [1], "datatype": datatype, "data": [data]})
    return json.dumps({"inputs": inputs} if unit is None else {"id": unit, "inputs": inputs})
