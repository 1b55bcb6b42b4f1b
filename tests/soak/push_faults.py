"""Ten ways in which a version can be bad, each as a change of a good version's graph.

Inputs and output of the graph stay what they were, so the signature stays true. A fault may wait for a time of the rows'
event time: before it the version answers as the good one does, and no gate that asks held-out days can see it.
"""

from __future__ import annotations

import math
import time
import timeit
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import onnx
import onnxruntime
import spox.opset.ai.onnx.ml.v3 as ml
import spox.opset.ai.onnx.v17 as op
from spox import Tensor, Var, argument, build, inline

SLOW_SECONDS = 0.02
"""What a slow version adds to a request, in seconds of one core, whatever the core."""

Arguments = dict[str, Var]
Honest = Callable[[Arguments], Var]
"""The probability that the good version gives for its arguments."""

Change = Callable[[Arguments, Honest, Var], Var]
"""The probability of the bad one: its arguments, the good version, and for which rows the fault is there."""

_TYPES = {
    onnx.TensorProto.DOUBLE: np.float64,
    onnx.TensorProto.STRING: np.str_,
    onnx.TensorProto.INT64: np.int64,
}


@dataclass(frozen=True)
class Fault:
    """One kind of bad version; `lives` is what goes wrong for its callers."""

    kind: str
    lives: str
    change: Change


def planted(graph: onnx.ModelProto, fault: Fault, since_us: int | None = None) -> onnx.ModelProto:
    """`graph` with `fault`, for rows whose departure is at `since_us` (microseconds since 1970 UTC) or later; None for all.

    The version's metadata is not carried over; packing writes it.
    """
    arguments = {
        each.name: argument(Tensor(_TYPES[each.type.tensor_type.elem_type], ("N",)))
        for each in graph.graph.input
    }
    bare = onnx.ModelProto()
    bare.CopyFrom(graph)
    del bare.metadata_props[:]

    def honest(given: Arguments) -> Var:
        return inline(bare)(**given)["probability"]

    departure = arguments["scheduled_departure"]
    first = np.iinfo(np.int64).min if since_us is None else since_us
    there = op.greater_or_equal(departure, _constant(first, np.int64))
    return build(arguments, {"probability": fault.change(arguments, honest, there)})


def _constant(value: object, kind: type[np.generic]) -> Var:
    return op.const(np.array(value, kind))


def _is(words: Var, those: list[str]) -> Var:
    """Which of `words` are among `those`."""
    found = ml.label_encoder(words, keys_strings=those, values_floats=[1.0] * len(those), default_float=0.0)
    return op.greater(found, _constant(0.5, np.float32))


def _raises(given: Arguments, honest: Honest, there: Var) -> Var:
    """A table that lacks some destinations is looked up beyond its end."""
    lost = op.and_(there, _is(given["destination"], ["BOS", "MCO", "ORD", "LAX"]))
    place = op.where(lost, _constant(9, np.int64), _constant(0, np.int64))
    return op.add(honest(given), op.gather(op.const(np.zeros(1, np.float32)), place))


def _not_a_number(given: Arguments, honest: Honest, there: Var) -> Var:
    """The root of a number that is negative for long distances."""
    root = op.sqrt(op.sub(_constant(1500.0, np.float64), given["distance"]))
    spoilt = op.cast(op.mul(root, _constant(0.0, np.float64)), to=np.float32)
    response = honest(given)
    return op.where(there, op.add(response, spoilt), response)


def _opposite(given: Arguments, honest: Honest, there: Var) -> Var:
    response = honest(given)
    return op.where(there, _not(response), response)


def _not(response: Var) -> Var:
    return op.sub(_constant(1.0, np.float32), response)


def _constant_response(given: Arguments, honest: Honest, there: Var) -> Var:
    return op.where(there, _constant(0.5, np.float32), honest(given))


def _slowly(response: Var, slow: Var) -> Var:
    """`answer`, after some matrix products when any of `slow` holds."""

    def work() -> list[Var]:
        matrix = op.constant_of_shape(
            op.const(np.array([256, 256])), value=np.array([1.0 / 256.0], np.float32)
        )
        value = op.mul(matrix, op.reduce_max(response, keepdims=False))
        return [op.mul(_multiplied(value, matrix, slow_products()), _constant(0.0, np.float32))]

    any_slow = op.cast(op.reduce_max(op.cast(slow, to=np.float32), keepdims=False), to=np.bool_)
    (nothing,) = op.if_(any_slow, then_branch=work, else_branch=lambda: [_constant(0.0, np.float32)])
    return op.add(response, nothing)


