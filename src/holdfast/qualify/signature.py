"""Does it speak the endpoint's language? Contract, inputs and outputs must be those that callers already use
(R94)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, assert_never

from holdfast.contract import Boolean, Category, Column, Contract, Integer, Label, Number, Text, Timestamp
from holdfast.qualify.result import GateResult, judged
from holdfast.qualify.trial import TensorType, Trial
from holdfast.records import Verdict

GATE: Final = "signature"

NUMBER: Final = "tensor(double)"
WORD: Final = "tensor(string)"
INSTANT: Final = "tensor(int64)"

PROBABILITY: Final = TensorType("probability", "tensor(float)", 1)
"""The one output of every version."""


@dataclass(frozen=True, slots=True)
class Signature:
    """What an endpoint takes and gives: its contract's hash, and the kind of tensor of every input that it
    can fill."""

    contract_hash: str
    inputs: Mapping[str, str]
    output: TensorType = PROBABILITY


def endpoint_signature(contract: Contract, aggregates: Iterable[str]) -> Signature:
    """The signature of an endpoint that takes rows of `contract` and fills in the named aggregates itself."""
    inputs = {column.name: _kind(column) for column in contract.request_columns}
    return Signature(contract.hash, inputs | dict.fromkeys(aggregates, NUMBER))


def signature(trial: Trial, endpoint: Signature) -> GateResult:
    """Pass when the file was made for the endpoint's contract, and takes and gives exactly what the endpoint
    does.

    A version may use fewer inputs than the endpoint takes: callers notice nothing. It may not use one that
    the endpoint cannot fill, or use one as another type, and its output must be the endpoint's in name, type
    and rank.

    A version that was made for another contract is refused, and the refusal is final: the contract and the
    model's name are inside the file, so no later judgement of the same file could end otherwise. Contracts
    cannot evolve yet; the explanation says what to do instead.
    """
    if not trial.outputs or trial.metadata is None:
        return judged(GATE, Verdict.INCONCLUSIVE, "not judged, because the file was not opened")
    differences = list(_differences(trial, trial.metadata, endpoint))
    return judged(
        GATE,
        Verdict.FAIL if differences else Verdict.PASS,
        "; ".join(differences)
        or f"contract {endpoint.contract_hash[:8]}, {len(trial.inputs)} inputs and the output fit",
        observed=float(len(differences)),
        bound=0.0,
    )


def _differences(trial: Trial, metadata: Mapping[str, object], endpoint: Signature) -> Iterable[str]:
    made_for = str(metadata.get("contract_hash"))
    if made_for != endpoint.contract_hash:
        yield (
            f"made for contract {made_for[:8]}, the endpoint's is {endpoint.contract_hash[:8]}; a changed contract is a "
            "new model, because those who call this one would have to change with it: declare it under a name of its "
            "own (Model's name) and train that, or take the change back and train again"
        )
    for given in trial.inputs:
        wanted = endpoint.inputs.get(given.name)
        if wanted is None:
            yield f"the endpoint has no input {given.name!r}"
        elif (given.kind, given.rank) != (wanted, 1):
            yield f"the input {given} should be {TensorType(given.name, wanted, 1)}"
    if trial.outputs != (endpoint.output,):
        yield f"the outputs are {', '.join(map(str, trial.outputs))}; the endpoint's is {endpoint.output}"


def _kind(column: Column) -> str:
    match column:
        case Number() | Integer() | Boolean() | Label():
            return NUMBER
        case Category() | Text():
            return WORD
        case Timestamp():
            return INSTANT
        case _:
            assert_never(column)