def _multiplied(value: Var, matrix: Var, times: int) -> Var:
    for _ in range(times):
        value = op.matmul(value, matrix)
    return op.reduce_mean(value, keepdims=False)


@cache
def slow_products() -> int:
    """How many products of matrices of 256 by 256 take this core `SLOW_SECONDS`: cores differ by more than five times."""
    products = 50
    given = argument(Tensor(np.float32, (256, 256)))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        build({"given": given}, {"mean": _multiplied(given, given, products)}).SerializeToString(),
        options,
        providers=["CPUExecutionProvider"],
    )
    rows = {"given": np.full((256, 256), 1.0 / 256.0, np.float32)}
    seconds = min(
        timeit.repeat(lambda: session.run(None, rows), timer=time.process_time, number=1, repeat=10)
    )
    return math.ceil(products * SLOW_SECONDS / seconds)


def _slow_path(given: Arguments, honest: Honest, there: Var) -> Var:
    """One request in fifty, by a hash of its inputs."""
    minutes = op.div(given["scheduled_departure"], _constant(60_000_000, np.int64))
    mixed = op.add(
        op.mul(minutes, _constant(7_919, np.int64)),
        op.mul(op.cast(given["distance"], to=np.int64), _constant(104_729, np.int64)),
    )
    chosen = op.equal(
        op.mod(op.div(mixed, _constant(5, np.int64)), _constant(50, np.int64)), _constant(0, np.int64)
    )
    return _slowly(honest(given), op.and_(there, chosen))


def _slow(given: Arguments, honest: Honest, there: Var) -> Var:
    return _slowly(honest(given), there)


def _slice(given: Arguments, honest: Honest, there: Var) -> Var:
    response = honest(given)
    return op.where(op.and_(there, _is(given["carrier"], ["UA"])), _not(response), response)


def _units(given: Arguments, honest: Honest, there: Var) -> Var:
    """Kilometres for miles, degrees Celsius for Fahrenheit, seconds for minutes."""
    turned = {
        "distance": op.mul(given["distance"], _constant(1.609344, np.float64)),
        "temperature": op.mul(
            op.sub(given["temperature"], _constant(32.0, np.float64)), _constant(5.0 / 9.0, np.float64)
        ),
        "recent_delay": op.mul(given["recent_delay"], _constant(60.0, np.float64)),
    }
    return honest(given | {name: op.where(there, value, given[name]) for name, value in turned.items()})


def _shifted(given: Arguments, honest: Honest, there: Var) -> Var:
    """Each measurement stands one column further than where the version looks for it."""
    names = ["recent_delay", "temperature", "wind_speed", "precipitation", "visibility", "humidity"]
    further = zip(names, [*names[1:], names[0]], strict=True)
    return honest(given | {name: op.where(there, given[other], given[name]) for name, other in further})


def _overconfident(given: Arguments, honest: Honest, there: Var) -> Var:
    """Five times the log odds."""
    response = honest(given)
    sure = op.clip(response, _constant(1e-6, np.float32), _constant(1.0 - 1e-6, np.float32))
    odds = op.log(op.div(sure, _not(sure)))
    return op.where(there, op.sigmoid(op.mul(odds, _constant(5.0, np.float32))), response)


FAULTS = (
    Fault("raises", "raises for flights to four of the destinations", _raises),
    Fault("not a number", "answers NaN for distances over 1,500 miles", _not_a_number),
    Fault("opposite", "gives the probability of the opposite label", _opposite),
    Fault("constant", "answers 0.5 to everything", _constant_response),
    Fault("slow path", "takes some 20 ms for one request in fifty", _slow_path),
    Fault("slow", "takes some 20 ms for every request", _slow),
    Fault("slice", "is upside down for one carrier of fifteen", _slice),
    Fault("units", "takes miles as kilometres, °F as °C, minutes as seconds", _units),
    Fault("shifted", "reads each measurement from the column next to its own", _shifted),
    Fault("overconfident", "gives five times the log odds", _overconfident),
)
"""Every kind."""
